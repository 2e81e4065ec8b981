"""Times whole cohorts against PyHealth's DeepLift in a loop over its DataLoader.

Both read the same data set from disk. PyHealth's batches have 16 samples, as in its examples. It is timed on a part of
the cohort; the rest is assumed to take as long per sample. Nothing is asserted on speed.
"""

import json
import os
import shutil
import statistics
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import patients
import pytest
import torch
from cache_memory import peaks_of
from cohort_memory import peak_of
from model_cases import CASES, SCHEMAS, make_model
from model_results import machine, rounded
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift

from deeplift_fast import DeepLift
from deeplift_fast.cohort import attribute_cohort, make_cache
from deeplift_fast.cohort.cache import CacheWriter, identity_of, open_cache, where
from deeplift_fast.cohort.reading import open_source

PATH = Path(__file__).parent / "results" / "cohorts.json"
PYHEALTH_BATCH, PYHEALTH_SECONDS = 16, float(os.environ.get("BENCH_PYHEALTH_SECONDS", "10"))
READ_GOAL = 15_000
CACHED = {"sequence": (16_384, 500_000), "StageNet": (4096, 100_000)}
CACHED_BATCH, CACHED_ROUNDS = 256, 5
MEMORY_SAMPLES = (20_000, 200_000, 2_000_000)
RUNS, WRITING_RUNS = 3, 5
COHORTS = {
    "StageNet": ("StageNet, batch 128", 4096, 50),
    "Transformer": ("Transformer, 1 layer, batch 128", 32768, 25),
    "MLP": ("MLP, batch 256", 65536, 15),
}
FIRST, LATER, WITHOUT = ", first run", "", ", without the cache"
WORKER_SAMPLES, WORKERS_GOAL = 8192, 1.75
LARGE, MANY = 50_000, 200_000
SMALL_MODEL = {"embedding_dim": 32, "num_layers": 1}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def keep():
    """`keep(name, row)` writes a row to `results/cohorts.json` and prints it."""

    def record(name: str, row: dict) -> None:
        results = json.loads(PATH.read_text()) if PATH.exists() else {}
        results[name] = row | {"machine": machine()}
        PATH.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in results.items()) + "\n}\n")
        print(f"\n{name}: {json.dumps(row)}")

    return record


def on_disk(data: str, count: int):
    drawn = patients.stagenet(count) if data == "StageNet" else patients.sequences(count)
    return create_sample_dataset(drawn, SCHEMAS[data], {"label": "binary"}, dataset_name="bench", in_memory=False)


def pyhealths_rate(model, dataset) -> tuple[float, int]:
    """Samples per second, and the number of samples timed."""
    interpreter = PyHealthDeepLift(model)
    loader = get_dataloader(dataset, batch_size=PYHEALTH_BATCH, shuffle=False)
    done, started = 0, time.perf_counter()
    for batch in loader:
        interpreter.attribute(**batch)
        done += PYHEALTH_BATCH
        if time.perf_counter() - started > PYHEALTH_SECONDS:
            break
    return done / (time.perf_counter() - started), done


