"""The examples run as they stand."""

import sys
from pathlib import Path

import pytest
from processes import run

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SLOW = {"cohort_dask", "cohort_recipe"}  # workers import PyHealth; PyHealth reads a hospital's tables


def marked(path):
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])


@pytest.mark.parametrize("example", [marked(path) for path in EXAMPLES])
def test_runs(example, tmp_path):
    done = run([sys.executable, example], limit=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
