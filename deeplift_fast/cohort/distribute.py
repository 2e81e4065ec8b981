"""A cohort's parts on the workers of a Dask cluster.

Parts are the shards. Each worker process is sent the model once, reads its own samples, and writes its parts' files to
the output folder, which all of them reach. The process that began the run alone writes the manifest, as parts come in:
a part that two workers write, because one was thought dead, ends up with the same rows, and counts once.
"""

import contextlib
import pickle
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import cloudpickle
import numpy as np
from distributed import CancelledError, Client, KilledWorker, WorkerPlugin, as_completed, get_worker

from deeplift_fast.cohort.attributing import Attributor, quiet
from deeplift_fast.cohort.failures import Failure
from deeplift_fast.cohort.lock import SeenLock
from deeplift_fast.cohort.manifest import Part
from deeplift_fast.cohort.parts import write_files
from deeplift_fast.cohort.reading import DatasetSource
from deeplift_fast.cohort.reading_ahead import unopened
from deeplift_fast.cohort.settings import Settings
from deeplift_fast.cohort.store import LocalStore, Store, open_store
from deeplift_fast.errors import CohortError, NoWorkersError
from deeplift_fast.pyhealth.predictions import PredictionDifference

RETRIES = 3
"""Times that a part is tried again after an error; Dask gives parts of dead workers to others by itself."""

AHEAD = 2
"""Parts that wait on the cluster for each thread of a worker."""

LOOK = 1.0
"""Seconds after which a run that waits for a part looks whether there are workers."""

_PAUSE = 0.02  # seconds between looks at what has come


@dataclass(frozen=True)
class Work:
    """What a worker needs, once.

    Attributes:
        interpreter: the `DeepLift`.
        dataset: the samples, with no open file.
        settings: what the run was asked for.
        out: the output folder, absolute, or URL.
        shared: whether others may read the output.
        proven: whether any sample was attributed before.
        token: what tells the run's lock from another's.
    """

    interpreter: Any
    dataset: Any
    settings: Settings
    out: str
    shared: bool
    proven: bool
    token: str


@dataclass(frozen=True)
class Done:
    """A part whose files are there.

    Attributes:
        number: number of the part.
        part: what the manifest is to say.
        failures: samples that could not be attributed.
        deltas: convergence deltas of the others, float32.
        difference: of what the model says from what is explained, as far as the worker knows it.
        reading: seconds of reading.
        attribution: seconds of attribution.
        writing: seconds of writing.
    """

    number: int
    part: Part
    failures: list[Failure]
    deltas: np.ndarray
    difference: PredictionDifference | None
    reading: float
    attribution: float
    writing: float


class Bench(WorkerPlugin):
    """What a worker process keeps between parts; Dask sets it up on workers that come later too.

    Args:
        content: a pickled :class:`Work`.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content

    def setup(self, worker: Any) -> None:
        """Unpickles nothing yet: a worker that never gets a part needs no model."""
        self._opening, self._reading, self._attributing = (threading.Lock() for _ in range(3))
        self._opened: tuple[DatasetSource, Store, Attributor, SeenLock] | None = None

    def attribute(self, number: int, budget: int) -> Done:
        """Attributes a part and writes its files; threads of one worker take turns at each stage.

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
        part = write_files(store, result, attributor, times[2] - began, held)
        deltas = [batch.columns["convergence_delta"] for batch in result.batches]
        return Done(
            number=number,
            part=part,
            failures=result.failures,
            deltas=np.concatenate([np.empty(0, np.float32), *deltas]),
            difference=attributor.interpreter.prediction_difference,
            reading=times[1] - times[0],
            attribution=times[2] - began,
            writing=time.perf_counter() - times[2],
        )

    def _open(self) -> tuple[DatasetSource, Store, Attributor, SeenLock]:
        work: Work = pickle.loads(self._content)  # made by the run itself, from what its user gave it
        settings = work.settings
        self._part_samples = settings.part_samples
        model = work.interpreter.model
        attributor = Attributor(work.interpreter, settings.baseline, settings.target, settings.dimensions)
        attributor.proven = work.proven
        store = open_store(work.out, work.shared)
        return DatasetSource(work.dataset, model, settings.limit), store, attributor, SeenLock(store, work.token)


def work_for(attributor: Attributor, dataset: Any, settings: Settings, store: Store, token: str) -> Work:
    """What the workers of a run need."""
    out = str(Path(store.shown).absolute()) if isinstance(store, LocalStore) else store.shown
    shared = isinstance(store, LocalStore) and store.shared
    return Work(attributor.interpreter, unopened(dataset), settings, out, shared, attributor.proven, token)


