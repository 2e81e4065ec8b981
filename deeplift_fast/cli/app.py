"""The command `deeplift-fast` and its entry point."""

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from deeplift_fast import __version__
from deeplift_fast.cli.cache import cache
from deeplift_fast.cli.demo import demo
from deeplift_fast.cli.exit import EPILOGUE, Debug, reported
from deeplift_fast.cli.report import report
from deeplift_fast.cli.run import run
from deeplift_fast.cli.summary import summary
from deeplift_fast.cli.synth import synth

PROGRAM = "deeplift-fast"

# typer's error of bad usage: in new releases from its own copy of click, in older ones from click.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Fast DeepLIFT for models of health records.",
    epilog=EPILOGUE,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: arguments after the program's name; `None` for those of the process.

    Returns:
        The exit code: 0; 1 for a missing package or an unexpected error; 2 for bad input; 3 if samples failed; 130
        after Ctrl-C; 141 if nobody reads the output any more; 143 after SIGTERM.

    Raises:
        SystemExit: for bad usage, with code 2, and for `--version`.
    """
    # Before torch is imported: its memory profiler, which finds the budget, logs a line about blocks of unknown size.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    command = typer.main.get_command(app)
    given = None if arguments is None else list(arguments)
    try:
        code = command.main(args=given, prog_name=PROGRAM, standalone_mode=False)
    except _UsageError as error:
        error.show()  # type: ignore[attr-defined]
        raise SystemExit(2) from error
    return code or 0


def _show_version(asked: bool) -> None:
    if asked:
        print(f"deeplift_fast {__version__}")
        raise SystemExit(0)


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


@app.command(epilog=EPILOGUE)
def doctor(debug: Debug = False) -> None:
    """Show versions, backends, and the backend of each op on each device."""
    with reported(debug, "dev", "nothing was changed"):
        from deeplift_fast.cli.doctor import describe

        print(describe())


for _command in (run, cache, summary, report, synth, demo):
    app.command(epilog=EPILOGUE)(_command)