@pytest.mark.parametrize("name", COHORTS)
def test_end_to_end(tmp_path, keep, name):
    """Times all in turn: ours are medians of whole runs, PyHealth's the rate over all of its time.

    A first run makes the dataset's cache, and later runs read it; they are the row with the model's name.
    """
    case_name, count, goal = COHORTS[name]
    case = CASES[case_name]
    dataset = on_disk(case.data, count)
    model = make_model(case, dataset)
    rates, runs = [pyhealths_rate(model, dataset)], {kind: [] for kind in (FIRST, LATER, WITHOUT)}
    for turn in range(RUNS):
        shutil.rmtree(where(dataset), ignore_errors=True)
        for kind in runs:
            out, is_cached = tmp_path / f"{turn}{kind}", kind != WITHOUT
            done = attribute_cohort(DeepLift(model, baseline="unk"), dataset, out, progress="none", cache=is_cached)
            assert (done.cache is not None, done.made_cache is not None) == (kind == LATER, kind == FIRST)
            runs[kind].append(done)
        rates.append(pyhealths_rate(model, dataset))
    timed = sum(done for _, done in rates)
    theirs = timed / sum(done / rate for rate, done in rates)
    for kind, found in runs.items():
        done = sorted(found, key=lambda run: run.seconds)[RUNS // 2]
        ours = done.samples / done.seconds
        row = {
            "samples": done.samples,
            "runs": RUNS,
            "samples per second": rounded(ours),
            "PyHealth's, of a part": rounded(theirs),
            "samples that it was timed on": timed,
            "times as fast": rounded(ours / theirs),
            **({"goal": goal} if kind == LATER else {}),
            "share waiting for samples": rounded(done.reading / done.seconds),
            "share in attribution": rounded(done.attribution / done.seconds),
            "share waiting for tables": rounded(done.writing / done.seconds),
            "seconds": rounded(done.seconds),
            "budget": done.budget,
        }
        keep(name + kind, row)


@pytest.mark.parametrize("name", COHORTS)
def test_writing(tmp_path, keep, monkeypatch, name):
    """The time of writing tables: medians of runs in turn, with tables and without."""
    case_name, count, _ = COHORTS[name]
    case = CASES[case_name]
    dataset = on_disk(case.data, count)
    model = make_model(case, dataset)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(WRITING_RUNS + 1):
        for written in (True, False) if turn % 2 else (False, True):
            with monkeypatch.context() as patched:
                if not written:
                    patched.setattr("deeplift_fast.cohort.run._Run._write", lambda *args: None)
                out = tmp_path / f"{turn}-{written}"
                done = attribute_cohort(DeepLift(model, baseline="unk"), dataset, out, progress="none")
            if turn:  # the first runs warm up
                seconds[written].append(done.seconds)
    with_, without = (statistics.median(seconds[written]) for written in (True, False))
    row = {"seconds": rounded(with_), "seconds without tables": rounded(without), "runs of each": WRITING_RUNS}
    keep(f"writing, {name}", row | {"share of the run": rounded(1 - without / with_), "goal": 0.15})


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_reading(keep, processes):
    """Reads samples with two `sequence` features from disk, without attribution."""
    _, count, _ = COHORTS["MLP"]
    dataset = on_disk("sequence", count)
    source = open_source(dataset, make_model(CASES["MLP, batch 256"], dataset), None)
    started = time.perf_counter()
    read = sum(stretch.end - stretch.begin for stretch in source.stretches(lambda part: True, 2048, processes))
    seconds = time.perf_counter() - started
    assert read == count
    keep(f"reading, {processes} processes", {"samples per second": rounded(read / seconds), "goal": READ_GOAL})


def processor_seconds(stretches) -> tuple[float, float]:
    """Processor time of reading stretches, and of that and cutting all of them into batches, on one thread."""
    reading, started = 0.0, time.process_time()
    while True:
        before = time.process_time()
        stretch = next(stretches, None)
        reading += time.process_time() - before
        if stretch is None:
            return reading, time.process_time() - started
        for group in stretch.groups:
            for begin in range(0, len(group.numbers), CACHED_BATCH):
                group.batch(np.arange(begin, min(begin + CACHED_BATCH, len(group.numbers))))


@pytest.mark.parametrize("data", CACHED)
def test_reading_from_the_cache(keep, data):
    """Reads samples and makes batches of them, from the cache and from the dataset in turn, on one core.

    The cache is opened anew in each round, so that its checksums are part of the time.
    """
    count, goal = CACHED[data]
    dataset = on_disk(data, count)
    source = open_source(dataset, make_model(CASES[COHORTS["StageNet" if data == "StageNet" else "MLP"][0]], dataset))
    identity, folder = identity_of(dataset, source.identity()), where(dataset)
    threads, seconds = torch.get_num_threads(), {"cache": [], "dataset": []}
    torch.set_num_threads(1)
    try:
        with CacheWriter(folder, identity, count) as writer:
            read = list(source.stretches(lambda part: True, 2048, 0))
            writing = time.process_time()
            for stretch in read:
                writer.add(stretch)
            size = writer.finish().stat().st_size
            writing = time.process_time() - writing
        for _ in range(CACHED_ROUNDS):
            with open_cache(folder, identity, required=True) as cache:
                seconds["cache"].append(processor_seconds(cache.stretches(lambda part: True, 2048)))
            seconds["dataset"].append(processor_seconds(source.stretches(lambda part: True, 2048, 0)))
    finally:
        torch.set_num_threads(threads)
    reading, ours = (statistics.median(column) for column in zip(*seconds["cache"], strict=True))
    theirs = statistics.median(whole for _, whole in seconds["dataset"])
    row = {"samples per second and core, in batches": rounded(count / ours), "goal": goal}
    row |= {"without batches": rounded(count / reading), "the dataset's, in batches": rounded(count / theirs)}
    row |= {"times as fast": rounded(theirs / ours), "written per second": rounded(count / writing)}
    keep(f"reading from the cache, {data}", row | {"bytes per sample": rounded(size / count)})


def test_memory_of_the_cache(tmp_path, keep):
    """Peak memory of a process that reads a whole cache: what it adds to that of the imports, which should be flat."""
    row = {}
    for count in MEMORY_SAMPLES:
        found = peaks_of(tmp_path / str(count), count)
        row[f"MB added by {count:,} samples"] = rounded(found["after"] - found["before"])
    keep(
        "peak memory, cache",
        row | {"MB of the imports": rounded(found["before"]), "MB of the file": rounded(found["file"])},
    )


def test_memory(tmp_path, keep):
    """Peak memory for a tenth of a data set and for all of it, which should be equal."""
    dataset = on_disk("sequence", MANY)
    few, many = (peak_of(Path(dataset.path), count, tmp_path / str(count)) for count in (MANY // 10, MANY))
    row = {f"MB for {MANY // 10:,} samples": few, f"MB for {MANY:,} samples": many}
    keep("peak memory", row | {"times as much": rounded(many / few), "goal": 1.1})


def test_a_large_cohort(tmp_path, keep):
    dataset = on_disk("sequence", LARGE)
    torch.manual_seed(0)
    model = CASES["Transformer, 1 layer, batch 128"].kind(dataset, **SMALL_MODEL).eval()
    done = attribute_cohort(DeepLift(model, rules="complete"), dataset, tmp_path / "cohort", progress="none")
    size = sum(file.stat().st_size for file in (tmp_path / "cohort").rglob("*.parquet"))
    row = {"samples": done.samples, "failures": done.failures, "seconds": rounded(done.seconds)}
    row |= {
        "samples per second": rounded(done.samples / done.seconds),
        "bytes per sample": rounded(size / done.samples),
    }
    row |= {"share waiting for samples": rounded(done.reading / done.seconds)}
    row |= {"share in attribution": rounded(done.attribution / done.seconds)}
    row |= {"share waiting for tables": rounded(done.writing / done.seconds)}
    keep(f"{LARGE:,} samples, a Transformer of width 32, complete", row)


def test_two_workers(tmp_path, keep):
    """Times a StageNet cohort on one worker of one thread, on two, and on two of which one is killed.

    Dask's profiler is off, as in `deeplift-fast run --workers`. Time counts from the first attributed sample on. "Busy"
    are the seconds of reading, attribution and writing of all workers: if two are busy for longer than one, they hinder
    each other; the rest of their time they are idle.
    """
    import dask
    from distributed import Client, LocalCluster

    case = CASES["StageNet, batch 128"]
    dataset = on_disk(case.data, WORKER_SAMPLES)
    model = make_model(case, dataset)
    make_cache(dataset, model, progress="none")
    row = {}
    for workers, lost in ((1, False), (2, False), (2, True)):
        named = f"{workers}" + (", one killed after 3 s" if lost else "")
        with dask.config.set({"distributed.worker.profile.enabled": False}):
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        with cluster, Client(cluster) as client:
            client.wait_for_workers(workers)
            # A worker imports modules and takes memory during its first part.
            interpreter, first = DeepLift(model, baseline="unk"), tmp_path / f"{workers}{lost}-first"
            attribute_cohort(
                interpreter, dataset, first, client=client, progress="none", part_samples=256, limit=512 * workers
            )
            victim = threading.Timer(3, next(iter(cluster.workers.values())).kill) if lost else None
            if victim:
                victim.start()
            out = tmp_path / f"{workers}{lost}"
            done = attribute_cohort(
                DeepLift(model, baseline="unk"), dataset, out, client=client, progress="none", part_samples=256
            )
            ended = time.time()
            assert done.samples == len(dataset)
        row[f"seconds on {named}"] = rounded(ended - first_attributed(out))
        row[f"busy seconds on {named}"] = rounded(done.reading + done.attribution + done.writing)
    one, two = row["seconds on 1"], row["seconds on 2"]
    row |= {"idle share on 2": rounded(1 - row["busy seconds on 2"] / 2 / two)}
    row |= {"times as fast": rounded(one / two), "goal": WORKERS_GOAL}
    keep(f"workers, StageNet, {WORKER_SAMPLES:,} samples", row)


def first_attributed(out: Path) -> float:
    """The time at which the attribution of the first part began: that of its file, less the part's seconds."""
    parts = json.loads((out / "manifest.json").read_text())["parts"].values()
    return min((out / next(iter(part["files"]))).stat().st_mtime - part["seconds"] for part in parts)
