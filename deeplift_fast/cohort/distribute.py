"""Attributes a cohort's parts on the workers of a Dask cluster.

Each worker process receives the model once, reads its samples itself, out of the dataset's cache if it finds one there,
and writes the files of its parts to the shared output folder. Only the process that started the run writes the
manifest. Two workers may write the same part if one seemed dead; both write the same rows, and the part counts once.
"""

import contextlib
import copyreg
import io
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, override
from uuid import uuid4

import cloudpickle
import numpy as np
from distributed import CancelledError, Client, KilledWorker, WorkerPlugin, as_completed, get_worker

from deeplift_fast.cohort import freed_memory
from deeplift_fast.cohort.attributing import Attributor, quiet
from deeplift_fast.cohort.cached_source import CachedSource, CachePlace
from deeplift_fast.cohort.encoding import encoded
from deeplift_fast.cohort.failures import Failure
from deeplift_fast.cohort.lock import SeenLock
from deeplift_fast.cohort.manifest import Part
from deeplift_fast.cohort.parts import write_files
from deeplift_fast.cohort.reading import DatasetSource, origin
from deeplift_fast.cohort.reading_ahead import is_on_disk, unopened
from deeplift_fast.cohort.settings import Settings
from deeplift_fast.cohort.store import LocalStore, Store, open_store
from deeplift_fast.errors import CohortError, CohortWarning, NoWorkersError, warn
from deeplift_fast.pyhealth.predictions import PredictionDifference

RETRIES = 3
"""Tries of a part after its first error; Dask itself moves the parts of dead workers."""

REGISTRATIONS = 5
"""Tries of giving the workers their state."""

AHEAD = 2
"""Parts that are submitted per thread of the workers."""

LOOK = 1.0
"""Seconds between checks for workers while the run waits for a part."""

INDICES = ("patient_to_index", "record_to_index")
"""Attributes of a PyHealth dataset that grow with its samples and that reading by number does not need."""

_PAUSE = 0.02  # seconds between checks for finished parts


@dataclass(frozen=True)
class Work:
    """The input of a worker, sent once.

    Attributes:
        interpreter: the `DeepLift`.
        dataset: the samples, without open files and without an index of all of them.
        settings: the run's settings.
        out: absolute path of the output folder, or its URL.
        shared: whether others may read the output.
        proven: whether any sample was attributed before.
        token: the token of the run's lock.
        about: the facts in the manifest.
        cache: the place of the dataset's cache; `None` for none.
    """

    interpreter: Any
    dataset: Any
    settings: Settings
    out: str
    shared: bool
    proven: bool
    token: str
    about: dict[str, Any]
    cache: CachePlace | None = None


@dataclass(frozen=True)
class Done:
    """A part whose files are written.

    Attributes:
        number: number of the part.
        part: its entry for the manifest.
        failures: samples that could not be attributed.
        deltas: convergence deltas of the attributed samples, float32.
        difference: the worker's largest prediction difference so far.
        reading: seconds of reading.
        attribution: seconds of attribution.
        writing: seconds of writing.
        seconds: duration of the part, with the time that its thread waited for other threads of the worker.
        cache: the cache that the worker has read samples from; `None` if it has read the dataset alone.
    """

    number: int
    part: Part
    failures: list[Failure]
    deltas: np.ndarray
    difference: PredictionDifference | None
    reading: float
    attribution: float
    writing: float
    seconds: float
    cache: Path | None = None


