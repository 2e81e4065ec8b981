"""Output folders that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from deeplift_fast.errors import DemoError
from deeplift_fast.support.temporary import temporary_folder

_OLD = "old"


def check_out(out: Path, force: bool, marks: Sequence[str], what: str, option: str) -> None:
    """Raise if something at `out` would be lost that the user may not want to lose.

    Args:
        out: where a result is to go.
        force: whether an earlier result may be replaced.
        marks: paths under it, one of which an earlier result has.
        what: what a result is called.
        option: how the command line names `out`.

    Raises:
        DemoError: if `out` exists and `force` is not given, or it is no result.
    """
    if not out.exists():
        return
    if not force:
        raise DemoError(f"{out} exists already; choose another folder with {option}, or replace it with --force")
    if not out.is_dir() or (any(out.iterdir()) and not any((out / mark).exists() for mark in marks)):
        raise DemoError(f"{out} is not {what}, so --force does not replace it; choose another {option}")


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Files and folders that only the user may read: they may hold patient data."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def replaced(out: Path, force: bool, marks: Sequence[str], what: str, option: str) -> Iterator[Path]:
    """A folder that takes the place of `out` on success and is removed on failure.

    It is in a temporary folder beside `out`. Those that killed runs left there are removed first.

    Args:
        out: as in `check_out`, as the others are.
        force: alike.
        marks: alike.
        what: alike.
        option: alike.

    Raises:
        DemoError: as `check_out` does, or if nothing can be written there.
    """
    with contextlib.ExitStack() as until:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            beside = until.enter_context(
                temporary_folder(out.parent, f"{out.name}.tmp-", lambda left: _put_back(left, out))
            )
            folder = beside / "new"
            folder.mkdir()
        except OSError as error:
            raise DemoError(f"cannot write to {out.parent}: {error}; choose another folder with {option}") from error
        yield folder
        check_out(out, force, marks, what, option)  # it may have appeared meanwhile
        if out.exists():
            out.rename(beside / _OLD)
        folder.rename(out)


def _put_back(left: Path, out: Path) -> None:
    """The earlier result, where a run was killed after it moved that away and before it put its own there."""
    if (left / _OLD).is_dir() and not out.exists():
        (left / _OLD).rename(out)
