import shutil

import patient_cases as cases
import pytest
from cohort_folders import add_pairs

from deeplift_fast.report.patient import page


@pytest.fixture
def patient_page(monkeypatch):
    """`patient_page`, with titles made up."""
    monkeypatch.setattr(page, "_titles", lambda root: cases.Named())
    return page.patient_page


@pytest.fixture(scope="package")
def five(tmp_path_factory):
    """A cohort whose first patient has 5 stays and 40 codes, and whose second has 2."""
    return cases.folder(tmp_path_factory.mktemp("five") / "out", cases.record(), cases.record(2, seed=1))


@pytest.fixture(scope="package")
def fifty(tmp_path_factory):
    """A cohort whose first patient has 50 stays of 12 steps."""
    return cases.folder(tmp_path_factory.mktemp("fifty") / "out", cases.record(50, 10, 12, seed=3))


@pytest.fixture(scope="package")
def one(tmp_path_factory):
    """A cohort whose first patient has one stay; its samples came without metadata."""
    rows, _ = cases.record(1, 6, 5, seed=5)
    return cases.folder(tmp_path_factory.mktemp("one") / "out", (cases.plain(rows), None))


@pytest.fixture(scope="package")
def acting(five, tmp_path_factory):
    """The cohort `five`, with pairs of three codes of the first patient."""
    out = shutil.copytree(five, tmp_path_factory.mktemp("acting") / "out")
    return add_pairs(out, cases.pairs({("Z515", "J9601"): 0.2, ("A419", "Z515"): 0.1, ("A419", "J9601"): -0.09}))
