"""A summary on a terminal and in files."""

import csv
import dataclasses
import io
import json
import os
import stat
import threading
from pathlib import Path

import cohort_folders as cohorts
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len
from rich.console import Console

from deeplift_fast.cohort import failures, lock, manifest
from deeplift_fast.cohort.about import metadata_of
from deeplift_fast.report import SummaryError, cohort_table, private_file, summarise
from deeplift_fast.report.files import SCHEMA, write_csv, write_json, write_parquet
from deeplift_fast.report.grouping import read_grouping
from deeplift_fast.report.show import show
from deeplift_fast.report.summary import SPECIAL
from deeplift_fast.support.printable import printable


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    root = tmp_path_factory.mktemp("mimic")
    (root / "hosp").mkdir()
    (root / "hosp/d_icd_diagnoses.csv").write_text(
        "icd_code,icd_version,long_title\nI10,10,Essential [primary] hypertension\nE119,10,Diabetes\n"
        "4019,9,Hypertension\n4019,10,Something else\n"
    )
    failures = [(60, 2, "NaN in labs")]
    out = cohorts.write(tmp_path_factory.mktemp("cohort") / "out", *cohorts.draw(), failures=failures, in_all=9)
    return summarise(out, mimic_root=root)


def shown(summary, width=80, **options):
    text = io.StringIO()
    show(summary, Console(file=text, width=width), **options)
    return text.getvalue()


def unwrapped(text):
    return " ".join(text.split())


def test_the_tables_say_it_all_and_name_no_patient(summary):
    text = shown(summary, width=400)
    row = summary.table.query("group == 'all' and code == 'I10'").iloc[0]
    for part in (
        "relative to        unk",
        "3 of 9 (not finished)",
        "60 attributed, 1 failed",
        "1 failed         NaN in labs",
        f"{summary.completeness.complete:.1%} of samples",
        f"Σ|a| / |change|    median {summary.completeness.median_cancellation:.3g}, 90th percentile "
        f"{summary.completeness.p90_cancellation:.3g}",
        "attributions of both signs cancel",
        "Codes: the first",
        "Codes, label = 1: the first",
        "Labs and other values: the first",
        "dimension 2",
        "Essential [primary] hypertension",
        "(?) ICD-9 diagnosis: Hypertension / ICD-10 diagnosis: Something else",
        "2 of 5 codes have no description",
        "1 code(s) fit several dictionary entries",
        f"{row['low']:+.3g} … {row['high']:+.3g}",
    ):
        assert part in text, part
    assert "patient-" not in text
    assert "visit-" not in text


DIFFERS = {"samples": 1600, "differing": 1200, "logit": 0.21913, "probability": 0.0546, "failure": ""}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "by up to 0.219 in logit and 0.0546 in probability, for 1,200 of 1,600 samples compared (docs/models.md)"),
        ({"probability": None}, "by up to 0.219 in logit, for"),
        ({"logit": None}, "by an output that is not finite and 0.0546 in probability, for 1,200"),
        ({"differing": 0, "samples": 0, "logit": None, "failure": "KeyError\x1b"}, r"fails (KeyError\x1b), so the"),
    ],
)
def test_how_far_the_model_says_something_else_is_one_line(summary, tmp_path, change, expected):
    differs = dataclasses.replace(summary, prediction_difference=DIFFERS | change)
    (line,) = [line for line in shown(differs, width=400).splitlines() if "model(**batch)" in line]
    assert expected in line
    assert unwrapped(expected) in unwrapped(shown(differs, width=60))
    write_json(differs, tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["prediction_difference"] == DIFFERS | change


def test_where_the_model_says_the_same_there_is_no_such_line(summary):
    for same in (None, DIFFERS | {"differing": 0, "logit": 1e-7}):
        assert "model(**batch)" not in shown(dataclasses.replace(summary, prediction_difference=same))


HOSTILE_TITLES = {
    "long": "and so on " * 20 + "end",
    "10 kB": "x" * 10_000,
    "control": "\x1b[2J\x07\r\n" * 30,
    "right to left": "\u202etxet\u202c " * 30,
    "wide": "高血圧症" * 50,
    "accents": "e" + "\u0301" * 10_000,
    "signs": "❤\ufe0f" * 200,
}


@pytest.mark.parametrize("title", HOSTILE_TITLES.values(), ids=HOSTILE_TITLES)
@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("terminal", [False, True])
def test_numbers_are_whole_whatever_the_titles(summary, title, width, terminal):
    table = summary.table.assign(description=summary.table["description"].map(lambda text: text and f"{text} {title}"))
    table.loc[table["code"] == "E119", "count"] = 1_234_567_890
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    show(dataclasses.replace(summary, table=table), console)
    lines = file.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    assert all(line.isprintable() for line in lines)
    text = unwrapped(file.getvalue())
    for row in table[table["group"] == "all"].itertuples():
        numbers = f"{row.count:,} {row.samples:,} {row.mean:+.3g} {row.low:+.3g} … {row.high:+.3g} {row.mean_abs:.3g}"
        assert row.samples < 10 or row.code in SPECIAL or numbers in text, row
    assert "Essential [primary] hypertension" in text
    assert len(lines) < 150


def test_a_title_follows_on_lines_of_its_own_and_a_cut_one_says_so(summary):
    lines = shown(summary).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("I10 "))
    assert lines[at + 1] == "    Essential [primary] hypertension"
    longer = summary.table["description"].map(lambda text: text and "many words " * 40 + "end")
    cut = shown(dataclasses.replace(summary, table=summary.table.assign(description=longer))).splitlines()
    assert "end" not in "".join(cut)
    assert [line for line in cut if line.startswith("    ") and "many" in line][2].endswith("…")


