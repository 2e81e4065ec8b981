"""What others write while a command runs: kept off standard output, which is for the result, and dropped where asked.

Others are the recipe, other packages, C++ code, and the processes that any of them begins.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from typing import TextIO

STDOUT, STDERR = 1, 2


@contextlib.contextmanager
def others_apart(silent: bool) -> Iterator[TextIO]:
    """Sends what others write to standard error, or nowhere.

    Args:
        silent: whether it is dropped.

    Yields:
        Standard error for the command's own lines.
    """
    with contextlib.ExitStack() as until:
        ours = until.enter_context(_copied(sys.stderr)) if silent else sys.stderr
        theirs = nowhere() if silent else sys.stderr
        until.enter_context(_descriptors(theirs.fileno() if silent else STDERR, (STDOUT, STDERR)))
        until.enter_context(contextlib.redirect_stdout(theirs))
        until.enter_context(contextlib.redirect_stderr(theirs))
        yield ours


@functools.cache
def nowhere() -> TextIO:
    """The null device. It is never closed: loggers write to the stream that they found, as long as they live."""
    return open(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)


@contextlib.contextmanager
def _copied(stream: TextIO) -> Iterator[TextIO]:
    """A stream that still writes there when the stream's descriptor is sent elsewhere."""
    try:
        number = os.dup(stream.fileno())
    except (AttributeError, OSError, ValueError):  # it writes to none
        yield stream
        return
    with open(number, "w", encoding=stream.encoding, errors=stream.errors, buffering=1) as copy:
        yield copy


@contextlib.contextmanager
def _descriptors(target: int, numbers: tuple[int, ...]) -> Iterator[None]:
    """Sends what is written to some descriptors to another."""
    copies = {}
    for number in numbers:
        with contextlib.suppress(OSError):  # closed by who began the process
            copies[number] = os.dup(number)
    _flush()
    try:
        for number in copies:
            os.dup2(target, number)
        yield
    finally:
        _flush()
        for number, copy in copies.items():
            os.dup2(copy, number)
            os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
