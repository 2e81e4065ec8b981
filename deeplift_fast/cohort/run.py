"""`attribute_cohort` reads, attributes and writes a cohort part by part."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplift_fast.cohort import failures, lock
from deeplift_fast.cohort.about import about_of, begun_in
from deeplift_fast.cohort.attributing import Attributor, PartResult, quiet
from deeplift_fast.cohort.budget import CAUTIOUS_STEPS, available, find_budget, most_steps
from deeplift_fast.cohort.cached_source import CachedSource, with_cache
from deeplift_fast.cohort.cohort_baseline import by_index, fitted
from deeplift_fast.cohort.differences import Differences
from deeplift_fast.cohort.encoding import EncodedPart, encoded
from deeplift_fast.cohort.manifest import Manifest, check_same, folders_of, identity_of, is_intact, load
from deeplift_fast.cohort.outputs import check_same_outputs, coarsest, outputs_of, run_once
from deeplift_fast.cohort.parts import Recorder, Writer, part_files, remove_leftovers, write_files
from deeplift_fast.cohort.progress import Progress, check_kind, run_id
from deeplift_fast.cohort.reading import BatchSource, DatasetSource, Source, open_source
from deeplift_fast.cohort.samples import Batch, Stretch
from deeplift_fast.cohort.settings import Settings, check_client, check_worker_timeout, checked_settings
from deeplift_fast.cohort.splits import check_length, checked_splits
from deeplift_fast.cohort.store import Store, naming_full, open_store
from deeplift_fast.cohort.threads import Lanes, lanes_for, threads_for
from deeplift_fast.errors import CohortError, NoWorkersError, is_reader_death
from deeplift_fast.pyhealth.interpreter import DeepLift

if TYPE_CHECKING:
    from deeplift_fast.cohort.distribute import Done

type Made = PartResult | EncodedPart
"""A part that the writer's thread takes, with or without its tables."""

MEASURED_WITH = 16
"""Number of samples for measuring memory."""


@dataclass(frozen=True)
class Cohort:
    """A fully attributed cohort.

    Attributes:
        out: the output folder or URL.
        samples: number of attributed samples, including those of earlier runs in the folder.
        failures: number of samples that could not be attributed; `failures.parquet` has the reasons.
        parts: number of parts.
        seconds: duration of this run.
        reading: seconds that attribution waited for samples. On a cluster, this and the next two are sums over workers.
        attribution: seconds in the interpreter, divided by the number of parts that are attributed side by side.
        writing: seconds that attribution waited for tables to be written.
        budget: padded steps per batch; 0 if there was no part.
        cache: the dataset's cache that this run read samples from; `None` if it read the dataset alone.
        made_cache: the cache that this run made; `None` if it made none.
    """

    out: str
    samples: int
    failures: int
    parts: int
    seconds: float
    reading: float
    attribution: float
    writing: float
    budget: int
    cache: str | None = None
    made_cache: str | None = None


