"""Opens a cache, checks it, and reads windows of its samples."""

import json
import mmap
import os
import zlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deeplift_fast.cohort.cache.block import Block, read
from deeplift_fast.cohort.cache.identity import file_name
from deeplift_fast.cohort.cache.layout import HEADER, TRAILER, Index, Unreadable, index_place, read_index
from deeplift_fast.cohort.cache.window import stretch_of_blocks
from deeplift_fast.cohort.samples import Stretch
from deeplift_fast.errors import CacheError, CacheWarning, warn
from deeplift_fast.support.guarded_files import opened

REMEDY = "remove it, and the next run makes it anew"


class Cache:
    """The samples of a dataset in a memory-mapped file.

    Each block is mapped when a window needs it and unmapped when its samples are no longer used, so that the memory of
    a process does not grow with the dataset. A block's checksum is verified when the process first reads it. Forked
    processes may share a cache; a pickled one is opened anew.

    Args:
        path: the file.

    Attributes:
        path: the file.
        samples: number of samples.
        identity: the dataset's identity.

    Raises:
        Unreadable: if it is damaged, or of another version.
        OSError: if it cannot be opened.

    Example:
        >>> from deeplift_fast.cohort import make_cache
        >>> cache = Cache(make_cache(dataset, model, progress="none").path)
        >>> cache.verify()
        >>> cache.stretch(begin=0, end=8, part=0).end
        8
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = opened(path)
        self._size = os.fstat(self._handle).st_size
        try:
            self._index = self._opened_index()
        except BaseException:
            os.close(self._handle)
            self._handle = -1
            raise
        self.samples: int = self._index.samples
        self.identity: Mapping[str, Any] = self._index.identity
        self._verified = np.zeros(len(self._index.columns["begin"]), bool)
        self._last: tuple[int, Block] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.identity)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *about: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; stretches that were read stay whole."""
        if getattr(self, "_handle", -1) >= 0:
            os.close(self._handle)
            self._handle = -1

    def stretches(
        self, parts: Callable[[int], bool], part_samples: int, total: int | None = None
    ) -> Generator[Stretch]:
        """The stretches of the wanted parts, in order, equal to those of `DatasetSource.stretches`.

        Args:
            parts: tells whether a part is wanted.
            part_samples: samples per part.
            total: number of first samples to read; `None` for all.

        Raises:
            CacheError: if a block is damaged.
        """
        total = self.samples if total is None else min(total, self.samples)
        for part, begin in enumerate(range(0, total, part_samples)):
            if parts(part):
                yield self.stretch(begin, min(begin + part_samples, total), part)

    def stretch(self, begin: int, end: int, part: int) -> Stretch:
        """The samples from `begin` to `end - 1` as a stretch.

        Args:
            begin: number of the first sample.
            end: number of the last sample, plus 1.
            part: number of the part that they make.

        Raises:
            ValueError: if the cache does not have these samples.
            CacheError: if a block is damaged, or the file has another size than when it was opened.
        """
        self._check_size()
        if not 0 <= begin < end <= self.samples:
            raise ValueError(f"begin and end are {begin} and {end}; accepted: 0 <= begin < end <= {self.samples}")
        columns = self._index.columns
        first = int(np.searchsorted(columns["end"], begin, side="right"))
        last = int(np.searchsorted(columns["begin"], end, side="left"))
        return stretch_of_blocks([self._block(row).between(begin, end) for row in range(first, last)], part, begin, end)

    def remove(self) -> bool:
        """Removes the file; false if another process has put a new one in its place, which stays.

        Raises:
            OSError: if it cannot be removed, or is gone.
        """
        if not os.path.samestat(os.fstat(self._handle), os.lstat(self.path)):
            return False
        self.path.unlink()
        return True

    def verify(self) -> None:
        """Reads the whole file and checks every block; later reads check none.

        Raises:
            CacheError: if a block is damaged, or the file has another size than when it was opened.
        """
        self._check_size()
        for row in range(len(self._verified)):
            self._block(row)

    def _check_size(self) -> None:
        """Raises `CacheError` if the file was cut or overwritten in place: a page that is gone ends the process."""
        if os.fstat(self._handle).st_size != self._size:
            raise CacheError(f"the cache {self.path} has changed its size while it was read; {REMEDY}")

    def _block(self, row: int) -> Block:
        if self._last is not None and self._last[0] == row:
            return self._last[1]
        columns = self._index.columns
        content = self._mapped(int(columns["offset"][row]), int(columns["length"][row]))
        begin, end = int(columns["begin"][row]), int(columns["end"][row])
        try:
            if not self._verified[row] and zlib.crc32(content) != int(columns["crc"][row]):
                raise ValueError("its checksum does not fit")
            block = read(content, begin)
        except ValueError as error:
            raise CacheError(
                f"the cache {self.path} is damaged at samples {begin} to {end - 1} ({error}); {REMEDY}"
            ) from None
        self._verified[row] = True
        self._last = row, block
        return block

    def _mapped(self, begin: int, length: int) -> pa.Buffer:
        """Bytes of the file; they are unmapped when nothing refers to them any more."""
        before = begin % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(self._handle, before + length, offset=begin - before, access=mmap.ACCESS_READ)
        return pa.py_buffer(mapped).slice(before, length)

    def _opened_index(self) -> Index:
        header = os.pread(self._handle, len(HEADER), 0)
        end = os.pread(self._handle, TRAILER.size, max(0, self._size - TRAILER.size))
        begin, length, crc = index_place(header, end, self._size)
        content = self._mapped(begin, length)
        if zlib.crc32(content) != crc:
            raise Unreadable("its index is damaged")
        return read_index(content)


def open_cache(folder: Path, identity: Mapping[str, Any], required: bool = False) -> Cache | None:
    """The cache of a dataset in a folder.

    Args:
        folder: the folder, as `where` gives it.
        identity: the dataset's, from `identity_of`.
        required: whether the user asked for the cache, so that `None` is no answer.

    Returns:
        The cache; `None` if there is none, or it is stale, damaged, of another version or cannot be read. All of these
        but a missing one are said in a :class:`CacheWarning`; :class:`CacheWriter` replaces such a file.

    Raises:
        CacheError: instead of `None`, if `required`.

    Example:
        >>> from deeplift_fast.cohort import make_cache
        >>> from deeplift_fast.cohort.cache import identity_of
        >>> from deeplift_fast.cohort.reading import open_source
        >>> made = make_cache(dataset, model, progress="none")
        >>> identity = identity_of(dataset, open_source(dataset, model).identity())
        >>> open_cache(made.path.parent, identity, required=True).samples
        12
    """
    path = Path(folder) / file_name(identity)
    try:
        found = Cache(path)
        if _same(found.identity, identity):
            return found
        found.close()
        reason = "it is of an earlier state of this dataset, or of another one"
    except FileNotFoundError:
        if not required:
            return None
        reason = "there is none"
    except Unreadable as error:
        reason = str(error)
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}"
    if required:
        raise CacheError(f"the cache {path} cannot be used ({reason}); {REMEDY}")
    warn(f"the cache {path} is not used ({reason}); the samples are read from the dataset itself", CacheWarning)
    return None


def _reopened(path: Path, identity: Mapping[str, Any]) -> Cache:
    """The cache that a pickle was made of.

    Raises:
        CacheError: if another one has taken its place.
    """
    found = Cache(path)
    if not _same(found.identity, identity):
        found.close()
        raise CacheError(f"the cache {path} has been replaced, and holds other samples now; open it anew by open_cache")
    return found


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two identities are equal; one was written as JSON."""

    return bool(one == json.loads(json.dumps(other)))
