"""A cohort's page: its numbers, what it leaves out, and what it must never hold."""

import re

import cohort_folders as cohorts
import numpy as np
import page_checks
import pandas as pd
import pytest

from deeplift_fast.report import SummaryError, cohort_page, patient_pages, summarise
from deeplift_fast.report import summary as summary_module
from deeplift_fast.report.cohort import page as module
from deeplift_fast.report.cohort.patients import highest
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouping import read_grouping


@pytest.fixture(scope="module")
def drawn():
    found, rows = cohorts.draw(samples=80, patients=40)
    odd = {"0040": "<script>alert(1)</script>", "10_E119": '"onload="alert(1)', "4019": "\u202egnisrever" + "x" * 9_000}
    return found, rows.assign(code=rows["code"].replace(odd))


@pytest.fixture(scope="module")
def out(tmp_path_factory, drawn):
    failures = [(80, 3, "NaN in labs"), *((81 + n, 3, "empty sequence") for n in range(12))]
    folder = tmp_path_factory.mktemp("cohort") / "out"
    return cohorts.write(folder, *drawn, failures=failures, in_all=9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, drawn):
    """The same without failures."""
    return cohorts.write(tmp_path_factory.mktemp("cohort") / "out", *drawn)


def test_numbers_are_those_of_the_summary(out):
    shown = page_checks.check(cohort_page(out)).shown
    cohort = summarise(out).cohort
    row = cohort.table.query("code == 'I10'").iloc[0]
    for part in (
        "80 samples of ",
        f"{cohort.patients} patients: what",
        "13 samples could not be attributed. 5 of 9 parts are missing: the run is not finished.",
        "empty sequence12",
        "NaN in labs1",
        "Essential (primary) hypertension I10, icd_codes",
        f"{row['samples']} {row['patients']} patients",
        f"{row['mean']:+.2f}".replace("-", "−"),
        f"{row['low']:+.2f} … {row['high']:+.2f}".replace("-", "−"),
        "Labs and other values by label",
        "not what causes the outcome",
    ):
        assert part in shown, part
    complete = round(cohort.completeness.complete * 80)
    assert f"{complete} of 80 samples" in shown
    assert (out / "summary.parquet").exists()


def test_names_from_data_are_text(out):
    text = cohort_page(out)
    parsed = page_checks.check(text)
    assert "<script>alert(1)</script>" in parsed.shown
    assert '"onload="alert(1)' in parsed.shown
    assert r"\u202egnisrever" in parsed.shown
    assert "\u202e" not in text
    assert "x" * 200 not in text


def test_a_pseudonymous_page_names_nobody_and_drops_what_few_patients_have(tmp_path, drawn):
    found, rows = (table.copy() for table in drawn)
    first = found["patient_id"].unique()[:9]
    rare = rows["patient_id"].isin(first) & (rows["feature"] == "icd_codes")
    rows.loc[rare, "code"] = "rare-code"
    assert rows[rare]["sample"].nunique() >= 10
    out = cohorts.write(tmp_path / "out", found, rows)
    (tmp_path / "w.csv").write_text(
        "patient_id,ward\n"
        + "".join(f"{each},{'small' if each in first else 'large'}\n" for each in set(found.patient_id))
    )
    by = [read_grouping(f"{tmp_path}/w.csv:ward")]
    links = patient_pages(out, tmp_path / "page.html", 3, pseudonymous=True)
    text = cohort_page(out, pseudonymous=True, by=by, links=links)
    shown = page_checks.check(text).shown
    assert "rare-code" in cohort_page(out, by=by)
    assert "rare-code" not in text
    assert "ward large" in shown
    assert "ward small" not in shown
    assert "pseudonymous patient data" in shown
    pages = [path.read_text() for path in (tmp_path / "page-patients").iterdir()]
    assert sorted(path.name for path in (tmp_path / "page-patients").iterdir())[0] == "patient-0001.html"
    for content in (text, *pages):
        for identifier in {*found["patient_id"], *found["visit_id"]}:
            assert f"{identifier}<" not in content
            assert f"{identifier} " not in content


def test_a_pseudonymous_page_tells_no_small_number_of_failures(out):
    shown = page_checks.check(cohort_page(out, pseudonymous=True)).shown
    assert "empty sequence12" in shown
    assert "NaN in labs" not in shown
    assert "1 other reasonfewer than 10 each" in shown


def test_groups_of_a_file(out, drawn, tmp_path):
    found, rows = drawn
    patients = found["patient_id"].unique()
    ward = {each: "A" if n % 2 else "B" for n, each in enumerate(patients)}
    pd.DataFrame(ward.items(), columns=["patient_id", "ward"]).to_csv(tmp_path / "w.csv", index=False)
    shown = page_checks.check(cohort_page(out, by=[read_grouping(f"{tmp_path}/w.csv:ward")])).shown
    assert "Codes by ward" in shown
    sums = rows[rows["code"] == "I10"].groupby(["sample", "patient_id"])["attribution"].sum().reset_index()
    mean = sums[sums["patient_id"].map(ward) == "A"]["attribution"].mean()
    assert f"{mean:+.3f}".replace("-", "−") in shown


def test_several_targets_have_a_table_each(tmp_path, drawn):
    found, rows = drawn
    out = cohorts.write(tmp_path / "out", found.assign(target=found["sample"] % 2), rows)
    shown = page_checks.check(cohort_page(out)).shown
    assert "Codes, target 0" in shown
    assert "Codes by label, target 1" in shown


