"""A disk that is full, or broken, from any write on: an error that names the folder, and the same run goes on."""

import errno
import os
import random

import pytest
from cohort_cases import contents, run, spoiled
from file_limits import files_of_at_most
from fsspec.implementations.memory import MemoryFileSystem

from deeplift_fast.cohort import CohortError, local_store, lock
from deeplift_fast.cohort.manifest import is_intact, load
from deeplift_fast.cohort.store import open_store

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    """Samples of which some cannot be attributed, their model, and the bytes of an undisturbed run."""
    samples, model, _ = spoiled(16)
    out = tmp_path_factory.mktemp("full") / "whole"
    run(model, samples, out, part_samples=6)
    return samples, model, contents(out)


class Disk:
    """Fails from its n-th write on, after half of what was to be written; counts writes."""

    def __init__(self, number, last):
        self.number, self.last, self.writes = number, last, 0

    def fails(self):
        self.writes += 1
        return self.last <= self.writes

    def error(self):
        return OSError(self.number, os.strerror(self.number))

    def guard(self, patch):
        """Puts this in place of all that writes to a local folder, and to one in memory."""
        opened, pwrite, fsync, pipe = open, os.pwrite, os.fsync, MemoryFileSystem.pipe_file
        disk = self

        class File:
            def __init__(self, file):
                self._file = file

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self._file.close()

            def write(self, data):
                if disk.fails():
                    self._file.write(data[: len(data) // 2])
                    raise disk.error()
                return self._file.write(data)

        def opening(handle, mode="r", *given, **options):
            file = opened(handle, mode, *given, **options)
            return File(file) if "w" in mode else file

        def failing(call, half=lambda given: None):
            def tried(*given, **options):
                if disk.fails():
                    half(given)
                    raise disk.error()
                return call(*given, **options)

            return tried

        patch.setattr(local_store, "open", opening, raising=False)
        patch.setattr(os, "pwrite", failing(pwrite))
        patch.setattr(os, "fsync", failing(fsync))
        half = failing(pipe, lambda given: pipe(given[0], given[1], given[2][: len(given[2]) // 2]))
        patch.setattr(MemoryFileSystem, "pipe_file", lambda *given, **options: half(*given, **options))


def kept(out):
    """Parts that the manifest names, all of them intact."""
    store = open_store(out)
    found = load(store)
    assert found is None or all(is_intact(part, store) for part in found.parts.values())
    return set(found.parts) if found else set()


def said_by(call):
    """What a call's error says; nothing where it ends well."""
    try:
        call()
    except CohortError as error:
        return str(error)
    return ""


def files(out):
    """Bytes of a cohort's tables."""
    store = open_store(out)
    names = ["failures.parquet", *(f"{f}/{name}" for f in ("samples", "attributions") for name in store.names(f))]
    return {name: store.read(name) for name in names}


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_disk_that_fails_at_any_write(sick, tmp_path, monkeypatch, examples, figures, place):
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    samples, model, whole = sick
    tables = {name: content for name, content in whole.items() if name.endswith(".parquet")}
    counting = Disk(0, 1 << 30)
    at = f"memory://full-{random.random()}" if place == "memory" else str(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        counting.guard(patch)
        run(model, samples, f"{at}/counted", part_samples=6)
    assert counting.writes > 12
    refused = 0
    chosen = random.Random(place).sample(range(1, counting.writes + 1), min(examples(10, 30), counting.writes))
    for last in chosen:
        out, disk = f"{at}/{last}", Disk(ERRORS[last % len(ERRORS)], last)
        with pytest.MonkeyPatch.context() as patch:
            disk.guard(patch)
            said = said_by(lambda out=out: run(model, samples, out, part_samples=6))
        assert not said or (said.startswith(f"out is {out}, ") and ("kept" in said or "cannot be made" in said)), said
        refused += bool(said)
        before = kept(out)
        run(model, samples, out, part_samples=6)
        assert before <= kept(out)
        assert files(out) == tables
    assert refused > len(chosen) // 2
    figures("disks that fail", refused=refused, resumed_to_the_same_bytes=len(chosen), other_numbers=0)


def test_files_that_may_not_grow(sick, tmp_path, examples, figures):
    samples, model, whole = sick
    largest = max(len(content) for name, content in whole.items() if name.endswith(".parquet"))
    count, refused = examples(6, 16), 0
    for number in range(count):
        out = tmp_path / str(number)
        with files_of_at_most(largest * number // count):
            said = said_by(lambda out=out: run(model, samples, out, part_samples=6))
        assert not said or (said.startswith(f"out is {out}, where ") and "kept" in said), said
        refused += bool(said)
        run(model, samples, out, part_samples=6)
        assert contents(out) == whole
    assert refused > count // 2
    figures("file size limits", refused=refused, resumed_to_the_same_bytes=count, other_numbers=0)