def parts_on(client: Client, work: Work, wanted: Iterator[int], budget: int, patience: float) -> Iterator[Done]:
    """Parts as the workers of a cluster finish them.

    Args:
        client: the cluster's client.
        work: what the workers need.
        wanted: numbers of the parts.
        budget: padded steps per batch; lowered for later parts where a worker runs out of memory.
        patience: seconds to wait while no worker is at work.

    Raises:
        NoWorkersError: if all workers are gone for that long: retired, dead, or paused for lack of memory.
        CohortError: if the cluster has no workers, or the model or the dataset cannot be sent to them; if a part failed
            at its last try, or the cluster lost it.
        OSError: if a part could not be written.
    """
    threads = sum(client.nthreads().values())
    if not threads:
        raise CohortError("client has no workers; start some, or wait for them with client.wait_for_workers")
    name = f"deeplift_fast-{uuid4().hex}"
    client.register_plugin(Bench(_pickled(work)), name=name)
    running, watch = as_completed(), _Watch(client, patience)
    waiting: set[Any] = set()

    def submit(count: int) -> None:
        for number in islice(wanted, count):
            future = client.submit(
                _attribute, name, number, budget, key=f"{name}-{number}", retries=RETRIES, pure=False
            )
            waiting.add(future)
            running.add(future)

    try:
        submit(AHEAD * threads)
        for future in _as_they_finish(running, watch):
            done = _done(future, watch)
            waiting.discard(future)
            future.release()
            budget = min(budget, done.part.budget)
            submit(max(1, AHEAD * _threads(client) - len(waiting)))
            yield done
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone, and all of this with it
            client.cancel(list(waiting), force=True)
            client.unregister_worker_plugin(name)


def _threads(client: Client) -> int:
    """Threads of all workers; 0 where the scheduler does not answer, which the watch then tells."""
    try:
        return sum(client.nthreads().values())
    except Exception:
        return 0


class _Watch:
    """Gives up on a cluster where nobody has been at work for a while.

    Args:
        client: the cluster's client.
        patience: seconds to wait.
    """

    def __init__(self, client: Client, patience: float) -> None:
        self.pause = min(LOOK, patience / 4)
        """Seconds to wait between two looks."""
        self._client, self._patience, self._seen = client, patience, time.monotonic()

    def came(self) -> None:
        """Says that a part came."""
        self._seen = time.monotonic()

    def look(self) -> None:
        """Looks whether somebody is at work.

        Raises:
            NoWorkersError: if nobody has been for too long.
        """
        if _is_anyone_at_work(self._client):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > self._patience:
            raise NoWorkersError


def _as_they_finish(running: as_completed, watch: _Watch) -> Iterator[Any]:
    """Futures as they finish, as long as somebody works at them."""
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
    """Whether a worker takes parts, or is at one: a worker that Dask paused for lack of memory ends what it began."""
    try:
        workers = client.scheduler_info()["workers"].values()
    except Exception:  # the scheduler does not answer
        return False
    return any(each["status"] == "running" or each["metrics"].get("executing") for each in workers)


def _done(future: Any, watch: _Watch) -> Done:
    """What a future holds: on a worker, and where that has died only once another has attributed the part again."""
    while True:
        try:
            done: Done = future.result(timeout=watch.pause)
        except (KilledWorker, CancelledError) as error:
            raise CohortError(
                f"client lost a part ({type(error).__name__}): its workers died one after the other, perhaps for lack "
                "of memory, or the cluster is closed; what is written is kept: run the same again to go on"
            ) from error
        except TimeoutError:
            if future.status == "error":  # the part's own error
                raise
            watch.look()
        else:
            return done


def _attribute(name: str, number: int, budget: int) -> Done:
    bench = get_worker().plugins[name]
    assert isinstance(bench, Bench)
    try:
        return bench.attribute(number, budget)
    except (CohortError, OSError):
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise CohortError(
            f"part {number} failed on a worker ({type(error).__name__} at {frame.filename}:{frame.lineno}); what is "
            "written is kept: put it right and run the same again to go on; without client it shows the error in full"
        ) from None  # whose message may hold a patient's values, and which Dask would log


def _pickled(work: Work) -> bytes:
    try:
        content: bytes = cloudpickle.dumps(work)
    except (TypeError, pickle.PicklingError, AttributeError) as error:
        raise CohortError(
            f"client is given, but the model or the dataset cannot be sent to its workers ({type(error).__name__}): "
            "both must be picklable"
        ) from error
    return content