class WorkerState(WorkerPlugin):
    """The state of a worker process between parts; Dask sets it up on late workers too.

    Args:
        content: a pickled :class:`Work`.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content

    def setup(self, worker: Any) -> None:
        """Unpickles nothing yet: a worker without a part needs no model."""
        self._opening, self._reading, self._attributing = (threading.Lock() for _ in range(3))
        self._opened: tuple[DatasetSource, Store, Attributor, SeenLock] | None = None

    def teardown(self, worker: Any) -> None:
        """Called at the end of the run."""
        freed_memory.give_back()

    def attribute(self, number: int, budget: int) -> Done:
        """Attributes a part and writes its files; the threads of a worker take turns at each stage.

        Args:
            number: number of the part.
            budget: padded steps per batch.
        """
        with self._opening:
            source, store, attributor, held = self._opened = self._opened or self._open()
        times = [time.perf_counter()]
        with self._reading:
            stretch = source.stretch(number, self._part_samples)
            times.append(time.perf_counter())
        with self._attributing:
            began = time.perf_counter()
            with quiet():
                result = attributor.part(stretch, budget)
            times.append(time.perf_counter())
        result.seconds = times[2] - began
        made = encoded(result, attributor, self._about)
        write_files(store, made, held)
        times.append(time.perf_counter())
        return Done(
            number=number,
            part=made.part,
            failures=made.failures,
            deltas=made.deltas,
            difference=attributor.interpreter.prediction_difference,
            reading=times[1] - times[0],
            attribution=made.seconds,
            writing=times[3] - times[2],
            seconds=times[3] - times[0],
            cache=source.read_from,
        )

    def _open(self) -> tuple[DatasetSource, Store, Attributor, SeenLock]:
        work: Work = pickle.loads(self._content)  # pickled by the run itself
        settings = work.settings
        freed_memory.keep()
        self._part_samples, self._about = settings.part_samples, work.about
        attributor = Attributor(work.interpreter, settings)
        attributor.proven = work.proven
        store = open_store(work.out, work.shared)
        source = DatasetSource(work.dataset, work.interpreter.model, settings.limit)
        if (place := work.cache) is not None:
            source = CachedSource(work.dataset, work.interpreter.model, settings.limit, place.folder, place)
        return source, store, attributor, SeenLock(store, work.token)


def work_for(
    attributor: Attributor, dataset: Any, settings: Settings, store: Store, token: str, about: dict[str, Any]
) -> Work:
    """The input of a run's workers, without a cache."""
    out = str(Path(store.shown).absolute()) if isinstance(store, LocalStore) else store.shown
    shared = isinstance(store, LocalStore) and store.shared
    return Work(attributor.interpreter, unopened(dataset), settings, out, shared, attributor.proven, token, about)


def parts_on(
    client: Client, work: Work, wanted: Iterator[int], budget: int, patience: float
) -> Iterator[tuple[Done, int]]:
    """Yields parts as the workers of a cluster finish them, each with the number of the workers' threads.

    It warns of each worker that leaves.

    Args:
        client: the cluster's client.
        work: the input of the workers.
        wanted: numbers of the parts.
        budget: padded steps per batch; later parts have fewer if a worker runs out of memory.
        patience: seconds to wait while no worker is at work.

    Raises:
        NoWorkersError: if no worker is at work for that long: all are retired, dead, or paused for lack of memory.
        CohortError: if the cluster has no workers, the model or the dataset cannot be pickled, a part failed at its
            last try, or the cluster lost a part.
        OSError: if a part could not be written.
    """
    threads = client.nthreads()
    if not threads:
        raise CohortError("client has no workers; start some, or wait for them with client.wait_for_workers")
    name = f"deeplift_fast-{uuid4().hex}"
    _register(client, WorkerState(_pickled(work)), name)
    running, watch = as_completed(), _Watch(client, patience, frozenset(threads))
    waiting: set[Any] = set()

    def submit(count: int) -> None:
        for number in islice(wanted, count):
            future = client.submit(
                _attribute, name, number, budget, key=f"{name}-{number}", retries=RETRIES, pure=False
            )
            waiting.add(future)
            running.add(future)

    try:
        submit(AHEAD * sum(threads.values()))
        for future in _as_they_finish(running, watch):
            done = _done(future, watch)
            waiting.discard(future)
            future.release()
            budget = min(budget, done.part.budget)
            lanes = watch.threads()
            submit(max(1, AHEAD * lanes - len(waiting)))
            yield done, lanes
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.cancel(list(waiting), force=True)
            client.unregister_worker_plugin(name)


def _register(client: Client, state: WorkerState, name: str) -> None:
    """Registers a plugin, again if a worker dies meanwhile; Dask gives it to the worker's successor by itself."""
    for left in reversed(range(REGISTRATIONS)):
        try:
            client.register_plugin(state, name=name)
            return
        except OSError as error:  # of Dask's connection to the worker
            if not left:
                raise CohortError(
                    f"client lost a worker at each of {REGISTRATIONS} tries to send it the model "
                    f"({type(error).__name__}), perhaps for lack of memory: see the workers' logs, correct the cause, "
                    "and run the same again"
                ) from error
            time.sleep(LOOK)


