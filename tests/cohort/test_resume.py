"""What a stop costs, and what a folder refuses."""

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from cohort_cases import SECRETS, cohort, contents, manifest, raw, run, spoiled, table

from deeplift_fast import DeepLift
from deeplift_fast.cohort import CohortError, attribute_cohort, attributing, lock
from deeplift_fast.cohort.lock import held
from deeplift_fast.cohort.store import LocalStore, open_store
from deeplift_fast.cohort.threads import lanes_for

ROOT = Path(__file__).parents[2]


class Stop(BaseException):
    pass


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Stop, MemoryError])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(whole, tmp_path, monkeypatch, stop, after):
    data, model, out = whole
    done, stopped = [], []
    part = attributing.Attributor.part

    def stopping(self, stretch, budget):
        if len(done) == after:
            stopped.append(stretch.part)
            raise stop
        done.append(stretch.part)
        return part(self, stretch, budget)

    monkeypatch.setattr(attributing.Attributor, "part", stopping)
    with pytest.raises(stop):
        run(model, data, tmp_path / "out")
    monkeypatch.undo()
    # Parts are attributed side by side and written in order: one after the stopped part may be done, and is dropped.
    written = sorted(map(int, manifest(tmp_path / "out")["parts"]))
    assert written == [number for number in sorted(done) if number < min(stopped)]
    assert not manifest(tmp_path / "out")["finished"]
    again = run(model, data, tmp_path / "out")
    assert (again.samples, again.parts) == (23, 5)
    assert contents(tmp_path / "out") == contents(out)


def test_failures_outlast_a_stop(tmp_path, monkeypatch):
    samples, model, _ = spoiled()
    run(model, samples, tmp_path / "whole")
    run(model, samples, tmp_path / "out", limit=10)
    # A part that was written, but whose manifest entry was not.
    kept = pq.read_table(tmp_path / "whole" / "failures.parquet")
    pq.write_table(kept, tmp_path / "out" / "failures.parquet")
    run(model, samples, tmp_path / "out")
    assert table(tmp_path / "out", "failures").equals(kept)
    assert contents(tmp_path / "out")["manifest.json"] == contents(tmp_path / "whole")["manifest.json"]


def test_a_finished_cohort_is_left_alone(copied):
    data, model, out = copied
    before = {path: path.stat().st_mtime_ns for path in out.rglob("part-*")}
    run(model, data, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("part-*")} == before


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("folder", ["samples", "attributions"])
def test_a_part_that_was_harmed_is_attributed_again(whole, copied, harm, folder):
    data, model, out = copied
    path = out / folder / "part-000002.parquet"
    content = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if harm == "flipped" else content[:-7])
    run(model, data, out)
    assert contents(out) == contents(whole[2])


def test_what_a_killed_run_left_is_removed(whole, copied):
    data, model, out = copied
    unfinished = ("attributions/.tmp-1-part-000009.parquet", ".tmp-2-failures.parquet", ".tmp-3-manifest.json")
    for name in (*unfinished, "samples/part-000009.parquet"):
        (out / name).write_bytes(b"left")
    (out / "samples" / "notes.txt").write_text("the user's own")
    run(model, data, out)
    assert contents(out) == contents(whole[2])
    assert not list(out.rglob(".tmp-*"))
    assert (out / "samples" / "notes.txt").exists()


def test_force_starts_over(whole, copied):
    data, model, out = copied
    run(model, data, out, part_samples=9, force=True)
    assert sorted(path.name for path in (out / "samples").iterdir()) == [f"part-{k:06d}.parquet" for k in range(3)]
    assert table(out, "samples").num_rows == 23
    run(model, data, out, force=True)
    assert contents(out) == contents(whole[2])


def other_weights(model, data):
    fresh = cohort()[1]
    with torch.no_grad():
        fresh.fc.bias += 1e-6
    return fresh, data


def other_content(model, data):
    return model, cohort(samples=raw(seed=1)[:-1] + raw(seed=1)[:1])[0]


