"""The folder of a cache, and what its dataset must agree with."""

import os
import pickle
import stat

import pytest
from cache_cases import source_of
from cohort_cases import cohort
from pyhealth.models import MLP

from deeplift_fast.cohort.cache import identity_of, where
from deeplift_fast.cohort.cache.identity import file_name, make_folder


@pytest.fixture(scope="module")
def on_disk():
    data, model = cohort("MLP", in_memory=False)
    yield data, model
    data.close()


def of(data, model):
    return identity_of(data, source_of(data, model).identity())


def test_it_depends_on_the_dataset_and_not_on_the_model(on_disk):
    data, model = on_disk
    other = MLP(data, embedding_dim=4, hidden_dim=4)
    assert of(data, other) == of(data, model) == of(pickle.loads(pickle.dumps(data)), model)
    few = data.subset([0, 1, 2])
    assert of(few, model) != of(data, model)
    assert of(few, model)["files"] == of(data, model)["files"]


def test_samples_in_memory_have_one_as_well():
    data, model = cohort("MLP")
    assert of(data, model)["files"] == of(data, model)["selection"] == "none"
    others, model = cohort("MLP", count=22)
    assert of(data, model) != of(others, model)


def test_a_cache_lies_beside_the_datasets_own_files(on_disk, monkeypatch, tmp_path):
    data, _ = on_disk
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert where(data) == type(where(data))(data.path) / "deeplift_fast_cache"


@pytest.mark.parametrize("obstacle", ["no rights", "a link", "a file"])
def test_or_in_the_users_own_folder(tmp_path, monkeypatch, obstacle):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    data, _ = cohort("MLP")
    path = tmp_path / "data"
    path.mkdir()
    data.path = str(path)
    if obstacle == "no rights":
        monkeypatch.setattr(os, "access", lambda place, rights: False)  # root has all rights
    elif obstacle == "a link":
        (path / "deeplift_fast_cache").symlink_to(tmp_path)
    else:
        (path / "deeplift_fast_cache").write_bytes(b"")
    found = where(data)
    assert found.parent == tmp_path / "home" / "deeplift_fast"
    data.path = str(tmp_path)
    monkeypatch.setattr(os, "access", lambda place, rights: False)
    assert where(data).parent == found.parent
    assert where(data) != found


@pytest.mark.parametrize("set_to", [None, "", "relative"])
def test_the_users_folder_is_in_the_home_folder_by_default(tmp_path, monkeypatch, set_to):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if set_to is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", set_to)
    data, _ = cohort("MLP")
    assert where(data).parent == tmp_path / ".cache" / "deeplift_fast"


def test_a_folder_is_made_for_its_owner_alone(tmp_path):
    make_folder(tmp_path / "one" / "two")
    make_folder(tmp_path / "one" / "two")
    assert stat.S_IMODE((tmp_path / "one" / "two").stat().st_mode) == 0o700


def test_names_tell_datasets_apart_and_not_their_states():
    identity = {"class": "a", "input_schema": {"x": "tensor"}, "output_schema": {}, "selection": "none", "files": "1"}
    assert file_name(identity) == file_name(identity | {"files": "2", "content": "other"})
    for key in ("class", "input_schema", "output_schema", "selection"):
        assert file_name(identity) != file_name(identity | {key: "other"})