class _Watch:
    """Warns of workers that leave, and gives up on a cluster without a worker at work for some time.

    Args:
        client: the cluster's client.
        patience: seconds to wait.
        workers: addresses of the workers at the start.
    """

    def __init__(self, client: Client, patience: float, workers: frozenset[str]) -> None:
        self.pause = min(LOOK, patience / 4)
        """Seconds to wait between two checks."""
        self._client, self._patience, self._seen = client, patience, time.monotonic()
        self._workers = workers

    def threads(self) -> int:
        """Threads of all workers; 0 if the scheduler does not answer. Warns of workers that left since the last call.

        Warns:
            CohortWarning: for each worker that left.
        """
        try:
            threads: dict[str, int] = self._client.nthreads()
        except Exception:
            return 0
        for address in sorted(self._workers - threads.keys()):
            warn(
                f"worker {address} has died or was closed; the parts that it had not finished run again; "
                f"workers left: {len(threads)}",
                CohortWarning,
            )
        self._workers = frozenset(threads)
        return sum(threads.values())

    def came(self) -> None:
        """Notes that a part was finished."""
        self._seen = time.monotonic()

    def look(self) -> None:
        """Checks for a worker at work, and for workers that left.

        Raises:
            NoWorkersError: if there was none for too long.
        """
        self.threads()
        if _is_anyone_at_work(self._client):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > self._patience:
            raise NoWorkersError


def _as_they_finish(running: as_completed, watch: _Watch) -> Iterator[Any]:
    """Futures as they finish."""
    while not running.is_empty():
        if _ready_within(watch.pause, running):
            yield next(running)
            watch.came()
        else:
            watch.look()


def _ready_within(seconds: float, running: as_completed) -> bool:
    until = time.monotonic() + seconds
    while not running.has_ready():
        if time.monotonic() >= until:
            return False
        time.sleep(_PAUSE)
    return True


def _is_anyone_at_work(client: Client) -> bool:
    """Whether a worker is running, or is paused for lack of memory but still finishes a part."""
    try:
        workers = client.scheduler_info()["workers"].values()
    except Exception:  # the scheduler does not answer
        return False
    return any(each["status"] == "running" or each["metrics"].get("executing") for each in workers)


def _done(future: Any, watch: _Watch) -> Done:
    """The result of a finished future; if its worker has died, another worker attributes the part again first."""
    while True:
        try:
            done: Done = future.result(timeout=watch.pause)
        except (KilledWorker, CancelledError) as error:
            raise CohortError(
                f"client lost a part ({type(error).__name__}): its workers died one after the other, perhaps for lack "
                "of memory, or the cluster is closed; finished parts are kept: run the same again to continue"
            ) from error
        except TimeoutError:
            if future.status == "error":  # the part's own error
                raise
            watch.look()
        else:
            return done


def _attribute(name: str, number: int, budget: int) -> Done:
    state = get_worker().plugins[name]
    assert isinstance(state, WorkerState)
    try:
        return state.attribute(number, budget)
    except (CohortError, OSError):
        raise
    except Exception as error:
        raise CohortError(
            f"part {number} failed on a worker ({type(error).__name__} at {origin(error)}); "
            "finished parts are kept: correct the cause and run the same again to continue; a run without client shows "
            "the error in full"
        ) from None  # its message, which Dask would log, may hold a patient's values


def _pickled(work: Work) -> bytes:
    content = io.BytesIO()
    try:
        _Pickler(content).dump(work)
    except (TypeError, pickle.PicklingError, AttributeError) as error:
        raise CohortError(
            f"client is given, but the model or the dataset cannot be sent to its workers ({type(error).__name__}): "
            "both must be picklable"
        ) from error
    return content.getvalue()


class _Pickler(cloudpickle.CloudPickler):
    """Leaves the index of all samples out of PyHealth's datasets; the model holds its dataset too."""

    @override
    def reducer_override(self, thing: Any) -> Any:
        if not is_on_disk(thing) or not type(thing).__module__.startswith("pyhealth."):
            return super().reducer_override(thing)
        state = {name: {} if name in INDICES else value for name, value in vars(thing).items()}
        return copyreg.__newobj__, (type(thing),), state  # type: ignore[attr-defined]
