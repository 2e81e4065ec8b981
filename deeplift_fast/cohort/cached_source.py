"""The samples of a dataset out of its cache, or out of the dataset itself while it has none."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, override

from deeplift_fast.cohort.cache import Cache, CacheWriter, identity_of, open_cache, unfit, where
from deeplift_fast.cohort.cache.identity import file_name, own_folder
from deeplift_fast.cohort.cache.reader import REMEDY
from deeplift_fast.cohort.reading import DatasetSource, Source
from deeplift_fast.cohort.samples import Stretch
from deeplift_fast.errors import CacheError, CacheWarning, CohortError, warn
from deeplift_fast.support.home import expanded


@dataclass(frozen=True)
class CachePlace:
    """The place of a dataset's cache; another process finds the cache by it.

    Attributes:
        folder: the folder of the dataset's caches.
        identity: the dataset's identity, from `cache.identity_of`.
    """

    folder: Path
    identity: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The file of the cache."""
        return self.folder / file_name(self.identity)


class CachedSource(DatasetSource):
    """Samples by index, out of the dataset's cache where there is a sound one.

    A reading of the whole dataset makes the cache. A damaged cache is removed, and the dataset is read from there on.

    Args:
        dataset: as for :class:`DatasetSource`, likewise the next two.
        model: the model.
        limit: number of first samples to read; `None` for all.
        folder: the folder of the dataset's caches.
        place: the place of the cache, where the identity is known already.
    """

    def __init__(
        self, dataset: Any, model: Any, limit: int | None, folder: Path, place: CachePlace | None = None
    ) -> None:
        super().__init__(dataset, model, limit)
        self._folder = folder
        self._place = place
        self._cache: Cache | None = None
        self._is_searched = False
        self.is_writing = False
        """Whether the reading that goes on makes the cache."""

    @property
    def place(self) -> CachePlace:
        """The place of the cache; reads some samples for the dataset's identity, once."""
        if self._place is None:
            self.identity()
        assert self._place is not None
        return self._place

    @override
    def identity(self) -> dict[str, Any]:
        found = super().identity()
        if self._place is None:
            self._place = CachePlace(self._folder, identity_of(self.dataset, found))
        return found

    @property
    def cache(self) -> Cache | None:
        """The cache; `None` without a sound one, with one warning if there is another."""
        if not self._is_searched:
            self._is_searched = True
            self._cache = open_cache(self.place.folder, self.place.identity)
        return self._cache

    def sound(self) -> Path | None:
        """The file of the cache if it is sound from beginning to end; `None` otherwise, with a warning."""
        if (cache := self.cache) is None:
            return None
        try:
            cache.verify()
        except (CacheError, OSError) as error:
            self._drop(cache, error)
            return None
        return cache.path

    def forget(self) -> None:
        """Reads the dataset from here on, even if there is a cache; a reading of the whole dataset replaces it."""
        self._is_searched, self._cache = True, None

    @override
    def stretches(self, parts: Callable[[int], bool], part_samples: int, processes: int | None) -> Generator[Stretch]:
        assert self.total is not None
        wanted = [part for part in range(-(-self.total // part_samples)) if parts(part)]
        for place, part in enumerate(wanted):
            stretch = self._cached(part, part_samples)
            if stretch is None:
                yield from self._uncached({*wanted[place:]}, part_samples, processes)
                return
            yield stretch

    @override
    def stretch(self, part: int, part_samples: int) -> Stretch:
        found = self._cached(part, part_samples)
        return super().stretch(part, part_samples) if found is None else found

    def _cached(self, part: int, part_samples: int) -> Stretch | None:
        """The stretch of a part out of the cache; `None` without a sound cache."""
        cache = self.cache
        if cache is None:
            return None
        assert self.total is not None
        begin = part * part_samples
        try:
            found = cache.stretch(begin, min(begin + part_samples, self.total), part)
        except (CacheError, OSError) as error:
            self._drop(cache, error)
            return None
        self.read_from = cache.path
        return found

    def _drop(self, cache: Cache, error: Exception) -> None:
        self._cache = None
        reason = f"{cache.path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        if isinstance(error, CacheError):
            with contextlib.suppress(OSError):
                if cache.remove():
                    done = "it is removed, and the next run over all samples makes it anew"
                else:
                    done = "another process has replaced it meanwhile"
                reason = reason.removesuffix(REMEDY) + done
        warn(f"the samples are read from the dataset itself from here on: {reason}", CacheWarning)

    def _uncached(self, wanted: set[int], part_samples: int, processes: int | None) -> Generator[Stretch]:
        """The stretches of some parts out of the dataset; a reading of all samples makes the cache."""
        is_whole = self.total == self.length and len(wanted) == -(-self.length // part_samples)
        with contextlib.ExitStack() as stack:
            stretches = stack.enter_context(
                contextlib.closing(super().stretches(wanted.__contains__, part_samples, processes))
            )
            if not is_whole or not self.length:
                yield from stretches
                return
            place = self.place
            writer = stack.enter_context(CacheWriter(place.folder, place.identity, self.length))
            for stretch in stretches:
                writer.add(stretch)
                self.is_writing = writer.is_writing
                yield stretch
            self.made = writer.finish()


def with_cache(source: Source, cache: bool | str | Path) -> Source:
    """A source that reads its samples from a cache, if `cache` asks for it and the dataset can have one.

    Args:
        source: the source.
        cache: as for `attribute_cohort`.

    Raises:
        CohortError: if `cache` is something else.
    """
    folder = checked_cache(cache)
    if folder is None:
        return source
    reason = why_uncached(source)
    if reason is not None:
        if not isinstance(cache, bool):
            warn(f"cache is {str(cache)!r}, but the dataset is not cached: {reason}", CacheWarning)
        return source
    assert isinstance(source, DatasetSource)
    try:
        found = where(source.dataset) if isinstance(folder, bool) else own_folder(folder, source.dataset)
    except ValueError as error:
        warn(f"no cache is used: {error}", CacheWarning)
        return source
    return CachedSource(source.dataset, source.model, source.limit, found)


def why_uncached(source: Source) -> str | None:
    """The reason why a source has no cache, or `None`."""
    if isinstance(source, DatasetSource):
        return unfit(source.dataset)
    return "its samples are read in order, batch by batch"


def checked_cache(cache: Any) -> bool | Path | None:
    """The folder that `cache` names; `True` for the dataset's own; `None` for no cache.

    Raises:
        CohortError: if `cache` is neither a bool nor a folder.
    """
    if isinstance(cache, bool):
        return cache or None
    if not isinstance(cache, str | Path) or not str(cache) or "\0" in str(cache) or "://" in str(cache):
        raise CohortError(
            f"cache is {cache!r}; accepted: True (the dataset's own folder of caches), False (no cache), or a folder "
            "on this machine"
        )
    try:
        return expanded(cache, "cache").absolute()  # workers may have another working directory
    except ValueError as error:
        raise CohortError(str(error)) from None
