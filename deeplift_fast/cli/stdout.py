"""Reserves standard output for a command's result.

Output of the recipe, other packages, C++ code and child processes goes to standard error, or nowhere.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from typing import TextIO

STDOUT, STDERR = 1, 2


@contextlib.contextmanager
def redirected(silent: bool) -> Iterator[TextIO]:
    """Redirects all output to standard error, or drops it.

    Args:
        silent: whether output is dropped.

    Yields:
        A file on standard error, for the command's own lines.
    """
    with contextlib.ExitStack() as until:
        ours = until.enter_context(_copied(sys.stderr)) if silent else sys.stderr
        theirs = null_device() if silent else sys.stderr
        until.enter_context(_descriptors(theirs.fileno() if silent else STDERR, (STDOUT, STDERR)))
        until.enter_context(contextlib.redirect_stdout(theirs))
        until.enter_context(contextlib.redirect_stderr(theirs))
        yield ours


@functools.cache
def null_device() -> TextIO:
    """The null device. It is never closed, because loggers keep the file that they were created with."""
    return open(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)


@contextlib.contextmanager
def _copied(file: TextIO) -> Iterator[TextIO]:
    """A copy of a file that keeps its destination when the file's descriptor is redirected."""
    try:
        number = os.dup(file.fileno())
    except (AttributeError, OSError, ValueError):  # the file has no descriptor
        yield file
        return
    with open(number, "w", encoding=file.encoding, errors=file.errors, buffering=1) as copy:
        yield copy


@contextlib.contextmanager
def _descriptors(target: int, numbers: tuple[int, ...]) -> Iterator[None]:
    """Redirects descriptors to another one."""
    copies = {}
    for number in numbers:
        with contextlib.suppress(OSError):  # the parent process closed it
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
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            file.flush()