def test_units_and_ranges_follow_too(summary):
    about = {"description": "Sodium", "unit": "mEq/L", "mixed": True, "ref_low": 133.0, "ref_high": 145.0}
    table = summary.table.copy()
    table.loc[table["code"] == "dimension 2", list(about)] = list(about.values())
    assert "    Sodium, mostly mEq/L, reference 133–145\n" in shown(dataclasses.replace(summary, table=table))


def test_a_column_that_is_the_same_in_each_row_is_said_once(summary):
    lines = shown(summary).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("Codes: the first"))
    assert lines[at + 1] == "each row: feature icd_codes"
    assert unwrapped(lines[at + 2]) == "code count samples mean 95 % interval mean |a| positive"
    same = dataclasses.replace(summary, table=summary.table.assign(count=1_000_000, low=np.nan, high=np.nan))
    lines = unwrapped(shown(same))
    assert "each row: feature icd_codes, count 1,000,000, 95 % interval too few patients code samples mean" in lines


def test_many_labels_each_have_their_tables(summary):
    rows = summary.table[summary.table["group"] == "all"]
    tables = [rows.assign(grouping="label", group=f"{number} {'0123456789' * 20}") for number in range(30)]
    text = shown(dataclasses.replace(summary, table=pd.concat(tables)), width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("Essential") == 30


def test_few_samples_are_not_shown(summary):
    assert "Codes, label = 0: none is carried by 1000 samples or more" in shown(summary, min_samples=1000)
    assert "--min-samples sets this number" in unwrapped(shown(summary, min_samples=1000))
    assert "I10" not in shown(summary, min_samples=1000)


@pytest.mark.parametrize(
    "name", ["manifest.json", "failures.parquet", "samples/part-000000.parquet", "attributions/new.csv"]
)
@pytest.mark.parametrize("write", [write_csv, write_parquet, write_json])
def test_files_of_the_cohort_are_not_written_over(summary, tmp_path, name, write):
    path = Path(summary.out, name)
    (tmp_path / "link").symlink_to(path)
    before = path.read_bytes() if path.exists() else None
    for given in (path, tmp_path / "link"):
        with pytest.raises(SummaryError, match="belongs to the cohort"):
            write(summary, given)
    assert before == (path.read_bytes() if path.exists() else None)


def test_the_cohorts_files_are_those_that_a_run_or_a_summary_writes():
    assert {manifest.NAME, *manifest.ALL_FOLDERS, failures.NAME, lock.NAME, cohort_table.NAME} == private_file.OWN


def test_a_file_beside_the_cohorts_is_written(summary):
    path = Path(summary.out, "summary.csv")
    write_csv(summary, path)
    assert path.read_text().startswith('"grouping"')
    path.unlink()


def test_the_files_hold_the_whole_table(summary, tmp_path):
    write_csv(summary, tmp_path / "t.csv")
    write_parquet(summary, tmp_path / "t.parquet")
    write_json(summary, tmp_path / "t.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.json", "t.parquet"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert pq.read_schema(tmp_path / "t.parquet").names == SCHEMA.names
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["completeness"]["failures"] == {"NaN in labs": 1}
    assert content["completeness"]["parts_in_all"] == 9
    tables = [pd.read_csv(tmp_path / "t.csv"), pd.read_parquet(tmp_path / "t.parquet"), pd.DataFrame(content["table"])]
    for table in tables:
        assert len(table) == len(summary.table)
        for name in ("mean", "low", "count"):
            np.testing.assert_allclose(table[name].astype(float), summary.table[name].astype(float), rtol=1e-12)
        assert table["description"].isna().sum() == summary.table["description"].isna().sum()
    assert content["about"] == summary.about
    metadata = pq.read_schema(tmp_path / "t.parquet").metadata
    assert all(metadata[key.encode()].decode() == value for key, value in metadata_of(summary.about).items())
    assert content["baseline"] == summary.baseline == "unk"
    assert set(tables[0]["baseline"]) == set(tables[1]["baseline"]) == {"unk"}


def test_a_path_that_cannot_be_written_is_named(summary, tmp_path):
    with pytest.raises(SummaryError, match=r"nowhere/t\.csv cannot be written"):
        write_csv(summary, tmp_path / "nowhere" / "t.csv")
    (tmp_path / "file").write_text("")
    for path in (tmp_path, Path(""), tmp_path / "file" / "t.csv", tmp_path / ("x" * 300)):
        with pytest.raises(SummaryError, match=r"cannot be written \(.*\); give another path"):
            write_csv(summary, path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [write_csv, write_parquet, write_json])
def test_what_is_no_file_is_written_to_and_not_replaced(summary, tmp_path, write):
    write(summary, tmp_path / "t")
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write(summary, tmp_path / "pipe")
    reader.join()
    assert read == [(tmp_path / "t").read_bytes()]
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").write_text("")
    write(summary, tmp_path / "link")
    assert (tmp_path / "target").read_bytes() == read[0]
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


NAMES = ["\x1b[2JI10", "\u202egnp.E11", "=1+1", " @SUM(A1)", "-2", ":heart: [bold]x[/]\\", "a\nb", "I10"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A summary whose code names, feature, failures, rule set and groups are what an attacker chose."""
    found, rows = cohorts.draw()
    rows = rows.assign(code=np.resize(NAMES, len(rows)), feature="=feature\x07", value=None)
    failures = [(60, 2, "=reason\x1b]0;title\x07")]
    out = cohorts.write(tmp_path_factory.mktemp("cohort") / "out", found, rows, failures=failures, rules="\x9bm")
    wards = out.parent / "wards.csv"
    wards.write_text("patient_id,=ward\x1b\n" + "".join(f"patient-{n},+north\u2067\n" for n in range(25)))
    return summarise(out, by=[read_grouping(f"{wards}:=ward\x1b")])


@pytest.mark.parametrize("terminal", [False, True])
def test_no_text_from_data_steers_a_terminal(hostile, terminal):
    text = io.StringIO()
    show(hostile, Console(file=text, force_terminal=terminal, color_system=None, width=300), min_samples=1)
    assert {letter for letter in text.getvalue() if not letter.isprintable()} == {"\n"}
    for name in (*NAMES, "=feature\x07", "=reason\x1b]0;title\x07", "=ward\x1b = +north\u2067"):
        assert printable(name) in text.getvalue(), name


def test_no_text_from_data_is_a_formula_in_a_spreadsheet(hostile, tmp_path):
    write_csv(hostile, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = ("grouping", "group", "feature", "code", "kind", "description")
    cells = {row[name] for row in rows for name in texts}
    assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@")) or not cell.isprintable()]
    assert {"'=1+1", "' @SUM(A1)", "'-2", "'=feature\\x07", "'+north\\u2067", "I10"} <= cells
    assert min(float(row["mean"]) for row in rows) < 0  # numbers stay numbers


def test_other_files_hold_texts_as_they_are(hostile, tmp_path):
    write_parquet(hostile, tmp_path / "t.parquet")
    assert set(pd.read_parquet(tmp_path / "t.parquet")["code"]) == set(NAMES)
    write_json(hostile, tmp_path / "t.json")
    assert {row["code"] for row in json.loads((tmp_path / "t.json").read_text())["table"]} == set(NAMES)


@pytest.mark.parametrize("write", [write_csv, write_parquet, write_json])
def test_nothing_that_others_planted_beside_a_file_is_written_through(summary, tmp_path, write):
    (tmp_path / "victim").write_text("the user's own")
    (tmp_path / ".t.part").symlink_to("victim")
    (tmp_path / "t").write_text("an earlier one")
    (tmp_path / "t").chmod(0o666)
    write(summary, tmp_path / "t")
    assert (tmp_path / "victim").read_text() == "the user's own"
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [".t.part", "t", "victim"]


def test_a_link_of_another_user_is_not_followed(summary, tmp_path, monkeypatch):
    (tmp_path / "target").write_text("the user's own")
    (tmp_path / "t").symlink_to("target")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(private_file, "ROOT", 54321)
    with pytest.raises(SummaryError, match="is a link of another user, which is not followed"):
        write_csv(summary, tmp_path / "t")
    assert (tmp_path / "target").read_text() == "the user's own"


def test_the_home_folder_may_be_named_by_a_tilde(summary, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_csv(summary, Path("~/t.csv"))
    assert (tmp_path / "t.csv").exists()
    (tmp_path / "out").symlink_to(summary.out)
    assert summarise("~/out").completeness == summary.completeness
    (tmp_path / "w.csv").write_text("patient_id,a\nx,1\n")
    assert read_grouping("~/w.csv:a").groups


def test_an_empty_cohort_has_no_numbers(tmp_path):
    summary = summarise(cohorts.write(tmp_path / "out", *cohorts.draw(), parts=[]))
    assert "0 of 3 (not finished)" in shown(summary)
    write_json(summary, tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["completeness"]["median_delta"] is None
