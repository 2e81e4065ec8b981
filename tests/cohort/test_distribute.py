"""Parts on a Dask cluster: the numbers of one process, whatever happens to the workers."""

import numpy as np
import pytest
from cohort_cases import cohort, contents, manifest, run, spoiled, table

pytest.importorskip("distributed")

from distributed import CancelledError, Client, KilledWorker, LocalCluster
from distributed.comm import CommClosedError
from pyhealth.datasets import get_dataloader

from deeplift_fast.cohort import CohortError, distribute
from deeplift_fast.cohort.settings import check_worker_timeout
from deeplift_fast.cohort.store import LocalStore

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def in_process():
    """A cluster of two workers in this process."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize(("in_memory", "interactions"), [(True, 3), (False, None)])
def test_the_bytes_are_those_of_one_process(in_process, in_memory, interactions, tmp_path):
    data, model = cohort("StageNet", in_memory=in_memory)
    done = run(model, data, tmp_path / "cluster", client=in_process, interactions=interactions)
    assert (done.samples, done.parts) == (23, 5)
    run(model, data, tmp_path / "one", interactions=interactions)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "one")
    assert manifest(tmp_path / "cluster")["finished"]


def test_failures_come_from_every_worker(in_process, tmp_path):
    samples, model, reasons = spoiled()
    done = run(model, samples, tmp_path / "cluster", client=in_process, part_samples=3)
    assert done.failures == len(reasons)
    run(model, samples, tmp_path / "one", part_samples=3)
    assert table(tmp_path / "cluster", "failures").equals(table(tmp_path / "one", "failures"))
    assert contents(tmp_path / "cluster") == contents(tmp_path / "one")


def test_a_cluster_goes_on_where_one_process_stopped(in_process, tmp_path):
    data, model = cohort()
    run(model, data, tmp_path / "out", limit=10)
    run(model, data, tmp_path / "out", client=in_process)
    run(model, data, tmp_path / "one")
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


def test_a_cluster_writes_to_any_url(in_process, tmp_path):
    import fsspec

    data, model = cohort()
    run(model, data, f"memory://{tmp_path.name}", client=in_process)
    run(model, data, tmp_path / "one")
    files = fsspec.filesystem("memory")
    for name, content in contents(tmp_path / "one").items():
        assert name == "manifest.json" or files.cat(f"/{tmp_path.name}/{name}") == content


def test_parts_that_went_elsewhere_do_not_count(in_process, tmp_path, monkeypatch):
    elsewhere = LocalStore(tmp_path / "elsewhere")
    elsewhere.make("attributions", "samples")
    monkeypatch.setattr(distribute, "open_store", lambda *_: elsewhere)
    data, model = cohort()
    with pytest.raises(CohortError, match=r"wrote attributions/part-.* does not find there; give a folder or URL that"):
        run(model, data, tmp_path / "out", client=in_process)
    assert manifest(tmp_path / "out")["parts"] == {}
    monkeypatch.undo()
    assert run(model, data, tmp_path / "out", client=in_process).samples == 23


def test_batches_cannot_be_distributed(in_process, tmp_path):
    data, model = cohort()
    with pytest.raises(CohortError, match="client is given, and dataset is read batch by batch"):
        run(model, iter(get_dataloader(data, 4)), tmp_path, client=in_process)


@pytest.mark.parametrize("deaths", [1, distribute.REGISTRATIONS])
def test_a_worker_may_die_while_it_gets_the_model(in_process, tmp_path, monkeypatch, deaths):
    left = iter(range(deaths))

    def register(client, *arguments, **options):
        if next(left, None) is not None:
            raise CommClosedError("while reading")
        return registered(client, *arguments, **options)

    registered = Client.register_plugin
    monkeypatch.setattr(Client, "register_plugin", register)
    monkeypatch.setattr(distribute, "LOOK", 0.01)
    data, model = cohort()
    if deaths == distribute.REGISTRATIONS:
        with pytest.raises(CohortError, match="client lost a worker at each of 5 tries to send it the model"):
            run(model, data, tmp_path / "out", client=in_process)
        assert manifest(tmp_path / "out")["parts"] == {}
    else:
        assert run(model, data, tmp_path / "out", client=in_process).samples == 23


def test_a_cluster_without_workers_is_refused(tmp_path):
    data, model = cohort()
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        pytest.raises(CohortError, match="client has no workers"),
    ):
        run(model, data, tmp_path, client=client)


def test_what_a_worker_raises_is_told_and_logged_without_its_words(in_process, tmp_path, monkeypatch, caplog):
    def failing(*_):
        raise ValueError("secret-patient")

    monkeypatch.setattr(distribute, "write_files", failing)
    data, model = cohort()
    with pytest.raises(CohortError, match=r"part \d failed on a worker \(ValueError at .*test_distribute") as caught:
        run(model, data, tmp_path / "out", client=in_process)
    assert "secret" not in str(caught.value) + caplog.text
    monkeypatch.undo()
    assert run(model, data, tmp_path / "out", client=in_process).samples == 23


@pytest.mark.parametrize("error", [KilledWorker("part", None, 3), CancelledError("part")])
def test_parts_that_the_cluster_lost_are_told(in_process, tmp_path, monkeypatch, error):
    class Lost:
        def result(self, timeout):
            raise error

    class Completed:
        def add(self, _):
            pass

        def is_empty(self):
            return False

        def has_ready(self):
            return True

        def __next__(self):
            return Lost()

    monkeypatch.setattr(distribute, "as_completed", Completed)
    data, model = cohort()
    with pytest.raises(CohortError, match=rf"client lost a part \({type(error).__name__}\): its workers died one"):
        run(model, data, tmp_path / "out", client=in_process)


def test_seconds_of_numpy():
    for given in (np.int64(60), np.float32(0.5)):
        check_worker_timeout(given)


@pytest.mark.parametrize("given", [0, -1, float("nan"), "1", None, True])
def test_a_limit_that_is_none_is_refused(tmp_path, given):
    data, model = cohort(count=4)
    with pytest.raises(CohortError, match=r"worker_timeout is .*; accepted: a number of seconds above 0"):
        run(model, data, tmp_path / "out", worker_timeout=given)
    assert not (tmp_path / "out").exists()
