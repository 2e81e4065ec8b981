"""The pairs of a cohort's page."""

import cohort_folders as cohorts
import page_checks
import pytest

from deeplift_fast.report import cohort_page, summarise
from deeplift_fast.report.cohort.lines import FEWEST
from deeplift_fast.report.cohort.pairs import TOP, pair_tables
from deeplift_fast.report.titles import Titles


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    found, rows = cohorts.draw(samples=150, patients=60)
    folder = cohorts.write(tmp_path_factory.mktemp("cohort") / "out", found, rows)
    return cohorts.add_pairs(folder, cohorts.pairs(rows))


@pytest.fixture(scope="module")
def pairs(out):
    return summarise(out).pairs


def test_numbers_are_those_of_the_summary(out, pairs):
    shown = page_checks.check(cohort_page(out)).shown
    assert "Codes that act together" in shown
    known = pairs[(pairs["grouping"] == "overall") & (pairs["samples"] >= FEWEST)]
    row = known[(known["first_code"] == "10_E119") & (known["second_code"] == "I10")].iloc[0]
    mean, low, high = (f"{row[name]:+.3f}".replace("-", "−") for name in ("mean", "low", "high"))
    said = (
        "Type 2 diabetes mellitus without complications 10_E119, icd_codes with Essential (primary) hypertension I10, "
        f"icd_codes{row['samples']} {row['patients']} patients"
    )
    assert said in shown
    assert f"{'▲' if row['mean'] > 0 else '▼'} {mean} {low} … {high}" in shown


def test_the_strongest_of_enough_samples_and_patients_are_shown(pairs):
    (table,) = pair_tables(pairs, Titles.packaged(), 30)
    known = pairs[(pairs["grouping"] == "overall") & (pairs["samples"] >= FEWEST) & (pairs["patients"] >= 30)]
    known = known[~known["first_code"].isin(["<unk>"]) & ~known["second_code"].isin(["<unk>"])]
    assert 0 < len(known) < 10
    assert [line.mean[0] for line in table.lines] == known["mean"].head(TOP).tolist()
    assert table.target == ""


def test_targets_have_tables_of_their_own(pairs):
    several = pairs[pairs["grouping"] != "overall"].replace({"grouping": {"label": "target"}})
    assert [table.target for table in pair_tables(several, Titles.packaged(), 1)] == ["0", "1"]


def test_where_few_have_each_pair_the_page_says_so(pairs):
    assert pair_tables(pairs, Titles.packaged(), 10_000) == ()
    assert pair_tables(None, Titles.packaged(), 1) is None


def test_a_cohort_without_interactions_does_not_speak_of_them(tmp_path):
    out = cohorts.write(tmp_path / "out", *cohorts.draw(samples=20))
    assert "act together" not in page_checks.check(cohort_page(out)).shown
