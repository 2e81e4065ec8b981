"""The exit code of a command, and its lines about errors and warnings.

Messages of this package are shown whole. For errors and warnings of other packages only the type and the place are
shown, because their messages may quote a patient's data; `--debug` shows these messages too.
"""

import logging
import select
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TextIO, override

import typer

from deeplift_fast.cli.stdout import null_device
from deeplift_fast.cli.termination import termination_raised
from deeplift_fast.errors import DemoError
from deeplift_fast.support.events import Level, event_line
from deeplift_fast.support.printable import printable_lines

UNEXPECTED = 1
BAD_INPUT = 2
SOME_FAILED = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
UNREAD = 141  # 128 + SIGPIPE
TERMINATED = 143  # 128 + SIGTERM

SHOWN_BY_DEBUG = "--debug shows the rest, which may quote patients' data"

Style = Literal["text", "json", "errors"]
"""The lines on standard error: text, JSON, or errors only, as text."""

Report = Callable[[str, str, bool, str], None]
"""Takes a warning: its arguments are those of `Reporter.warning`."""

EPILOGUE = (
    "Exit codes: 0 done; 1 a package is missing, or an unexpected error; 2 bad usage or input; "
    "3 finished, but some samples could not be attributed; 130 interrupted; "
    "141 nobody reads the output any more; 143 terminated."
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, which may quote patients' data.")]


class Reporter:
    """Writes a command's lines to standard error.

    Args:
        style: form of the lines.
        debug: whether messages of other packages are shown.
        run: id of the run, for lines of JSON.
    """

    def __init__(self, style: Style, debug: bool, run: str = "") -> None:
        self._style, self._debug, self._run = style, debug, run
        self._file: TextIO | None = None

    @contextmanager
    def writing_to(self, file: TextIO) -> Iterator[None]:
        """Writes to `file` instead, while `sys.stderr` is redirected."""
        self._file = file
        try:
            yield
        finally:
            self._file = None

    def error(self, message: str, code: int) -> None:
        """Writes the reason for an exit code, and the traceback of the error being handled, if `debug` asks for it."""
        trace = traceback.format_exc() if self._debug and sys.exception() is not None else ""
        if self._style == "json":
            self._write("error", message, code=code, **({"traceback": trace} if trace else {}))
            return
        (self._file or sys.stderr).write(trace)
        self._write("error", message)

    def warning(self, kind: str, message: str, ours: bool, place: str) -> None:
        """Writes a warning, unless the style is `"errors"`.

        Args:
            kind: class of the warning, or level and name of the logger.
            message: its message.
            ours: whether it comes from this package.
            place: file and line.
        """
        if self._style == "errors":
            return
        line = f"{kind}: {message}" if ours else f"{kind} at {place}" + (f": {message}" if self._debug else "")
        more = {"kind": kind} if self._style == "json" else {}
        self._write("warning", line + ("" if ours or self._debug else f"; {SHOWN_BY_DEBUG}"), **more)

    def loading(self, recipe: str) -> None:
        """Says that a recipe is loaded now, which may take long, unless the style is `"errors"`."""
        file = sys.stderr if self._file is None else self._file
        if self._style == "json":
            file.write(event_line(self._run, "recipe", "info", recipe=recipe))
        elif self._style == "text":
            file.write(f"deeplift-fast: loading {printable_lines(recipe)}\n")
        file.flush()

    def _write(self, event: Level, message: str, **more: Any) -> None:
        file = sys.stderr if self._file is None else self._file
        if self._style == "json":
            file.write(event_line(self._run, event, event, message=message, **more))
        else:
            file.write(f"deeplift-fast: {printable_lines(message)}\n")
        file.flush()


@contextmanager
def reported(debug: bool, extra: str, kept: str, style: Style = "text", run: str = "") -> Iterator[Reporter]:
    """Turns errors and warnings into one line each on standard error, and errors into an exit code.

    Args:
        debug: whether to print tracebacks, and the messages of other packages.
        extra: the extra of this package that installs the command's imports.
        kept: state after an interruption, as words for the user.
        style: form of the lines.
        run: id of the run, for lines of JSON.

    Yields:
        The reporter of the lines.

    Raises:
        typer.Exit: with the exit code.
    """
    reporter = Reporter(style, debug, run)
    with termination_raised() as termination:
        try:
            with warnings_reported(reporter.warning):
                yield reporter
                sys.stdout.flush()
        except typer.Exit:
            raise
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, BrokenPipeError) and _is_unread():
                raise typer.Exit(UNREAD) from error
            message, code = _end(error, debug, extra, kept)
            if termination.came:
                message, code = f"terminated; {kept}", TERMINATED
            reporter.error(message, code)
            raise typer.Exit(code) from error


def _is_unread() -> bool:
    """Whether nobody reads standard output any more, as after `| head`; if so, the rest of it is dropped."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        unread = any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll on this system, or the file has no descriptor
        return False
    if unread:
        sys.stdout = null_device()
    return unread


def _end(error: BaseException, debug: bool, extra: str, kept: str) -> tuple[str, int]:
    """The line about an error, and the exit code."""
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
def warnings_reported(report: Report) -> Iterator[None]:
    """Reports warnings, and log records without a handler, one by one."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        report(category.__name__, str(message), _is_ours(category.__module__), f"{filename}:{lineno}")

    usual, warnings.showwarning = warnings.showwarning, show
    last, logging.lastResort = logging.lastResort, _Unhandled(report)
    try:
        yield
    finally:
        warnings.showwarning, logging.lastResort = usual, last


class _Unhandled(logging.Handler):
    """Reports log records for which nobody set up a handler."""

    def __init__(self, report: Report) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    @override
    def emit(self, record: logging.LogRecord) -> None:
        kind, place = f"{record.levelname} of {record.name}", f"{record.pathname}:{record.lineno}"
        self._report(kind, record.getMessage(), _is_ours(record.name), place)


def place(error: BaseException) -> str:
    """File and line where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


def _ours(error: BaseException) -> bool:
    """Whether this package raised an error, and so wrote its message."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and _is_ours(str(trace.tb_frame.f_globals.get("__name__", "")))


def _is_ours(module: str) -> bool:
    """Whether a module belongs to this package."""
    return module.partition(".")[0] == __name__.partition(".")[0]
