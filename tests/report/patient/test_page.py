import re
import subprocess
import sys
from dataclasses import replace

import page_checks
import pandas as pd
import patient_cases as cases
import plot_cases
import pytest

from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.page import TEMPLATES
from deeplift_fast.report.patient import page
from deeplift_fast.report.patient.page import MOST_BYTES
from deeplift_fast.report.titles import Title

SECTIONS = (
    "What moved the prediction most",
    "Timeline",
    "From the reference to the prediction",
    "Among the cohort",
    "How far to trust this page",
)


@pytest.mark.parametrize("name", ["five", "fifty", "one"])
@pytest.mark.parametrize("pseudonymous", [False, True])
def test_a_page_is_one_file_with_all_sections(patient_page, name, pseudonymous, request):
    text = patient_page(request.getfixturevalue(name), patient=cases.PATIENT, pseudonymous=pseudonymous)
    shown = page_checks.check(text).shown
    assert [part for part in SECTIONS if part in shown] == list(SECTIONS)
    assert "not what causes the outcome" in shown
    assert len(text.encode()) <= MOST_BYTES == 150_000
    assert re.sub(r"<(?:pre|textarea)", "", text) == text  # spaces mean nothing anywhere


def test_cells_are_focusable_and_have_labels(patient_page, five):
    parsed = page_checks.check(patient_page(five, sample=0))
    cells = [each for tag, each in parsed.elements if tag == "td" and "tabindex" in each]
    assert len(cells) > 50
    assert {each["tabindex"] for each in cells} == {"0"}  # a script leaves one, and arrows lead to the others
    for each in cells:
        row, column, own = each["aria-labelledby"].split()
        assert (row[0], column[0], own) == ("r", "c", each["id"])


def test_a_page_is_of_one_state_of_the_cohort(patient_page, tmp_path, monkeypatch):
    rows, stays = cases.record(2)
    before = cases.folder(tmp_path / "before", (rows, stays), others=2)
    after = cases.folder(tmp_path / "after", (rows.assign(attribution=-rows["attribution"]), stays), others=2)
    read, left = CohortFolder.rows_of, [None]

    def replacing(folder, *about):
        if left:  # between the sample and its rows
            left.pop()
            for path in after.rglob("*.*"):
                (before / path.relative_to(after)).write_bytes(path.read_bytes())
        return read(folder, *about)

    monkeypatch.setattr(CohortFolder, "rows_of", replacing)
    monkeypatch.setattr("deeplift_fast.report.consistent.PAUSE", 0.0)
    text = patient_page(before, sample=0)
    assert left == []
    assert text == patient_page(after, sample=0)


def test_the_waterfall_is_its_own_text(patient_page, five):
    shown = page_checks.check(patient_page(five, sample=0)).shown
    for text in ("Encounter for palliative care Z515, 2 times ▲ +0.3", "Reference −1.", "Prediction −0.4"):
        assert text in shown


@pytest.mark.parametrize("name", ["five", "fifty", "one"])
def test_a_pseudonymous_page_holds_no_identifier(patient_page, name, request, tmp_path):
    out = request.getfixturevalue(name)
    samples, rows = (pd.read_parquet(out / table) for table in ("samples", "attributions"))
    stays = [stay["label"] for each in samples["stays"].dropna() for stay in each]
    names = {*samples["patient_id"], *samples["visit_id"], *stays, *rows["stay"].dropna()}
    assert {cases.PATIENT, cases.VISIT} < names
    text = patient_page(out, patient=cases.PATIENT, pseudonymous=True)
    assert [each for each in names if each in text] == []
    assert str(tmp_path.parent) not in text
    assert str(out) not in text
    whole = patient_page(out, patient=cases.PATIENT)
    assert cases.PATIENT in whole
    assert cases.VISIT in whole


def test_a_pseudonymous_page_names_no_code_of_few_patients(patient_page, five):
    table = cases.cohort_table(five)
    own = set(pd.read_parquet(five / "attributions").query("sample == 0 and feature == 'conditions'")["code"])
    few = own & set(table.loc[table["patients"] < 10, "code"])
    assert few
    assert own - few
    shown = page_checks.check(patient_page(five, sample=0, pseudonymous=True)).shown
    for code in own:
        assert (cases.TITLES.get(code, code) in shown) == (code not in few), code
    assert f"{len(few)} rare codes" in shown
    assert "of few patients" not in shown


def test_days_of_a_pseudonymous_page_count_from_the_first(patient_page, tmp_path):
    rows, stays = cases.record()
    rows["day"] += 20_000
    stays = [each | {"begin": each["begin"] + 20_000} for each in stays]
    out = cases.folder(tmp_path / "out", (rows, stays))
    assert "day 20,000" in patient_page(out, sample=0)
    text = patient_page(out, sample=0, pseudonymous=True)
    assert "20,0" not in text
    assert "day 0" in text


@pytest.mark.parametrize("hostile", plot_cases.HOSTILE)
def test_hostile_names_are_text(patient_page, hostile, tmp_path, monkeypatch):
    rows, stays = cases.record(2)
    rows["code"] = rows["code"].replace({"Sodium": hostile or "Sodium"})
    rows["stay"] = rows["stay"].replace({"secret-stay-1": hostile or "x"})
    stays[1]["label"] = hostile or "x"
    out = cases.folder(tmp_path / "out", (rows, stays), others=2, patient=hostile or "x", baseline=f"typical {hostile}")
    plain_tags = [tag for tag, _ in page_checks.check(patient_page(out, sample=0)).elements]

    class Hostile(cases.Named):
        def find(self, feature, code):
            return Title(hostile) if feature == "conditions" else super().find(feature, code)

    monkeypatch.setattr(page, "_titles", lambda root: Hostile())
    text = patient_page(out, sample=0)
    parsed = page_checks.check(text)
    assert {tag for tag, _ in parsed.elements} <= set(plain_tags)
    assert all(letter == "\n" or letter.isprintable() or letter == "\xa0" for letter in text)
    assert "x" * 500 not in text


def test_a_page_that_would_be_large_shows_fewer_steps(patient_page, fifty, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 90_000)
    text = patient_page(fifty, sample=0)
    assert len(text.encode()) <= 90_000
    assert "steps within the columns are left out" in page_checks.check(text).shown


def test_names_of_150_letters_leave_the_page_small(patient_page, fifty, monkeypatch):
    class Long(cases.Named):
        def find(self, feature, code):
            found = super().find(feature, code)
            return replace(found or Title(code), text=f"{code} {'<' * 150}")

    monkeypatch.setattr(page, "_titles", lambda root: Long())
    assert len(patient_page(fifty, sample=0).encode()) <= MOST_BYTES


def test_without_jinja2_the_extra_is_named():
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from deeplift_fast.report.page import render\n"
        "try:\n    render('patient')\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'pages need jinja2: pip install "deeplift_fast[report]"'


def test_templates_quote_every_attribute():
    for path in TEMPLATES.glob("*.html"):
        assert not re.search(r"=\{\{", path.read_text()), path
        assert "| safe" not in path.read_text(), path
