"""Writes a cache while a run reads the dataset for the first time."""

import contextlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from deeplift_fast.cohort.cache.block import UnknownField, read, written
from deeplift_fast.cohort.cache.identity import file_name, make_folder
from deeplift_fast.cohort.cache.layout import ALIGNMENT, COLUMNS, HEADER, trailer, written_index
from deeplift_fast.cohort.cache.window import stretch_of_blocks
from deeplift_fast.cohort.samples import Group, RaggedGroup, Stretch
from deeplift_fast.errors import CacheWarning, warn
from deeplift_fast.support.temporary import temporary_file

MOST_GROUPS = 64
"""Most groups of a stretch. Samples whose tensors have more kinds or shapes are read from the dataset as quickly."""

SHORT_SAMPLES = 2048
SHORT_BYTES = 1 << 24
"""Stretches are joined until they have so many samples or stored bytes: many short blocks are slow to read."""


class Stored(NamedTuple):
    """The block of a group, and the first and last samples, plus 1, of its stretch."""

    begin: int
    end: int
    content: pa.Buffer


class CacheWriter:
    """Takes the stretches of a dataset in order and makes them a cache; a context manager.

    Short stretches are joined into blocks, so that a cache reads equally fast whatever the size of the parts was.

    Nothing that goes wrong stops the run: a full disk, or samples that a cache cannot hold, end the writing with one
    warning, and leave no file. Until `finish` the file has a temporary name, which the next writer in the folder
    removes if this process is killed.

    Args:
        folder: the folder, as `where` gives it; made with mode 0700 if it is missing.
        identity: the dataset's, from `identity_of`.
        samples: number of samples of the whole dataset; a cache holds all of them.

    Example:
        >>> from deeplift_fast.cohort.cache import identity_of, where
        >>> from deeplift_fast.cohort.reading import open_source
        >>> source = open_source(dataset, model)
        >>> with CacheWriter(where(dataset), identity_of(dataset, source.identity()), len(dataset)) as writer:
        ...     for stretch in source.stretches(lambda part: True, 2048, None):
        ...         writer.add(stretch)
        ...     writer.finish().suffix
        '.arrow'
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], samples: int) -> None:
        self.path = folder / file_name(identity)
        """The file that `finish` makes."""
        self._identity, self._samples = identity, samples
        self._rows: dict[str, list[int]] = {name: [] for name in COLUMNS}
        self._next = self._size = 0
        self._short: list[Stored] = []
        self._open = contextlib.ExitStack()
        self._file: BinaryIO | None = None
        with self._giving_up():
            make_folder(folder)
            self._temporary, self._file = self._open.enter_context(temporary_file(folder))
            self._write(HEADER)

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(self, *about: Any) -> None:
        self.discard()

    @property
    def is_writing(self) -> bool:
        """Whether the writing goes on; false after a fault, and after `finish` or `discard`."""
        return self._file is not None

    def add(self, stretch: Stretch) -> None:
        """Takes the next stretch; does nothing after the writing has ended.

        A stretch that does not begin where the last one ended, as in a run that goes on with a started cohort, ends
        the writing without a warning.
        """
        if self._file is None:
            return
        if stretch.begin != self._next:
            self.discard()
            return
        with self._giving_up():
            self._short += _stored(stretch)
            self._next = stretch.end
            samples = self._next - self._short[0].begin if self._short else 0
            if samples >= SHORT_SAMPLES or sum(len(each.content) for each in self._short) >= SHORT_BYTES:
                self._write_short()

    def finish(self) -> Path | None:
        """Makes the file appear under its name, and flushes it to the disk.

        Returns:
            Its path; `None` if the writing has ended before, or not all samples were added.
        """
        if self._file is None or self._next != self._samples:
            self.discard()
            return None
        with self._giving_up():
            self._write_short()
            index = memoryview(written_index(self._rows, self._identity, self._samples))
            begin = self._aligned()
            self._write(index)
            self._write(trailer(begin, len(index), zlib.crc32(index)))
            self._file.flush()
            os.fsync(self._file.fileno())
            os.rename(self._temporary, self.path)
            self.discard()
            _settle(self.path.parent)
            return self.path
        return None

    def discard(self) -> None:
        """Ends the writing and removes the unfinished file."""
        self._file, self._short = None, []
        with contextlib.suppress(OSError):
            self._open.close()

    def _write_short(self) -> None:
        """Writes the blocks of the stretches that wait, which are joined if there are several."""
        waiting, self._short = self._short, []
        if waiting and waiting[0].begin != waiting[-1].begin:
            begin, end = waiting[0].begin, waiting[-1].end
            waiting = _stored(stretch_of_blocks([read(each.content, each.begin) for each in waiting], 0, begin, end))
        for each in waiting:
            content = memoryview(each.content)
            row = {"begin": each.begin, "end": each.end, "offset": self._aligned(), "length": len(content)}
            self._write(content)
            for name, number in {**row, "crc": zlib.crc32(content)}.items():
                self._rows[name].append(number)

    def _aligned(self) -> int:
        """The place of the next block or index, after zeros up to it."""
        self._write(bytes(-self._size % ALIGNMENT))
        return self._size

    def _write(self, content: bytes | memoryview | pa.Buffer) -> None:
        assert self._file is not None
        self._file.write(content)
        self._size += len(content)

    @contextlib.contextmanager
    def _giving_up(self) -> Any:
        """Ends the writing, with a warning, where the file cannot be written or a cache cannot hold the samples."""
        try:
            yield
        except UnknownField as error:
            self.discard()
            warn(f"no cache is made: {error}; every run reads the samples from the dataset itself", CacheWarning)
        except MemoryError:
            self.discard()
            warn(
                "no cache is made: memory is too short to store a part; the run goes on, and later ones read the "
                "samples from the dataset itself; smaller parts need less (part_samples)",
                CacheWarning,
            )
        except pa.ArrowException as error:
            self.discard()
            warn(f"no cache is made: Arrow cannot hold the samples ({type(error).__name__})", CacheWarning)
        except OSError as error:
            self.discard()
            warn(
                f"no cache is made: {self.path} cannot be written ({error.strerror}); the run goes on, and later ones "
                "read the samples from the dataset itself",
                CacheWarning,
            )


def _stored(stretch: Stretch) -> list[Stored]:
    """The blocks of a stretch.

    Raises:
        UnknownField: if a cache cannot hold them.
    """
    if len(stretch.groups) > MOST_GROUPS:
        raise UnknownField(f"{len(stretch.groups)} of {stretch.end - stretch.begin} samples differ in their shapes")
    return [Stored(stretch.begin, stretch.end, written(_ragged(group), stretch)) for group in stretch.groups]


def _ragged(group: Group) -> RaggedGroup:
    if not isinstance(group, RaggedGroup):
        raise UnknownField("samples come in batches of a loader")
    return group


def _settle(folder: Path) -> None:
    """Makes the name of a new file outlast a power failure; some network file systems cannot."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