DIFFERENT = {
    "rules": ({"rules": "complete"}, None, r'interpreter\.rules: "rescale" there, "complete" now'),
    "target": ({"target_class_idx": 0}, None, "target: null there, 0 now"),
    "baseline": ({"baseline": {"a": 2}}, None, r'baseline: "unk" there, "a: 2; otherwise unk" now'),
    "part_samples": ({"part_samples": 6}, None, "part_samples: 5 there, 6 now"),
    "weights": ({}, other_weights, r"model\.weights: [0-9a-f]{12}… there, [0-9a-f]{12}… now"),
    "length": ({}, lambda m, d: (m, [d[i] for i in range(22)]), r"dataset\.length: 23 there, 22 now"),
    "class": (
        {},
        lambda m, d: (m, [d[i] for i in range(23)]),
        r'dataset\.class: ".*InMemory.*" there, "builtins.list"',
    ),
    "content": ({}, other_content, r"dataset\.content: "),
    "dataset": ({}, lambda m, d: (m, cohort(samples=raw(seed=2))[0]), r"dataset\.processors: "),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_another_run_is_refused_with_what_differs(copied, what):
    data, model, out = copied
    options, change, said = DIFFERENT[what]
    model, data = change(model, data) if change else (model, data)
    before = contents(out)
    with pytest.raises(CohortError, match=said) as caught:
        run(model, data, out, **options)
    assert "start over with force" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert contents(out) == before


@pytest.mark.parametrize(
    "path",
    [
        "versions.torch", "versions.pyhealth", "versions.deeplift_fast", "interpreter.steps", "interpreter.fuse",
        "interpreter.use_embeddings", "model.class", "dataset.input_schema.a", "dataset.output_schema.label",
        "dataset.processors", "dimensions", "splits",
    ],
)  # fmt: skip
def test_every_field_of_a_manifest_counts(copied, path):
    data, model, out = copied
    name = out / "manifest.json"
    key = path.rsplit(".", 1)[-1]
    name.write_text(re.sub(rf'("{key}": )("[^"]*"|[\w.]+)', r'\1"another"', name.read_text(), count=1))
    with pytest.raises(CohortError, match=rf'{re.escape(path)}: "another" there'):
        run(model, data, out)


def test_the_second_run_on_a_folder_is_refused(copied):
    data, model, out = copied
    with (
        held(LocalStore(out)),
        pytest.raises(CohortError, match=rf"process {os.getpid()} on .*, for \d s\); wait for it"),
    ):
        run(model, data, out)
    run(model, data, out)


def test_the_second_run_on_a_remote_folder_is_refused(whole):
    data, model, _ = whole
    store = open_store("memory://locked")
    store.make()
    with held(store), pytest.raises(CohortError, match="another run is writing"):
        run(model, data, "memory://locked")
    run(model, data, "memory://locked")
    # The lock of a process that is no more is taken over.
    gone = subprocess.Popen(["true"])
    gone.wait()
    with held(store):
        content = store.read(".lock").replace(str(os.getpid()).encode(), str(gone.pid).encode())
    store.write(".lock", content)
    run(model, data, "memory://locked")


def test_a_lock_that_nobody_refreshes_is_taken_over(monkeypatch):
    store = open_store("memory://beating")
    store.make()
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with held(store):
        first = json.loads(store.read(".lock"))["refreshed"]
        until = time.monotonic() + 30
        while json.loads(store.read(".lock"))["refreshed"] == first and time.monotonic() < until:
            time.sleep(0.01)
        assert json.loads(store.read(".lock"))["refreshed"] > first
    assert store.read(".lock") is None
    elsewhere = {"host": "another", "pid": 1, "since": 0.0}
    store.write(".lock", json.dumps(elsewhere | {"refreshed": time.time()}).encode())
    with pytest.raises(CohortError, match=r"process 1 on another, for \d+ h"), held(store):
        pass
    store.write(".lock", json.dumps(elsewhere | {"refreshed": time.time() - 2 * lock.STALE}).encode())
    with held(store):
        pass


def test_a_lock_ends_with_its_process_even_if_its_children_live_on(tmp_path):
    store = LocalStore(tmp_path)
    code = (
        "import os, sys, time; from pathlib import Path; from deeplift_fast.cohort.store import LocalStore;"
        "from deeplift_fast.cohort.lock import held\n"
        "with held(LocalStore(Path(sys.argv[1]))):\n"
        "    if not os.fork(): print(os.getpid(), flush=True)\n"  # the child has let go of the lock by then
        "    time.sleep(30)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    child = int(owner.stdout.readline())
    try:
        with pytest.raises(CohortError, match=f"process {owner.pid} on"), held(store):
            pass
        owner.kill()
        owner.wait()
        os.kill(child, 0)  # alive
        with held(store):
            pass
    finally:
        owner.kill()
        owner.stdout.close()
        os.kill(child, 9)


def test_two_runs_at_once_leave_one_result(whole, tmp_path):
    data, model, _ = whole
    outcomes = []

    def attempt():
        try:
            outcomes.append(run(model, data, tmp_path / "out", budget=8).samples)
        except CohortError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=attempt) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 23 in outcomes
    assert all(outcome == 23 or "another run is writing" in outcome for outcome in outcomes)
    assert table(tmp_path / "out", "samples")["sample"].to_pylist() == list(range(23))


def out_of_memory_above(interpreter, most, error):
    """Makes the interpreter run out of memory for batches with more samples; counts how often."""
    explain, raised = interpreter.explain, []

    def limited(*arguments, **batch):
        if len(batch["patient_id"]) > most:
            raised.append(len(batch["patient_id"]))
            raise error
        return explain(*arguments, **batch)

    interpreter.explain = limited
    return raised


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory"),
    ],
)
@pytest.mark.parametrize("loader", [False, True])
def test_where_memory_runs_out_batches_are_halved_and_nothing_is_lost(whole, tmp_path, error, loader):
    from pyhealth.datasets import get_dataloader

    data, model, out = whole
    interpreter = DeepLift(model)
    raised = out_of_memory_above(interpreter, 2, error)
    given = iter(get_dataloader(data, 5)) if loader else data
    options = {"part_samples": 10, "progress": "none", "budget": 1000}
    done = attribute_cohort(interpreter, given, tmp_path / "out", **options)
    assert raised
    assert (done.samples, done.failures) == (23, 0)
    assert done.budget < 1000
    budgets = [part["budget"] for part in manifest(tmp_path / "out")["parts"].values()]
    assert max(budgets) < 1000
    assert done.budget == min(budgets)  # which a run that goes on begins with
    assert done.budget == manifest(tmp_path / "out")["budget"]
    rows = table(tmp_path / "out", "attributions").drop(["attribution"])
    assert rows.to_pylist() == table(out, "attributions").drop(["attribution"]).to_pylist()