def attribute_cohort(
    interpreter: DeepLift,
    dataset: Any,
    out: str | Path,
    *,
    baseline: Any = None,
    target_class_idx: int | None = None,
    budget: int | None = None,
    memory: int | None = None,
    part_samples: int = 4096,
    read_ahead: int | None = None,
    limit: int | None = None,
    force: bool = False,
    shared: bool = False,
    dimensions: Mapping[str, Sequence[str]] | None = None,
    splits: Mapping[str, Any] | None = None,
    interactions: int | None = None,
    progress: str = "auto",
    client: Any = None,
    worker_timeout: float = 60.0,
    cache: bool | str | Path = True,
) -> Cohort:
    """Attributes every sample of a cohort and writes the tables, part by part.

    `out` gets `attributions/part-*.parquet` and `samples/part-*.parquet` (columns: `deeplift_fast.cohort.tables`),
    `failures.parquet` (sample int64, part int32, reason string) and `manifest.json` (`deeplift_fast.cohort.manifest`).
    A part counts once the manifest names it. The same call continues a stopped run, whatever stopped it, and the rows
    are those of an uninterrupted run.

    Args:
        interpreter: the `DeepLift` of a PyHealth model; batches go to the model's device.
        dataset: a PyHealth `SampleDataset` (on disk or in memory), any dataset of processed samples with `len` and
            integer indices, a `DataLoader`, or an iterable of batches or of processed samples. A loader that yields a
            PyHealth dataset in order stands for the dataset; other batches are read in order.
        out: the output folder, which is created if it is missing, or a URL that fsspec knows and whose bucket exists;
            `~` is the home folder.
        baseline: the baseline of every sample; `None` for the interpreter's own. As for `DeepLift.attribute`, except
            tensors of a batch's shape: a name (`"removed"`, `"unk"`, or `"typical"`, which is fitted on a part of
            `dataset`; see `deeplift_fast.baselines.typical`), an object from `deeplift_fast.baselines`, by feature key
            a name, a number, a tensor of one step's shape or an embedding, or a sequence of these.
        target_class_idx: the class to explain; `None` for the predicted one.
        budget: padded steps (samples times the longest sequence) per batch; `None` to measure it under `memory`. It is
            halved when memory runs out.
        memory: bytes that attribution may use on the model's device; `None` for a quarter of the free memory on a CPU,
            half on a GPU.
        part_samples: samples per part. Memory holds the part being attributed, two being written, and those read ahead.
        read_ahead: number of processes that read ahead; `None` for the default; 0 for none.
        limit: number of first samples to attribute; `None` for all.
        force: whether to start over.
        shared: whether others may read the output, as the umask allows; otherwise only its owner may.
        dimensions: by feature key, the names of a continuous feature's dimensions.
        splits: by the name of a split, the numbers of its samples in `dataset` (ints from 0: a list, array or range),
            for the column `split`; samples may have a field `split` instead.
        interactions: the number of strongest codes per sample, 2 to 64, whose pairs are written to a third table,
            `interactions/part-*.parquet`, as by `DeepLift.interactions`; `None` for no such table. A run takes up to
            `interactions` + 2 times as long.
        progress: `"bar"`, `"lines"`, `"json"` or `"none"`, on standard error; `"auto"` for a bar on a terminal
            and in a notebook, and lines elsewhere.
        client: a `dask.distributed.Client` whose workers attribute the parts; they must reach the dataset and `out`.
        worker_timeout: seconds without a worker at work after which the run gives up.
        cache: whether samples of a dataset on disk are read from its cache (:mod:`deeplift_fast.cohort.cache`), which
            the first run over the whole dataset makes; the tables are the same. `True` for a folder beside the
            dataset's files, a path for another folder, in which each dataset gets one of its own, `False` for none.

    Returns:
        A :class:`Cohort`.

    Raises:
        CohortError: for an invalid argument, a folder of another run, a folder in which another run is writing, or a
            full disk. Finished parts are kept.
        ValueError, TypeError: if the model does not have the target.

    Example:
        >>> from deeplift_fast import DeepLift
        >>> from deeplift_fast.cohort import attribute_cohort
        >>> done = attribute_cohort(DeepLift(model, rules="complete"), dataset, "cohort", progress="none")
        >>> done.samples, done.failures
        (12, 0)
    """
    started = time.perf_counter()
    check_kind(progress)
    check_client(client)
    check_worker_timeout(worker_timeout)
    counts = {"budget": budget, "memory": memory, "read_ahead": read_ahead, "limit": limit}
    counts["interactions"] = interactions
    settings = checked_settings(
        interpreter, baseline, target_class_idx, dimensions, force, part_samples=part_samples, **counts
    )
    settings = replace(settings, splits=checked_splits(splits))
    source = with_cache(open_source(dataset, interpreter.model, settings.limit), cache)
    if isinstance(source, DatasetSource):
        check_length(settings.splits, source.length)
    if settings.baseline.is_unfitted:
        samples = by_index(source, dataset)
        settings = replace(settings, baseline=fitted(settings.baseline, interpreter, samples, settings.dimensions))
    interpreter._warn_of_untrained(settings.baseline.given)  # once, not on each worker
    store = open_store(out, shared)
    with naming_full(store.shown, lambda: "what was written there before is kept"):
        _make(store, folders_of(settings.interactions))
        with lock.held(store) as held:
            run = _Run(interpreter, source, store, settings, held)
            run.begin()
            with Progress(progress, run.id, run.manifest.total, *run.done_before()) as shown:
                run.all_parts(shown, client, worker_timeout)
            return run.cohort(store.shown, time.perf_counter() - started)


