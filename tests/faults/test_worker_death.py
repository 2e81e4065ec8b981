"""Workers of a cluster that die, are retired or paused: the rows of one process, or an error that says what is kept."""

import json
import os
import signal
import threading
import time

import pytest
from cohort_cases import cohort, contents, manifest, run

pytest.importorskip("distributed")

from distributed import Client, LocalCluster, Status, Worker

from deeplift_fast.cohort import CohortError, distribute, encoding
from deeplift_fast.cohort.local_store import LocalStore
from deeplift_fast.errors import CohortWarning

pytestmark = pytest.mark.usefixtures("one_thread")


def retire(client, cluster):
    until = time.monotonic() + 60
    while time.monotonic() < until and (workers := list(client.scheduler_info()["workers"])):
        client.retire_workers(workers)  # Dask keeps one that holds a result until that is fetched


def die(client, cluster):
    for worker in list(cluster.workers.values()):
        cluster.sync(worker.close, executor_wait=False, reason="killed")


def pause(client, cluster):
    def paused(dask_worker):
        dask_worker.memory_manager.memory_pause_fraction = False  # which would let it go on: there is memory
        dask_worker.status = Status.paused

    client.run(paused)


def after_the_first_part(out, act, monkeypatch):
    """Lets parts take a while, and calls `act` once one is there; returns the thread."""
    attribute = distribute.WorkerState.attribute

    def slowly(self, *given):
        time.sleep(0.1)
        return attribute(self, *given)

    monkeypatch.setattr(distribute.WorkerState, "attribute", slowly)

    def watch():
        until = time.monotonic() + 60
        while time.monotonic() < until and not ((out / "manifest.json").exists() and manifest(out)["parts"]):
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.fixture
def own_cluster():
    """A cluster of this process for one test, and its client."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client, cluster


@pytest.mark.parametrize("end", [retire, die, pause])
def test_a_run_without_workers_ends_and_says_what_is_kept(own_cluster, tmp_path, monkeypatch, end):
    client, cluster = own_cluster
    data, model = cohort(count=300)
    thread = after_the_first_part(tmp_path / "out", lambda: end(client, cluster), monkeypatch)
    with pytest.raises(CohortError, match=r"no worker at work for 0\.5 s \(worker_timeout\)") as caught:
        run(model, data, tmp_path / "out", client=client, part_samples=2, worker_timeout=0.5)
    thread.join()
    parts = len(manifest(tmp_path / "out")["parts"])
    assert 0 < parts < 150
    assert f"{2 * parts} of 300 samples in {parts} part(s) are kept: start workers" in str(caught.value)
    assert run(model, data, tmp_path / "out", part_samples=2).samples == 300


def test_workers_that_come_in_time_go_on(own_cluster, tmp_path, monkeypatch):
    client, cluster = own_cluster
    data, model = cohort(count=90)
    late = []

    async def another():
        late.append(await Worker(cluster.scheduler_address, nthreads=1))

    def replaced():
        retire(client, cluster)
        time.sleep(0.5)
        cluster.sync(another)

    thread = after_the_first_part(tmp_path, replaced, monkeypatch)
    assert run(model, data, tmp_path, client=client, part_samples=2, worker_timeout=60).samples == 90
    thread.join()
    cluster.sync(late[0].close)


def test_one_warning_names_the_worker_that_left(own_cluster, tmp_path, monkeypatch):
    client, cluster = own_cluster
    data, model = cohort(count=30)
    leaving = cluster.workers[0]

    def leave():
        cluster.sync(leaving.close, executor_wait=False, reason="killed")

    thread = after_the_first_part(tmp_path, leave, monkeypatch)
    with pytest.warns(CohortWarning) as told:
        assert run(model, data, tmp_path, client=client, part_samples=2).samples == 30
    thread.join()
    assert [str(each.message) for each in told if each.category is CohortWarning] == [
        f"worker {leaving.address} has died or was closed; the parts that it had not finished run again; "
        "workers left: 1"
    ]


def test_a_scheduler_that_is_gone_is_told(own_cluster, tmp_path, monkeypatch):
    client, cluster = own_cluster
    data, model = cohort(count=300)
    thread = after_the_first_part(tmp_path / "out", lambda: cluster.close(timeout=10), monkeypatch)
    with pytest.raises(CohortError, match=r"client (lost a part|has had no worker).* kept"):
        run(model, data, tmp_path / "out", client=client, part_samples=2, worker_timeout=2)
    thread.join()
    assert run(model, data, tmp_path / "out", part_samples=2).samples == 300


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(tmp_path):
    data, model = cohort("StageNet", 400, in_memory=False, longest=40)
    run(model, data, tmp_path / "one", budget=50)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        killed = []

        def kill():
            until = time.monotonic() + 120
            while len(list((tmp_path / "out" / "samples").glob("part-*"))) < 5 and time.monotonic() < until:
                time.sleep(0.01)
            pid = client.run(os.getpid).popitem()[1]
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.warns(CohortWarning, match=r"worker tcp://\S+ has died or was closed; .* workers left: \d"):
            done = run(model, data, tmp_path / "out", client=client, budget=50)
        thread.join()
        assert killed
        assert (done.samples, done.parts) == (400, 80)
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert not list((tmp_path / "out").rglob(".tmp-*"))


def test_workers_of_a_run_that_lost_its_lock_write_nothing(own_cluster, tmp_path, monkeypatch):
    """As after a long suspension of the process that began the run: another run has its folder by then."""
    client, _ = own_cluster
    data, model = cohort(count=60)
    out, tables, write, calls, before = tmp_path / "out", encoding.part_tables, LocalStore.write, [], {}
    writing = threading.Lock()

    def one_by_one(*given):
        with writing:
            write(*given)

    def losing(*given):
        calls.append(given)
        if len(calls) == 4:  # attributed, and about to be written
            other = {"host": "another", "pid": 7, "since": time.time(), "refreshed": time.time(), "token": "other"}
            with writing:  # the other worker is not in the midst of a file
                (out / ".lock").write_text(json.dumps(other))
                before.update({path: path.read_bytes() for path in out.rglob("part-*")})
        return tables(*given)

    monkeypatch.setattr(LocalStore, "write", one_by_one)
    monkeypatch.setattr(encoding, "part_tables", losing)
    with pytest.raises(CohortError, match=r"another run took over \(process 7 on another"):
        run(model, data, out, client=client, part_samples=5)
    found = {path: path.read_bytes() for path in out.rglob("part-*")}
    assert before
    assert found == before
    monkeypatch.undo()
    (out / ".lock").unlink()
    assert run(model, data, out, part_samples=5).samples == 60
