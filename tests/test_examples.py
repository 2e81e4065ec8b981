"""The examples and the README's quick start run as they stand."""

import re
import sys
from pathlib import Path

import pytest
from processes import run

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SLOW = {"cohort_dask", "cohort_recipe"}  # workers import PyHealth; PyHealth reads a hospital's tables


def marked(path):
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])


@pytest.mark.parametrize("example", [marked(path) for path in EXAMPLES])
def test_runs(example, tmp_path):
    done = run([sys.executable, example], limit=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_quick_start_of_the_readme_runs(tmp_path):
    code = re.search(r"## Quick start\n+```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    done = run([sys.executable, "-c", code], limit=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tensor" in done.stdout
