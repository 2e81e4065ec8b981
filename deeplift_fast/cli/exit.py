"""How a command ends: its exit code, and what it says of an error.

Messages of this package's own errors and warnings are shown. Those of others are shown by their type and place alone,
for their words may quote a patient's data; `--debug` shows all.
"""

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TextIO

import typer

from deeplift_fast.cli.termination import termination_raised
from deeplift_fast.errors import DemoError
from deeplift_fast.support.printable import printable_lines

UNEXPECTED = 1
BAD_INPUT = 2
SOME_FAILED = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
TERMINATED = 143  # 128 + SIGTERM

SHOWN_BY_DEBUG = "--debug shows the rest, which may quote patients' data"

Style = Literal["text", "json", "errors"]
"""How a command writes to standard error: lines of text, lines of JSON, or errors alone, as text."""

EPILOGUE = (
    "Exit codes: 0 done; 1 a package is missing, or an unexpected error; 2 bad usage or input; "
    "3 finished, but some samples could not be attributed; 130 interrupted; 143 terminated."
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, which may quote patients' data.")]


class Teller:
    """Writes a command's lines to standard error.

    Args:
        style: how.
        debug: whether others' words are shown.
    """

    def __init__(self, style: Style, debug: bool) -> None:
        self._style = style
        self.debug = debug
        """Whether others' words are shown."""
        self._file: TextIO | None = None

    @contextmanager
    def on(self, file: TextIO) -> Iterator[None]:
        """Writes there for a while: what is standard error by then may be another."""
        self._file = file
        try:
            yield
        finally:
            self._file = None

    def error(self, message: str, code: int) -> None:
        """Says why the command ends with this exit code."""
        self._say("error", message, code=code)

    def note(self, kind: str, message: str, ours: bool, place: str) -> None:
        """Says what was warned of, unless only errors are wanted.

        Args:
            kind: class of a warning, or level and name of a logger.
            message: its words.
            ours: whether this package chose them.
            place: file and line.
        """
        if self._style == "errors":
            return
        told = f"{kind}: {message}" if ours else f"{kind} at {place}" + (f": {message}" if self.debug else "")
        self._say("warning", told + ("" if ours or self.debug else f"; {SHOWN_BY_DEBUG}"))

    def _say(self, event: str, message: str, **more: Any) -> None:
        file = sys.stderr if self._file is None else self._file
        if self._style == "json":
            print(json.dumps({"event": event, "message": message, **more}), file=file, flush=True)
        else:
            print(f"deeplift-fast: {printable_lines(message)}", file=file, flush=True)


@contextmanager
def told(debug: bool, extra: str, kept: str, style: Style = "text") -> Iterator[Teller]:
    """Turns errors and warnings into one line each on standard error, and errors into an exit code.

    Args:
        debug: whether to let errors through as they are.
        extra: the extra of this package that brings what the command imports.
        kept: what an interruption leaves.
        style: how the lines are written.

    Yields:
        What writes them.

    Raises:
        typer.Exit: with the exit code.
    """
    teller = Teller(style, debug)
    with termination_raised() as termination:
        try:
            with noted(teller):
                yield teller
        except typer.Exit:
            raise
        except (KeyboardInterrupt, Exception) as error:
            if debug:
                traceback.print_exc()
            message, code = _end(error, debug, extra, kept)
            if termination.came:
                message, code = f"terminated; {kept}", TERMINATED
            teller.error(message, code)
            raise typer.Exit(code) from error


def _end(error: BaseException, debug: bool, extra: str, kept: str) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {kept}", INTERRUPTED
    if isinstance(error, ModuleNotFoundError):
        needed = "dask" if error.name in ("dask", "distributed", "cloudpickle") else extra
        return f'this needs {error.name}: pip install "deeplift_fast[{needed}]"', UNEXPECTED
    if isinstance(error, ValueError | NotImplementedError | DemoError) and _ours(error):
        return str(error), BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'an operation on files'}: {error.strerror}", BAD_INPUT
    return f"{type(error).__name__} at {place(error)}" + ("" if debug else f"; {SHOWN_BY_DEBUG}"), UNEXPECTED


@contextmanager
def noted(teller: Teller) -> Iterator[None]:
    """Tells warnings, and what libraries log without a handler, by the line."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        teller.note(category.__name__, str(message), _is_ours(category.__module__), f"{filename}:{lineno}")

    usual, warnings.showwarning = warnings.showwarning, show
    last, logging.lastResort = logging.lastResort, _Unhandled(teller)
    try:
        yield
    finally:
        warnings.showwarning, logging.lastResort = usual, last


class _Unhandled(logging.Handler):
    """Tells what is logged where nobody set up a handler."""

    def __init__(self, teller: Teller) -> None:
        super().__init__(logging.WARNING)
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        """Tells one record."""
        kind, place = f"{record.levelname} of {record.name}", f"{record.pathname}:{record.lineno}"
        self._teller.note(kind, record.getMessage(), _is_ours(record.name), place)


def place(error: BaseException) -> str:
    """File and line where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


def _ours(error: BaseException) -> bool:
    """Whether this package raised an error, and so chose its words."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and _is_ours(str(trace.tb_frame.f_globals.get("__name__", "")))


def _is_ours(module: str) -> bool:
    """Whether a module is of this package."""
    return module.partition(".")[0] == __name__.partition(".")[0]
