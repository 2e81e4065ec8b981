"""A finished cohort."""

import shutil

import pytest
from cohort_cases import cohort, run


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