@pytest.mark.parametrize("parts", [[], [0]])
def test_a_cohort_of_nothing_or_little(tmp_path, drawn, parts):
    out = cohorts.write(tmp_path / "out", *drawn, parts=parts)
    shown = page_checks.check(cohort_page(out, pseudonymous=True)).shown
    assert ("No sample is attributed yet." in shown) == (not parts)
    assert "parts are missing" in shown


def test_without_probabilities_labels_or_patients(tmp_path, drawn):
    found, rows = (table.assign(patient_id=None) for table in drawn)
    out = cohorts.write(tmp_path / "out", found.assign(probability=np.nan, label=np.nan), rows)
    assert highest(CohortFolder(out), 80)["rank"].is_monotonic_decreasing
    order = found["output"].abs().sort_values(ascending=False, kind="stable").index
    assert highest(CohortFolder(out), 7)["sample"].tolist() == order[:7].tolist()
    page_checks.check(cohort_page(out, links=patient_pages(out, tmp_path / "page.html", 2)))


def test_pages_of_the_highest_are_beside_it_and_private(tmp_path, whole, drawn):
    links = patient_pages(whole, tmp_path / "my page.html", 3)
    text = cohort_page(whole, links=links)
    order = drawn[0].sort_values(["probability", "sample"], ascending=[False, True])["sample"]
    names = [f"sample-{number}.html" for number in order[:3]]
    assert [link.href for link in links] == [f"my%20page-patients/{name}" for name in names]
    folder = tmp_path / "my page-patients"
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert all(f'href="{link.href}"' in text for link in links)
    with pytest.raises(SummaryError, match="exists; give another path, or replace it with --force"):
        patient_pages(whole, tmp_path / "my page.html", 3)
    assert patient_pages(whole, tmp_path / "my page.html", 3, force=True) == links


@pytest.mark.parametrize("count", [0, 1001])
def test_a_wrong_number_of_pages_is_refused(tmp_path, out, count):
    with pytest.raises(SummaryError, match="accepted: from 1 to 1000"):
        patient_pages(out, tmp_path / "page.html", count)


def test_a_page_is_of_one_state_of_the_cohort(tmp_path, drawn, monkeypatch):
    found, rows = drawn
    before = cohorts.write(tmp_path / "before", found, rows)
    after = cohorts.write(tmp_path / "after", found, rows.assign(attribution=-rows["attribution"]))
    totals = summary_module.Totals
    left = [None]

    def replacing(folder):
        if left:
            left.pop()
            for path in (each for each in after.rglob("*.*") if each.name != "summary.parquet"):
                (before / path.relative_to(after)).write_bytes(path.read_bytes())
        return totals(folder)

    monkeypatch.setattr(summary_module, "Totals", replacing)
    text = cohort_page(before)
    assert left == []
    assert text == cohort_page(after)


def hostile(folder, codes, samples, targets, **options):
    """A cohort of codes of long names, each of which every sample has."""
    found, _ = cohorts.draw(samples=samples, patients=samples)
    names = np.array([f"{n:05}" + '<"&\u202e' * 40 for n in range(codes)], object)
    number = np.repeat(np.arange(samples), codes)
    rows = pd.DataFrame({"sample": number, "code": np.tile(names, samples), "feature": "icd_codes" * 30})
    rows = rows.assign(step=0, slot=0, value=np.nan, time=np.nan, patient_id=None, visit_id=None)
    rows["attribution"] = np.random.default_rng(0).normal(size=len(rows))
    found = found.assign(target=found["sample"] % targets, label=found["sample"] // targets % 2)
    return cohorts.write(folder, found, rows, part_samples=samples, **options)


def test_of_many_codes_the_largest_are_shown(tmp_path):
    out = hostile(tmp_path / "out", 600, 10, 1)
    text = cohort_page(out)
    assert len(text.encode()) <= module.MOST_BYTES == 2_000_000
    assert "The 100 with the largest mean |contribution| of 600." in page_checks.check(text).shown


def test_many_targets_groups_and_failures_leave_the_page_small_and_it_says_so(tmp_path, monkeypatch):
    failures = [(200 + n, 0, f"reason {n}" + "<" * 900) for n in range(60)]
    out = hostile(tmp_path / "out", 60, 200, 5, failures=failures)
    wards = "".join(f"visit-{n},{'<' * 90}{n // 10 % 2}\n" for n in range(200))
    (tmp_path / "w.csv").write_text(f"visit_id,{'<' * 300}\n{wards}")
    by = [read_grouping(f"{tmp_path}/w.csv:{'<' * 300}")]
    whole = cohort_page(out, by=by)
    assert len(whole.encode()) <= module.MOST_BYTES
    monkeypatch.setattr(module, "MOST_BYTES", len(whole.encode()) // 2)
    text = cohort_page(out, by=by)
    assert len(text.encode()) <= module.MOST_BYTES
    shown = page_checks.check(text).shown
    assert re.search(r"To stay within [\d.]+ MB, this page shows 100 of 300 rows, those with the largest mean", shown)
    assert "20 further reasons20" in shown


def test_a_page_that_is_too_large_at_its_smallest_is_refused(out, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 5_000)
    with pytest.raises(SummaryError, match=r"would have [\d,]+ bytes at its smallest; accepted: at most 5,000; give"):
        cohort_page(out)


def test_a_page_that_would_be_too_large_shows_less(out, monkeypatch):
    whole = cohort_page(out)
    monkeypatch.setattr(module, "MOST_BYTES", len(whole.encode()) - 1)
    monkeypatch.setattr(module, "_SIZES", (module.Size(300, 400, 40), module.Size(300, 20, 40)))
    less = cohort_page(out)
    assert len(less) < len(whole)
    assert "At most 20 samples of a row are drawn" in page_checks.check(less).shown
    assert "To stay within" in less
    assert "To stay within" not in whole
