"""Cohorts whose samples come out of the dataset's cache: the same files, whatever happens to the cache."""

import os
import pickle
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from cache_cases import assert_same_stretch
from cohort_cases import cohort, contents, manifest, run
from metadata_cases import dataset as with_metadata
from metadata_cases import stagenet
from pyhealth.datasets import get_dataloader
from pyhealth.models import MLP

from deeplift_fast import DeepLift
from deeplift_fast.cohort import CohortError, make_cache, making_caches
from deeplift_fast.cohort.attributing import Attributor
from deeplift_fast.cohort.cache import CacheWriter, where, writer
from deeplift_fast.cohort.cached_source import CachedSource, CachePlace, with_cache
from deeplift_fast.cohort.reading import open_source
from deeplift_fast.cohort.reading_ahead import Reader
from deeplift_fast.cohort.settings import checked_settings
from deeplift_fast.cohort.store import open_store
from deeplift_fast.errors import CacheError, CacheWarning


@pytest.fixture
def made(monkeypatch):
    """A dataset on disk, its model, and the dataset's cache, in blocks of five samples."""
    monkeypatch.setattr(making_caches, "PART_SAMPLES", 5)
    monkeypatch.setattr(writer, "SHORT_SAMPLES", 5)
    data, model = cohort("StageNet", in_memory=False)
    found = make_cache(data, model, progress="none", read_ahead=0)
    yield data, model, found.path
    data.close()


@contextmanager
def unread(monkeypatch):
    """Fails if a part is read from the dataset."""
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "stretch", None)
        yield


@contextmanager
def one_warning(match):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    (said,) = [str(each.message) for each in told if each.category is CacheWarning]
    assert match in said


