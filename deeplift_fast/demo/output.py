"""Output folders that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from deeplift_fast.demo.errors import DemoError


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
    """A temporary folder beside `out`, which takes its place on success and is removed on failure.

    Args:
        out: as in `check_out`, as the others are.
        force: alike.
        marks: alike.
        what: alike.
        option: alike.

    Raises:
        DemoError: as `check_out` does, or if nothing can be written there.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{out.name}.tmp-", dir=out.parent))
    except OSError as error:
        raise DemoError(f"cannot write to {out.parent}: {error}; choose another folder with {option}") from error
    try:
        yield folder
        check_out(out, force, marks, what, option)  # it may have appeared meanwhile
        if out.exists():
            old = folder.with_name(folder.name + "-old")
            out.rename(old)
            folder.rename(out)
            shutil.rmtree(old)
        else:
            folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
