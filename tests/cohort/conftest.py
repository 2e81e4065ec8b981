"""A finished cohort, and a folder whose lock is a file."""

import shutil
import warnings

import pytest
from cohort_cases import cohort, run
from lock_cases import without_locks

from deeplift_fast.cohort import lock
from deeplift_fast.cohort.store import LocalStore, open_store
from deeplift_fast.errors import CohortWarning


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished cohort: data, model, folder."""
    data, model = cohort()
    out = tmp_path_factory.mktemp("whole") / "out"
    run(model, data, out)
    return data, model, out


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole[2], tmp_path / "out")
    return whole[0], whole[1], tmp_path / "out"


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path, monkeypatch):
    """A folder whose lock is a file, which settles soon."""
    monkeypatch.setattr(lock, "SETTLE", 0.2)
    if request.param == "local":
        without_locks(monkeypatch)
        found = LocalStore(tmp_path / "out")
    else:
        found = open_store(f"memory://{tmp_path.name}")
    found.make("attributions", "samples")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CohortWarning)
        yield found