class _Run:
    """One run, while the lock is held."""

    def __init__(
        self, interpreter: DeepLift, source: Source, store: Store, settings: Settings, held: lock.Lock
    ) -> None:
        self.source, self.store, self.settings, self.held = source, store, settings, held
        self.id = run_id()
        self.attributor = Attributor(interpreter, settings)
        self.reading = self.attribution = self.writing = 0.0
        identity = identity_of(
            interpreter, source.identity(), settings, lambda: run_once(interpreter.model, source.examples())
        )
        self._identity = json.loads(json.dumps(identity))  # as a later run reads it
        self._recorder: Recorder

    @property
    def manifest(self) -> Manifest:
        """The folder's manifest."""
        return self._recorder.manifest

    def begin(self) -> None:
        """Continues the folder's manifest, or makes a new one."""
        found = None if self.settings.force else load(self.store)
        if found is None:
            self._refuse_foreign()
            found = Manifest(self._identity, about_of(self._identity), self.attributor.model.device.type)
        check_same(found, self._identity, self.store.shown, self.source.read_once)
        outputs = outputs_of(self.attributor.interpreter, self.source.examples())
        check_same_outputs(found.outputs, outputs, self.store.shown, coarsest(self.attributor.model))
        found.outputs = outputs if found.outputs is None else found.outputs
        self.held.require()  # identity and outputs may have taken long, and reading may repair a file
        failed = failures.read(self.store)
        of_part = failures.counted(failed)
        found.parts = {
            number: part
            for number, part in found.parts.items()
            if is_intact(part, self.store) and of_part[number] == part.failures
        }
        intact = (name for part in found.parts.values() for name in part.files)
        found.about = about_of(self._identity, begun_in(self.store, intact) or found.about)
        found.device, found.run = self.attributor.model.device.type, self.id
        found.limit, found.total, found.finished = self.settings.limit, self.source.total, False
        if found.total is not None:  # a lower limit removes no part
            found.total = max(found.total, found.end())
        if self.settings.budget is not None:
            found.budget = self.settings.budget
        self._recorder = Recorder(self.store, found, failed, self.held)
        self._differences = Differences(found, self.attributor.interpreter.prediction_difference)
        self._recorder.save()
        remove_leftovers(self.store, found)
        self.attributor.proven = found.samples() > 0

    def _refuse_foreign(self) -> None:
        """Raise unless parts in the folder have a manifest: the run must not remove those of others."""
        foreign = part_files(self.store)
        if foreign and not self.settings.force:
            raise CohortError(
                f"out is {self.store.shown}, which holds {foreign[0]} but no manifest.json; choose another folder, or "
                "start over with force=True (on the command line: --force), which removes all parts there"
            )

    def done_before(self) -> tuple[int, int]:
        """Number of samples in finished parts, and of failures among them."""
        done = [part for number, part in self.manifest.parts.items() if not self.wanted(number)]
        return sum(part.end - part.begin for part in done), sum(part.failures for part in done)

    def wanted(self, part: int) -> bool:
        """Whether a part is still to do: it is missing, or a limit cut it short."""
        done = self.manifest.parts.get(part)
        if done is None:
            return True
        begin = part * self.settings.part_samples
        if self.source.total is None:
            return done.end < begin + self.settings.part_samples and done.end != self.settings.limit
        return done.end < min(begin + self.settings.part_samples, self.source.total)

    def all_parts(self, shown: Progress, client: Any, worker_timeout: float) -> None:
        """Attributes all parts that are still to do, here or on a cluster."""
        try:
            with quiet(), naming_full(self.store.shown, self.kept):
                if client is None:
                    self._here(shown)
                else:
                    self._on_cluster(client, shown, worker_timeout)
                self._recorder.finish(max(self.source.total or 0, self.manifest.end()), finished=True)
        except RuntimeError as error:
            if not is_reader_death(error):
                raise
            raise CohortError(
                "a reading process died, perhaps for lack of memory; finished parts are kept: run the same again to "
                "continue, with read_ahead=0 if it dies again"
            ) from error
        finally:
            self._differences.warn()

    def _on_cluster(self, client: Any, shown: Progress, worker_timeout: float) -> None:
        from deeplift_fast.cohort.distribute import parts_on, work_for

        source, size = self.source, self.settings.part_samples
        if not isinstance(source, DatasetSource):
            raise CohortError(
                "client is given, and dataset is read batch by batch; workers need a dataset that they can read by "
                "index: give the dataset itself, or leave out client"
            )
        wanted = [part for part in range(-(-(source.total or 0) // size)) if self.wanted(part)]
        if not wanted:
            return
        budget = self.manifest.budget or self.budget(source.stretch(wanted[0], size))
        source.read_from = None  # from here on the workers read
        about = self.manifest.about
        work = work_for(self.attributor, source.dataset, self.settings, self.store, self.held.token, about)
        if isinstance(source, CachedSource):
            work = replace(work, cache=source.place)
        try:
            for done, lanes in parts_on(client, work, iter(wanted), budget, worker_timeout):
                shown.worked(done.seconds, lanes)
                self._take(done, shown)
        except NoWorkersError:
            raise CohortError(
                f"client has had no worker at work for {worker_timeout:g} s (worker_timeout): all are retired, dead, "
                f"or paused for lack of memory; {self.kept()}: start workers and run the same again to continue"
            ) from None
        self.held.require()
        remove_leftovers(self.store, self.manifest)  # of dead workers

    def _take(self, done: "Done", shown: Progress) -> None:
        """Takes a part that a worker wrote."""
        self.reading += done.reading
        self.attribution += done.attribution
        self.writing += done.writing
        self.source.read_from = done.cache or self.source.read_from
        self._require_reached(done.part.files)
        self._differences.add(done.difference)
        self.record(done.number, done.part, done.failures, done.deltas, shown)

    def _require_reached(self, files: Iterable[str]) -> None:
        """Raise unless this process finds the files of a worker: the same `out` may be another place there."""
        missing = [name for name in files if self.store.size(name) is None]
        if missing:
            raise CohortError(
                f"out is {self.store.shown}, where a worker wrote {missing[0]}, which this process does not find there"
                "; give a folder or URL that all workers and this process share (memory:// is each process's own)"
            )

    def _here(self, shown: Progress) -> None:
        stretches = self.source.stretches(self.wanted, self.settings.part_samples, self.settings.read_ahead)
        is_by_batch = isinstance(self.source, BatchSource)
        count = 1 if is_by_batch else lanes_for(self.attributor.model, self.attributor.interpreter.fuse)
        with (
            threads_for(count),
            Writer[Made](lambda made: self._write(made, shown)) as writer,
            Lanes(count) as lanes,
            closing(stretches),  # first of all: a reading process that dies later would disturb the writer's end
        ):
            read = self._timed(stretches, lanes)
            wanted = ((stretch, self.budget(stretch, count)) for stretch in read if not self._have(stretch))
            # The writer's thread makes the tables of one lane; that of several would be the slowest of all.
            attribute: Callable[[tuple[Stretch, int]], Made] = self._part if count == 1 else self._encoded_part
            for made in lanes.each(attribute, wanted):
                self.attribution += made.seconds / count
                self.manifest.budget = min(self.manifest.budget or made.budget, made.budget)
                writer.put(made)
        self.writing = writer.waited

    def _part(self, given: tuple[Stretch, int]) -> PartResult:
        """Attributes a part."""
        began = time.perf_counter()
        result = self.attributor.part(*given)
        result.seconds = time.perf_counter() - began
        return result

    def _encoded_part(self, given: tuple[Stretch, int]) -> EncodedPart:
        """Attributes a part and makes its tables."""
        return encoded(self._part(given), self.attributor, self.manifest.about)

    def _have(self, stretch: Stretch) -> bool:
        """Whether a part is finished to its end, which a source of batches knows only after reading."""
        done = self.manifest.parts.get(stretch.part)
        return done is not None and done.end >= stretch.end

    def _timed(self, stretches: Iterator[Stretch], lanes: Lanes) -> Iterator[Stretch]:
        while True:
            began = time.perf_counter()
            stretch = next(stretches, None)
            self.reading += lanes.idle() * (time.perf_counter() - began)
            if stretch is None:
                return
            yield stretch

    def budget(self, stretch: Stretch, lanes: int = 1) -> int:
        """Padded steps per batch: given, found before, or measured with the samples of a part."""
        if self.manifest.budget is None:
            self.manifest.budget = self._found_budget(stretch, lanes)
        return self.manifest.budget

    def _found_budget(self, stretch: Stretch, lanes: int) -> int:
        device = self.attributor.model.device
        if all(group.is_loaded for group in stretch.groups):
            return most_steps(device)  # a loader's batches are not cut
        batch = self.attributor.attributable(stretch, MEASURED_WITH)
        if batch is None:
            return CAUTIOUS_STEPS

        def attribute(count: int) -> int:
            return self.attributor.explain(Batch(batch.group, batch.which[:count]))

        allowed = (self.settings.memory or available(device)) // lanes
        return find_budget(attribute, allowed, device, len(batch.which))

    def _write(self, made: Made, shown: Progress) -> None:
        if isinstance(made, PartResult):
            made = encoded(made, self.attributor, self.manifest.about)
        write_files(self.store, made, self.held)
        self.record(made.stretch.part, made.part, made.failures, made.deltas, shown)

    def record(self, number: int, part: Any, failed: list, deltas: np.ndarray, shown: Progress) -> None:
        """Takes a part whose files are written, and shows the progress."""
        self._differences.add(self.attributor.interpreter.prediction_difference)
        self.manifest.read_from_cache |= self.source.read_from is not None
        self._recorder.add(number, part, failed)
        shown.add(part.end - part.begin, part.failures, deltas)

    def kept(self) -> str:
        """The finished parts, for errors."""
        of = "" if self.manifest.total is None else f" of {self.manifest.total:,}"
        kept = sum(part.end - part.begin for part in self.manifest.parts.values())
        return f"{kept:,}{of} samples in {len(self.manifest.parts)} part(s) are kept"

    def cohort(self, out: str, seconds: float) -> Cohort:
        """The result of the run."""
        read_from, made = (None if path is None else str(path) for path in (self.source.read_from, self.source.made))
        return Cohort(
            out=out,
            samples=self.manifest.samples(),
            failures=self.manifest.failures(),
            parts=len(self.manifest.parts),
            seconds=seconds,
            reading=self.reading,
            attribution=self.attribution,
            writing=self.writing,
            budget=self.manifest.budget or 0,
            cache=read_from,
            made_cache=made,
        )


def _make(store: Store, folders: Iterable[str]) -> None:
    try:
        store.make(*folders)
    except OSError as error:
        raise CohortError(
            f"out is {store.shown}, which cannot be made ({error.strerror}); choose a folder that you may write"
        ) from error
