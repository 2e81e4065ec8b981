"""The processed samples of a dataset as ragged columns in one memory-mapped file.

PyHealth's dataset unpickles and collates every sample on every pass. A cache is written once, while the first run reads
the dataset, and serves every later run of any model, rule set or target: a window of samples is a slice of its columns.

    where(dataset) -> Path
        The folder of a dataset's caches.
    unfit(dataset) -> str | None
        The reason why a dataset is not cached, such as samples in memory.
    identity_of(dataset, source.identity()) -> dict
        What a cache must agree with. It depends on neither model, rules nor target.
    open_cache(folder, identity, required=False) -> Cache | None
        The checked, memory-mapped cache; `None`, with a `CacheWarning`, if it is stale, damaged or of another version,
        and without one if there is none. With `required`, a `CacheError` instead of `None`.
    Cache.samples, Cache.identity, Cache.path
    Cache.stretches(parts, part_samples, total=None) -> Generator[Stretch]
    Cache.stretch(begin, end, part) -> Stretch
        As `DatasetSource` gives them. `CacheError`, a `CohortError`, if the block is damaged: read the dataset instead.
    Cache.verify()
        Checks every block at once.
    CacheWriter(folder, identity, samples)
        `add(stretch)` in order, then `finish() -> Path | None`; `discard()` or leaving its `with` removes what is
        unfinished. It never stops a run: a full disk or a field that a cache cannot hold is one `CacheWarning`.

Files have mode 0600 and folders 0700, since identifiers and samples are personal data.
"""

from deeplift_fast.cohort.cache.identity import identity_of, unfit, where
from deeplift_fast.cohort.cache.reader import Cache, open_cache
from deeplift_fast.cohort.cache.writer import CacheWriter

__all__ = ["Cache", "CacheWriter", "identity_of", "open_cache", "unfit", "where"]
