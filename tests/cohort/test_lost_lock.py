"""A run that lost its lock stops, and writes nothing more."""

import json
import os
import time

import pytest
from cohort_cases import run, spoiled
from lock_cases import taken_over

from deeplift_fast.cohort import CohortError, lock
from deeplift_fast.cohort.lock import held
from deeplift_fast.cohort.lock_owner import this_run
from deeplift_fast.cohort.store import LocalStore


@pytest.fixture(scope="module")
def sick():
    """Samples of which some cannot be attributed."""
    samples, model, _ = spoiled(16)
    return samples, model


def test_one_that_lost_the_lock_stops_writing(whole, store, monkeypatch):
    from deeplift_fast.cohort import run as running

    data, model, _ = whole
    written = []
    write = running.write_files

    def losing(*given):
        written.append(given[1].stretch.part)
        if len(written) == 2:
            taken_over(store)
        return write(*given)

    monkeypatch.setattr(running, "write_files", losing)
    with pytest.raises(CohortError, match=r"another run took over \(process 7 on another.*this one stops: .* are kept"):
        run(model, data, store.shown)
    assert len(written) == 2
    assert len(json.loads(store.read("manifest.json"))["parts"]) == 1
    assert json.loads(store.read(".lock"))["token"] == "other"  # which stays


@pytest.mark.parametrize("last", range(1, 6))
def test_whatever_is_written_next_one_that_lost_the_lock_does_not_write_it(sick, store, monkeypatch, last):
    """Lost while a file is being written, be it a part's, the failures or the manifest: it does not appear."""
    samples, model = sick
    replaced = LocalStore.write if isinstance(store, LocalStore) else type(store).write
    written = []

    def losing(self, name, data, require=None, *given, **options):
        if require is not None:
            written.append(name)
            if len(written) == last:
                taken_over(store)  # and then the other run writes
                before.update({each: store.read(each) for each in every})
        return replaced(self, name, data, require, *given, **options)

    every = ["manifest.json", "failures.parquet"]
    every += [f"{folder}/part-00000{part}.parquet" for folder in ("attributions", "samples") for part in range(3)]
    before = {}
    monkeypatch.setattr(type(store), "write", losing)
    with pytest.raises(CohortError, match="another run took over"):
        run(model, samples, store.shown, part_samples=6, budget=1000)
    assert len(written) == last
    assert {each: store.read(each) for each in every} == before
    assert json.loads(store.read(".lock"))["token"] == "other"


@pytest.mark.parametrize("content", [None, "let go of", "ours", "other"])
def test_a_worker_sees_whose_lock_it_is(store, content):
    owner = this_run()
    if content == "ours":
        store.replace(".lock", owner.content(refreshed=True))
    elif content == "other":
        taken_over(store)
    elif content is not None:
        store.write(".lock", b"")
    seen = lock.SeenLock(store, owner.token)
    if content == "other":
        with pytest.raises(CohortError, match=r"another run took over \(process 7 on another"):
            seen.require()
    else:
        seen.require()


def test_one_that_lost_the_lock_does_not_refresh_it(store, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with held(store):
        taken_over(store)
        time.sleep(0.1)
        assert json.loads(store.read(".lock"))["token"] == "other"
    assert json.loads(store.read(".lock"))["token"] == "other"


def test_a_lock_file_that_was_removed_is_written_anew(store):
    with held(store) as found:
        store.remove_versions(".lock")
        found.require()
        assert json.loads(store.read(".lock"))["pid"] == os.getpid()


def test_a_lock_of_the_system_that_was_removed_is_made_anew_or_lost(tmp_path):
    store = LocalStore(tmp_path)
    with held(store) as first:
        (tmp_path / ".lock").unlink()
        first.require()
        with pytest.raises(CohortError, match="another run is writing"), held(store):
            pass
        (tmp_path / ".lock").unlink()
        with held(store), pytest.raises(CohortError, match="which another run took over"):
            first.require()


def test_a_place_out_of_reach_loses_the_lock_only_after_a_while(store, monkeypatch):
    with held(store) as found, monkeypatch.context() as patch:

        def away(*_):
            raise CohortError("out of reach")

        patch.setattr(type(store), "read", away)
        found.require()
        patch.setattr(lock, "STALE", 0.0)
        with pytest.raises(CohortError, match="out of reach"):
            found.require()


def test_a_manifest_is_left_alone_where_the_lock_is_not_had(whole, store):
    data, model, _ = whole
    run(model, data, store.shown, limit=10)
    before = store.read("manifest.json")
    taken_over(store)
    with pytest.raises(CohortError, match="process 7 on another"):
        run(model, data, store.shown)
    assert store.read("manifest.json") == before
