"""Makes the cache of a dataset without attributing any sample."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeplift_fast.cohort.cached_source import CachedSource, why_uncached, with_cache
from deeplift_fast.cohort.progress import CachingProgress, check_kind, run_id
from deeplift_fast.cohort.reading import open_source
from deeplift_fast.cohort.settings import count
from deeplift_fast.errors import CacheError, CohortError

PART_SAMPLES = 2048


@dataclass(frozen=True)
class MadeCache:
    """The cache of a dataset.

    Attributes:
        path: its file.
        samples: number of samples.
        bytes: size of the file.
        seconds: duration of making it, or of checking the one that was there.
        is_new: whether this call made it.
    """

    path: Path
    samples: int
    bytes: int
    seconds: float
    is_new: bool


def make_cache(
    dataset: Any,
    model: Any,
    cache: bool | str | Path = True,
    *,
    read_ahead: int | None = None,
    force: bool = False,
    progress: str = "auto",
) -> MadeCache:
    """Reads a dataset once and makes its cache, which later calls of `attribute_cohort` read.

    A sound cache of the dataset stays as it is; a stale or a damaged one is replaced.

    Args:
        dataset: a PyHealth `SampleDataset` on disk, or a loader that yields one in order.
        model: a PyHealth model of it; its cache serves other models of the dataset too.
        cache: the folder; `True` for one beside the dataset's files.
        read_ahead: number of processes that read ahead; `None` for the default; 0 for none.
        force: whether to make a sound cache again.
        progress: as for `attribute_cohort`.

    Returns:
        A :class:`MadeCache`.

    Raises:
        CohortError: for an invalid argument, a dataset that cannot be cached or read, or a full disk. Then no file is
            left.

    Example:
        >>> from deeplift_fast.cohort import make_cache
        >>> make_cache(dataset, model, force=True, progress="none").samples
        12
    """
    began = time.perf_counter()
    check_kind(progress)
    processes = count("read_ahead", read_ahead, 0)
    if cache is False:
        raise CohortError("cache is False; accepted: True, or the folder for the cache")
    source = open_source(dataset, model)
    reason = why_uncached(source)
    if reason is not None:
        raise CohortError(f"the dataset cannot be cached: {reason}; accepted: a PyHealth SampleDataset on disk")
    source = with_cache(source, cache)
    if not isinstance(source, CachedSource):
        raise CacheError("no cache was made: its folder is not known; name one")
    if not force and (path := source.sound()) is not None:
        return MadeCache(path, source.length, path.stat().st_size, time.perf_counter() - began, is_new=False)
    source.forget()
    stretches = source.stretches(lambda part: True, PART_SAMPLES, processes)
    with CachingProgress(progress, run_id(), source.total) as shown, contextlib.closing(stretches):
        for stretch in stretches:
            if not source.is_writing:  # no need to read the rest of the dataset
                break
            shown.add(stretch.end - stretch.begin, 0, np.empty(0))
    if source.made is None:
        raise CacheError("no cache was made; the warning before says why")
    return MadeCache(source.made, source.length, source.made.stat().st_size, time.perf_counter() - began, is_new=True)