def test_a_sample_too_large_for_memory_alone_is_a_failure(whole, tmp_path):
    data, model, _ = whole
    interpreter = DeepLift(model)
    explain = interpreter.explain

    def limited(*arguments, **batch):
        if batch["a"].shape[1] > 8:
            raise MemoryError
        return explain(*arguments, **batch)

    interpreter.explain = limited
    done = attribute_cohort(interpreter, data, tmp_path, part_samples=10, progress="none", budget=1000)
    long = [i for i in range(23) if len(data[i]["a"]) > 8]
    assert done.failures == len(long) > 0
    failed = table(tmp_path, "failures")
    assert failed["sample"].to_pylist() == long
    assert set(failed["reason"].to_pylist()) == {"memory ran out for this sample alone"}


def test_the_death_of_a_reading_process_is_no_failure_of_a_sample(whole, tmp_path):
    data, model, _ = whole
    interpreter = DeepLift(model)

    def told(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    interpreter.explain = told  # torch's signal handler raises wherever the process is
    with pytest.raises(CohortError, match="a reading process died"):
        attribute_cohort(interpreter, data, tmp_path, part_samples=5, progress="none", budget=100)
    assert run(model, data, tmp_path).failures == 0


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_few_parts_at_most_are_held(tmp_path, monkeypatch, in_memory):
    data, model = cohort(count=60, in_memory=in_memory)
    part, alive, most = attributing.Attributor.part, weakref.WeakSet(), []

    class Watched(attributing.PartResult):
        __hash__ = object.__hash__

    def watching(self, stretch, budget):
        watched = Watched(**vars(part(self, stretch, budget)))
        alive.add(watched)
        most.append(len(alive))
        return watched

    monkeypatch.setattr(attributing.Attributor, "part", watching)
    run(model, data, tmp_path, part_samples=4)
    assert len(most) == 15
    assert max(most) <= 3 + lanes_for(model, fuse=True)


def test_the_lock_is_the_systems(tmp_path):
    with held(LocalStore(tmp_path)):
        handle = os.open(tmp_path / ".lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
