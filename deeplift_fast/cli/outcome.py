"""How a command ends: its exit code, and what it says of an error.

Messages of this package's own errors are shown. Any other error is shown by its type and place alone, for its message
may quote a patient's data; `--debug` shows all.
"""

import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

UNEXPECTED = 1
BAD_INPUT = 2
SOME_FAILED = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

EPILOGUE = (
    "Exit codes: 0 done; 1 a package is missing, or an unexpected error; 2 bad usage or input; "
    "3 finished, but some samples could not be attributed; 130 interrupted."
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, which may quote patients' data.")]


@contextmanager
def told(debug: bool, extra: str, kept: str) -> Iterator[None]:
    """Turns errors into one line on standard error and an exit code.

    Args:
        debug: whether to let them through as they are.
        extra: the extra of this package that brings what the command imports.
        kept: what an interruption leaves.

    Raises:
        typer.Exit: with the exit code.
    """
    try:
        with _short_warnings():
            yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as error:
        if debug:
            traceback.print_exc()
        say(f"interrupted; {kept}")
        raise typer.Exit(INTERRUPTED) from error
    except ModuleNotFoundError as error:
        if debug:
            traceback.print_exc()
        needed = "dask" if error.name in ("dask", "distributed", "cloudpickle") else extra
        say(f'this needs {error.name}: pip install "deeplift_fast[{needed}]"')
        raise typer.Exit(UNEXPECTED) from error
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, ValueError | NotImplementedError | _demo_error()) and _ours(error):
            say(str(error))
            raise typer.Exit(BAD_INPUT) from error
        if isinstance(error, OSError) and error.strerror:
            say(f"{error.filename or 'an operation on files'}: {error.strerror}")
            raise typer.Exit(BAD_INPUT) from error
        more = "" if debug else "; --debug shows the rest, which may quote patients' data"
        say(f"{type(error).__name__} at {place(error)}{more}")
        raise typer.Exit(UNEXPECTED) from error


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Shows this package's warnings as one line: where they were raised is of no use on a command line."""
    usual = warnings.formatwarning

    def short(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> str:
        if category.__module__.partition(".")[0] == __name__.partition(".")[0]:
            return f"deeplift-fast: {category.__name__}: {message}\n"
        return usual(message, category, *place, **rest)

    warnings.formatwarning = short
    try:
        yield
    finally:
        warnings.formatwarning = usual


def say(message: str) -> None:
    """Writes a line to standard error, named after the command."""
    print(f"deeplift-fast: {message}", file=sys.stderr, flush=True)


def place(error: BaseException) -> str:
    """File and line where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


def _ours(error: BaseException) -> bool:
    """Whether this package raised an error, and so chose its words."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] == __name__.partition(".")[0]


def _demo_error() -> type[Exception]:
    from deeplift_fast.demo.errors import DemoError

    return DemoError