def damage(path):
    """Flips a byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("read_ahead", [0, 2])
def test_the_first_run_makes_a_cache_and_later_runs_of_any_model_read_it(read_ahead, tmp_path, monkeypatch):
    data = with_metadata(in_memory=False)
    model = stagenet(data)
    first = run(model, data, tmp_path / "first", part_samples=2, read_ahead=read_ahead)
    assert (first.cache, first.made_cache) == (None, str(next(where(data).iterdir())))
    torch.manual_seed(1)
    other = MLP(data, embedding_dim=4, hidden_dim=4).eval()
    for number, (each, options) in enumerate([(model, {"rules": "complete"}), (other, {"limit": 2}), (model, {})]):
        with unread(monkeypatch):
            done = run(each, data, tmp_path / f"{number}", part_samples=2, **options)
        assert (done.cache, done.made_cache) == (first.made_cache, None)
        run(each, data, tmp_path / f"{number} without", part_samples=2, cache=False, **options)
        found, expected = contents(tmp_path / f"{number}"), contents(tmp_path / f"{number} without")
        assert found == expected
        assert manifest(tmp_path / f"{number}")["read_from_cache"]
        assert not manifest(tmp_path / f"{number} without")["read_from_cache"]
    assert contents(tmp_path / "first") == contents(tmp_path / "2")
    data.close()


def test_only_a_reading_of_the_whole_dataset_makes_a_cache(tmp_path):
    data, model = cohort("MLP", in_memory=False)
    run(model, data, tmp_path / "out", limit=10)
    done = run(model, data, tmp_path / "out")  # the rest
    assert (done.samples, done.made_cache, done.cache) == (23, None, None)
    source = with_cache(open_source(data, model), True)
    stretches = source.stretches(lambda part: True, 5, 0)
    next(stretches)
    stretches.close()
    assert not where(data).exists() or not list(where(data).iterdir())
    assert run(model, data, tmp_path / "whole").made_cache
    data.close()


def test_a_run_goes_on_with_a_cache_that_was_made_meanwhile(made, tmp_path, monkeypatch):
    data, model, _ = made
    run(model, data, tmp_path / "mixed", limit=10, cache=False)
    assert not manifest(tmp_path / "mixed")["read_from_cache"]
    with unread(monkeypatch):
        run(model, data, tmp_path / "mixed")
    run(model, data, tmp_path / "one", cache=False)
    assert contents(tmp_path / "mixed") == contents(tmp_path / "one")
    assert manifest(tmp_path / "mixed")["read_from_cache"]


def test_a_block_that_is_damaged_sends_the_run_back_to_the_dataset(made, tmp_path, monkeypatch):
    data, model, path = made
    make_cache(data, model, progress="none")  # sound: stays
    source = with_cache(open_source(data, model), True)
    blocks = CachedSource.stretch(source, 0, 5)
    damage(path)
    with one_warning("(its checksum does not fit); it is removed, and the next run over all samples makes it anew"):
        done = run(model, data, tmp_path / "damaged")
    assert not path.exists()  # a part of the dataset was read, which makes no other
    run(model, data, tmp_path / "one", cache=False)
    assert contents(tmp_path / "damaged") == contents(tmp_path / "one")
    assert_same_stretch(blocks, open_source(data, model).stretch(0, 5))
    assert (done.samples, done.cache, done.made_cache) == (23, str(path), None)
    assert run(model, data, tmp_path / "again").made_cache == str(path)
    with unread(monkeypatch):
        run(model, data, tmp_path / "later")


def test_a_damaged_cache_that_another_process_has_replaced_stays(made, tmp_path, monkeypatch):
    data, model, path = made
    source = with_cache(open_source(data, model), True)
    assert source.cache is not None
    sound = path.read_bytes()
    damage(path)
    path.rename(tmp_path / "damaged")
    path.write_bytes(sound)
    with one_warning("another process has replaced it meanwhile"):
        assert_same_stretch(source.stretch(2, 5), open_source(data, model).stretch(2, 5))
    with unread(monkeypatch):
        run(model, data, tmp_path / "out")


def test_a_stale_cache_is_replaced(made, tmp_path):
    data, model, path = made
    (chunk,) = path.parent.parent.glob("*.bin")
    os.utime(chunk, ns=(0, 1))
    with one_warning("earlier state"):
        assert run(model, data, tmp_path / "stale").made_cache == str(path)
    assert run(model, data, tmp_path / "later").cache == str(path)


def test_a_folder_may_be_named(tmp_path):
    data, model = cohort("MLP", in_memory=False)
    done = run(model, data, tmp_path / "one", cache=tmp_path / "caches")
    assert done.made_cache.startswith(f"{tmp_path}/caches/")
    assert run(model, data, tmp_path / "two", cache=str(tmp_path / "caches")).cache == done.made_cache
    assert run(model, data, tmp_path / "three", cache=False).cache is None
    assert not where(data).exists()
    data.close()


def test_datasets_that_share_a_named_folder_keep_their_caches(tmp_path):
    datasets = [cohort("MLP", in_memory=False) for _ in range(2)]
    made = [make_cache(data, model, tmp_path, progress="none").path for data, model in datasets]
    assert made[0] != made[1]
    for (data, model), path in zip(datasets, made, strict=True):
        found = make_cache(data, model, tmp_path, progress="none")
        assert (found.path, found.is_new) == (path, False)
        data.close()


def test_a_worker_in_another_working_directory_finds_the_cache(tmp_path, monkeypatch):
    data, model = cohort("MLP", in_memory=False)
    monkeypatch.chdir(tmp_path)
    make_cache(data, model, "caches", progress="none")
    place = with_cache(open_source(data, model), "caches").place
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    worker = CachedSource(data, model, None, place.folder, place)
    worker.stretch(0, 5)
    assert worker.read_from == place.path
    data.close()


def test_a_relative_dataset_has_an_absolute_folder_of_caches(tmp_path, monkeypatch):
    data, _ = cohort("MLP")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    data.path = "data"
    assert where(data) == tmp_path / "data" / "deeplift_fast_cache"


@pytest.mark.parametrize("wrong", [None, 1, "", "s3://bucket/caches", ["caches"]])
def test_other_places_are_refused(wrong, tmp_path):
    data, model = cohort("MLP")
    with pytest.raises(CohortError, match=r"cache is .*accepted: True"):
        run(model, data, tmp_path / "out", cache=wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["in memory", "batches", "loader"])
def test_what_cannot_be_cached_is_read_as_it_is(kind, tmp_path):
    data, model = cohort("MLP", in_memory=kind != "loader")
    given = list(get_dataloader(data, 4)) if kind == "batches" else data
    if kind == "loader":  # it yields the dataset in order
        assert run(model, get_dataloader(data, 4, shuffle=False), tmp_path / "out").made_cache
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheWarning)
        assert run(model, given, tmp_path / "out").made_cache is None
    with one_warning("the dataset is not cached"):
        run(model, given, tmp_path / "named", cache=tmp_path / "caches")
    assert not (tmp_path / "caches").exists()
    with pytest.raises(CohortError, match="the dataset cannot be cached"):
        make_cache(given, model)


def test_a_cache_is_made_once(made, monkeypatch):
    data, model, path = made
    before = path.stat().st_mtime_ns
    again = make_cache(data, model, progress="none")
    assert (again.path, again.samples, again.is_new) == (path, 23, False)
    assert path.stat().st_mtime_ns == before
    assert make_cache(data, model, progress="none", force=True).is_new
    damage(path)
    with one_warning("is damaged"):
        assert make_cache(data, model, progress="none").is_new
    with pytest.raises(CohortError, match="cache is False"):
        make_cache(data, model, False)


def test_a_cache_that_cannot_be_written_is_an_error_of_the_command_alone(tmp_path):
    data, model = cohort("MLP", in_memory=False)
    (tmp_path / "file").touch()
    with pytest.warns(CacheWarning, match="no cache is made"), pytest.raises(CacheError, match="no cache was made"):
        make_cache(data, model, tmp_path / "file", progress="none")
    with pytest.warns(CacheWarning, match="no cache is made"):
        assert run(model, data, tmp_path / "out", cache=tmp_path / "file").samples == 23
    data.close()


def test_a_cache_that_cannot_be_written_ends_the_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(making_caches, "PART_SAMPLES", 5)
    data, model = cohort("MLP", in_memory=False)
    (tmp_path / "file").touch()
    added = []
    monkeypatch.setattr(CacheWriter, "add", lambda self, stretch: added.append(stretch.end))
    with pytest.warns(CacheWarning, match="no cache is made"), pytest.raises(CacheError, match="no cache was made"):
        make_cache(data, model, tmp_path / "file", progress="none", read_ahead=0)
    data.close()
    assert added == [5]


def test_a_cluster_reads_the_cache(made, tmp_path, monkeypatch, one_thread):
    distributed = pytest.importorskip("distributed")
    data, model, path = made
    run(model, data, tmp_path / "one", cache=False)
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
    with cluster, distributed.Client(cluster) as client:
        with unread(monkeypatch):
            done = run(model, data, tmp_path / "cluster", client=client)
        assert done.cache == str(path)
        assert contents(tmp_path / "cluster") == contents(tmp_path / "one")
        assert manifest(tmp_path / "cluster")["read_from_cache"]
        path.unlink()
        done = run(model, data, tmp_path / "without", client=client)
        assert (done.cache, done.made_cache) == (None, None)
        assert contents(tmp_path / "without") == contents(tmp_path / "one")


def test_a_worker_that_does_not_see_the_cache_reads_the_dataset(made, tmp_path):
    data, model, _ = made
    place = with_cache(open_source(data, model), True).place
    elsewhere = CachedSource(data, model, None, tmp_path, CachePlace(tmp_path, place.identity))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = elsewhere.stretch(1, 5)
    assert_same_stretch(found, open_source(data, model).stretch(1, 5))
    assert elsewhere.read_from is None
    assert not list(tmp_path.iterdir())


def test_a_worker_receives_no_index_of_the_samples(tmp_path):
    distribute = pytest.importorskip("deeplift_fast.cohort.distribute")
    data, model = cohort("MLP", in_memory=False)
    assert len(data.patient_to_index) == 12
    settings = checked_settings(
        DeepLift(model),
        None,
        None,
        None,
        False,
        5,
        budget=None,
        memory=None,
        read_ahead=0,
        limit=None,
        interactions=None,
    )
    attributor = Attributor(DeepLift(model), settings)
    work = distribute.work_for(attributor, data, settings, open_store(tmp_path), "token", {})
    content = distribute._pickled(work)
    assert b"secret-" not in content
    found = pickle.loads(content)
    for received in (found.dataset, found.interpreter.model.dataset):
        assert received.patient_to_index == received.record_to_index == {}
    assert_same_stretch(open_source(found.dataset, model).stretch(0, 5), open_source(data, model).stretch(0, 5))
    assert len(data.patient_to_index) == 12
    np.testing.assert_array_equal(len(found.dataset), 23)
    data.close()
