import itertools
import json
import shutil
import tracemalloc

import cohort_folders as cohorts
import fsspec
import numpy as np
import pandas as pd
import pytest

from deeplift_fast.cohort.about import about_of
from deeplift_fast.report import SummaryError, consistent, summarise
from deeplift_fast.report import summary as report
from deeplift_fast.report.bootstrap import hash_texts, weights
from deeplift_fast.report.grouping import EMPTY, UNLISTED, read_grouping

NUMBERS = ["count", "samples", "mean", "mean_abs", "share_positive"]


def naive(found, rows, grouping="overall", group=None):
    """The table of one grouping by pandas, all at once; `group` gives each sample's."""
    group = pd.Series("all", index=found["sample"]) if group is None else group
    rows = rows.assign(
        group=rows["sample"].map(group), size=rows["attribution"].abs(), positive=rows["attribution"] > 0
    )
    valued = rows.groupby("feature")["value"].transform(lambda values: values.notna().any())
    rows = rows[rows["value"].notna() | ~valued]  # of values those that were measured
    rows["code"] = rows["code"].astype(object).where(rows["code"].notna(), "dimension " + rows["slot"].astype(str))
    grouped = rows.groupby(["group", "feature", "code"])
    table = grouped.agg(
        count=("attribution", "size"),
        samples=("sample", "nunique"),
        mean=("attribution", "mean"),
        mean_abs=("size", "mean"),
        share_positive=("positive", "mean"),
    )
    drawn = pd.DataFrame(weights(hash_texts(found["patient_id"].to_numpy(object))), index=found["sample"])
    for key, part in grouped:
        weight = drawn.loc[part["sample"]].to_numpy(np.float64)
        total = weight.sum(axis=0)
        ends = [np.nan, np.nan]
        if (total > 0).all():
            ends = np.quantile(part["attribution"].to_numpy(np.float64) @ weight / total, [0.025, 0.975])
        table.loc[key, ["low", "high"]] = ends
    return table.reset_index().assign(grouping=grouping)


def check(table, expected):
    """Both tables hold the same rows and the same numbers."""
    keys = ["grouping", "group", "feature", "code"]
    table, expected = (t.sort_values(keys).reset_index(drop=True) for t in (table, expected))
    pd.testing.assert_frame_equal(table[keys], expected[keys], check_dtype=False)
    np.testing.assert_allclose(table[NUMBERS].astype(float), expected[NUMBERS].astype(float), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(table[["low", "high"]], expected[["low", "high"]], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def drawn():
    return cohorts.draw()


@pytest.fixture
def folder(tmp_path, drawn):
    return cohorts.write(tmp_path / "out", *drawn)


def label_texts(found):
    return found.set_index("sample")["label"].map("{:g}".format)


def test_codes_and_values_overall_and_by_label(folder, drawn):
    found, rows = drawn
    summary = summarise(folder)
    expected = pd.concat([naive(found, rows), naive(found, rows, "label", label_texts(found))])
    check(summary.table, expected)
    assert set(summary.table["grouping"]) == {"overall", "label"}
    kinds = summary.table.groupby("feature")["kind"].unique().map(list).to_dict()
    assert kinds == {"icd_codes": ["code"], "labs": ["value"], "vector": ["value"]}


def test_intervals_are_those_of_resampled_patients(tmp_path):
    found, rows = cohorts.draw(samples=400, patients=150, seed=1)
    rows["attribution"] += (rows["patient_id"].astype("category").cat.codes % 7).astype(np.float32)  # patients differ
    row = summarise(cohorts.write(tmp_path / "out", found, rows, 100)).table.query("group == 'all' and code == 'I10'")
    mine = rows[rows["code"] == "I10"].groupby("patient_id")["attribution"].agg(["sum", "count"]).to_numpy()
    rng = np.random.default_rng(0)
    picked = mine[rng.integers(0, len(mine), (4000, len(mine)))].sum(axis=1)
    low, high = np.quantile(picked[:, 0] / picked[:, 1], [0.025, 0.975])
    assert row["low"].item() == pytest.approx(low, abs=0.2 * (high - low))
    assert row["high"].item() == pytest.approx(high, abs=0.2 * (high - low))


def test_completeness(tmp_path, drawn):
    found, rows = drawn
    failures = [(60, 2, "NaN in labs"), (61, 2, "empty sequence"), (62, 2, "NaN in labs"), (99, 7, "unfinished part")]
    summary = summarise(cohorts.write(tmp_path / "out", found, rows, failures=failures))
    delta = found["convergence_delta"].abs().astype(float)
    change = (found["output"].astype(float) - found["baseline_output"]).abs()
    assert summary.completeness.complete == (delta <= 0.01 * change).mean()
    assert 0 < summary.completeness.complete < 1
    assert summary.completeness.median_delta == pytest.approx(delta.median(), rel=1e-7)
    assert summary.completeness.max_delta == delta.max()
    assert summary.completeness.samples == 60
    assert summary.completeness.failures == {"NaN in labs": 2, "empty sequence": 1}
    assert (summary.completeness.parts, summary.completeness.parts_in_all, summary.rules) == (3, 3, "rescale")


def ratios(found, rows):
    sizes = rows.assign(size=rows["attribution"].astype(float).abs()).groupby("sample")["size"].sum()
    change = (found["output"].astype(float) - found["baseline_output"]).abs()
    return sizes.reindex(found["sample"], fill_value=0).to_numpy() / change.to_numpy()


def test_how_far_attributions_cancel(folder, drawn):
    summary = summarise(folder).completeness
    expected = np.quantile(ratios(*drawn), [0.5, 0.9])
    assert [summary.median_cancellation, summary.p90_cancellation] == pytest.approx(expected, rel=1e-6)


def test_samples_without_any_change(tmp_path, drawn):
    found, rows = (frame.copy() for frame in drawn)
    still, empty = found["sample"] % 3 == 0, found["sample"] % 10 == 1
    found.loc[still | empty, "output"] = found.loc[still | empty, "baseline_output"]
    rows = rows[~rows["sample"].isin(found["sample"][empty & ~still])]
    summary = summarise(cohorts.write(tmp_path / "out", found, rows)).completeness
    with np.errstate(all="ignore"):
        expected = ratios(found, rows)
    assert np.isnan(expected).any()
    assert summary.median_cancellation == pytest.approx(np.nanquantile(expected, 0.5), rel=1e-6)
    assert summary.p90_cancellation == np.inf


def test_a_running_cohort_is_read_up_to_its_manifest(tmp_path, drawn):
    found, rows = drawn
    out = cohorts.write(tmp_path / "out", found, rows, parts=[0, 2])
    (out / "attributions" / "part-000001.parquet").write_bytes(b"being written")
    kept = found["sample"] // 20 != 1
    expected = naive(found[kept], rows[rows["sample"].isin(found["sample"][kept])])
    summary = summarise(out)
    check(summary.table[summary.table["grouping"] == "overall"], expected)
    assert (summary.completeness.parts, summary.completeness.parts_in_all) == (2, 3)


def test_a_url(folder):
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/cohort-of-a-test", recursive=True)
    try:
        check(summarise("memory://cohort-of-a-test").table, summarise(folder).table)
    finally:
        files.rm("/cohort-of-a-test", recursive=True)


def test_nothing_is_done_yet(tmp_path, drawn):
    summary = summarise(cohorts.write(tmp_path / "out", *drawn, parts=[]))
    assert summary.table.empty
    assert summary.completeness.samples == 0
    assert np.isnan(summary.completeness.median_delta)
    assert np.isnan(summary.completeness.median_cancellation)


def test_how_it_is_cut_into_parts_does_not_matter(tmp_path, drawn):
    whole, cut = (summarise(cohorts.write(tmp_path / str(n), *drawn, n)).table for n in (60, 7))
    check(cut, whole)


def test_memory_does_not_grow_with_the_cohort(tmp_path):
    def peak(samples):
        out = cohorts.write(tmp_path / str(samples), *cohorts.draw(samples, patients=samples // 2), part_samples=400)
        tracemalloc.start()
        summarise(out)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(400)  # what is loaded once
    # Each code has its 400 points by then: only the manifest has the entries of 6 parts more.
    assert peak(4000) - peak(1800) < 100 * 2200, "more than 100 bytes per sample"


@pytest.mark.parametrize(("key", "column"), [("visit_id", "hadm_id"), ("patient_id", "subject_id")])
def test_by_a_column_of_a_csv(tmp_path, folder, drawn, key, column):
    found, rows = drawn
    listed = found[[key]].drop_duplicates().head(16)
    listed["ward"] = ["A", "B", "", "A"] * 4
    listed.rename(columns={key: column}).to_csv(tmp_path / "wards.csv.gz", index=False)
    table = summarise(folder, by=[read_grouping(f"{tmp_path}/wards.csv.gz:ward")]).table
    ward = listed.set_index(key)["ward"].replace("", EMPTY)
    group = found.set_index("sample")[key].map(ward).fillna(UNLISTED)
    check(table[table["grouping"] == "ward"], naive(found, rows, "ward", group))
    assert set(table["group"]) >= {"A", "B", EMPTY, UNLISTED}


def test_a_file_that_names_none_of_the_samples_is_told(tmp_path, folder):
    (tmp_path / "f.csv").write_text("visit_id,a\nsecret-7,1\n")
    summary = summarise(folder, by=[read_grouping(f"{tmp_path}/f.csv:a")])
    assert "no sample's visit_id is in the file of a" in summary.notes


@pytest.mark.parametrize("name", ["admission_id", "record_id"])
def test_visits_by_their_other_names(tmp_path, folder, drawn, name):
    listed = drawn[0][["visit_id"]].assign(ward="A")
    listed.rename(columns={"visit_id": name}).to_csv(tmp_path / "w.csv", index=False)
    table = summarise(folder, by=[read_grouping(f"{tmp_path}/w.csv:ward")]).table
    assert set(table.loc[table["grouping"] == "ward", "group"]) == {"A"}


@pytest.mark.parametrize(("key", "name"), [("visit_id", "patientunitstayid"), ("patient_id", "person_id")])
def test_a_key_of_another_name(tmp_path, folder, drawn, key, name):
    found, rows = drawn
    listed = found[[key]].drop_duplicates().head(16)
    listed["ward"] = ["A", "B"] * 8
    listed.rename(columns={key: name}).to_csv(tmp_path / "w.csv", index=False)
    table = summarise(folder, by=[read_grouping(f"{tmp_path}/w.csv:ward", name)]).table
    group = found.set_index("sample")[key].map(listed.set_index(key)["ward"]).fillna(UNLISTED)
    check(table[table["grouping"] == "ward"], naive(found, rows, "ward", group))


def test_numbers_of_patients_are_not_taken_for_those_of_visits(tmp_path, drawn):
    """Both count from 0: a file of all patients names some visits too."""
    found, rows = (frame.copy() for frame in drawn)
    for column in ("patient_id", "visit_id"):
        found[column] = found[column].str.split("-").str[1]
    rows = rows.drop(columns=["patient_id", "visit_id"]).merge(found[["sample", "patient_id", "visit_id"]])
    out = cohorts.write(tmp_path / "out", found, rows)
    listed = found[["patient_id"]].drop_duplicates()
    listed["ward"] = np.where(listed["patient_id"].astype(int) % 2, "A", "B")
    listed.rename(columns={"patient_id": "person_id"}).to_csv(tmp_path / "w.csv", index=False)
    table = summarise(out, by=[read_grouping(f"{tmp_path}/w.csv:ward", "person_id")]).table
    group = found.set_index("sample")["patient_id"].astype(int).map(lambda number: "A" if number % 2 else "B")
    check(table[table["grouping"] == "ward"], naive(found, rows, "ward", group))
    every = pd.DataFrame({"number": range(100), "ward": ["A", "B", "C", "D"] * 25})
    every.to_csv(tmp_path / "e.csv", index=False)
    with pytest.raises(SummaryError, match="visit_id and the patient_id of equally many samples"):
        summarise(out, by=[read_grouping(f"{tmp_path}/e.csv:ward", "number")])


def csv_file(tmp_path, text):
    (tmp_path / "f.csv").write_text(text)
    return f"{tmp_path}/f.csv"


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("", "{}", "accepted: FILE.csv:COLUMN"),
        ("", "nowhere.csv:a", "nowhere.csv is not a file"),
        ("name,a\nx,1\n", "{}:a", "no column that names samples; accepted: one of visit_id, hadm_id, patient_id"),
        ("patient_id,a\nsecret-7,1\n", "{}:b", "no column 'b'; it has patient_id, a"),
        ("name,a\nx,1\n", "{}:a", "or another that --key names"),
        ("patient_id,a\nsecret-7,1\nsecret-7,2\n", "{}:a", r"1 value\(s\) of patient_id have several values of a"),
        ("patient_id,a\n" + "".join(f"secret-7{n},{n}\n" for n in range(51)), "{}:a", "a has 51 values; .* at most 50"),
        ("patient_id,a\nsecret-7,1,2\n", "{}:a", "cannot be read as CSV"),
    ],
)
def test_a_wrong_grouping_is_refused_without_naming_patients(tmp_path, text, given, message):
    path = csv_file(tmp_path, text).replace("f.csv", "f.csv" if given != "{}" else "f")
    with pytest.raises(SummaryError, match=message) as error:
        read_grouping(given.format(path))
    assert "secret" not in str(error.value)


TWO_COLUMNS = "patient_id,a\n1,2\n"


def test_a_key_that_the_file_lacks_is_refused(tmp_path):
    with pytest.raises(SummaryError, match=r"--key is 'b'; .* has the columns patient_id, a"):
        read_grouping(f"{csv_file(tmp_path, TWO_COLUMNS)}:a", "b")


def test_labels_that_are_no_classes_are_said(tmp_path, drawn):
    found, rows = drawn
    summary = summarise(cohorts.write(tmp_path / "out", found.assign(label=found["sample"] / 7), rows))
    assert set(summary.table["grouping"]) == {"overall"}
    assert "more than 50 values" in summary.notes[0]


def test_samples_without_patients_or_labels(tmp_path, drawn):
    found, rows = (table.assign(patient_id=None) for table in drawn)
    summary = summarise(cohorts.write(tmp_path / "out", found.assign(label=np.nan), rows))
    lone = found.assign(patient_id=[f"sample {n}" for n in found["sample"]])
    check(summary.table, naive(lone, rows))


def test_too_few_patients_for_an_interval(tmp_path, drawn):
    found, rows = (table.assign(patient_id="one") for table in drawn)
    table = summarise(cohorts.write(tmp_path / "out", found, rows)).table
    assert table[["low", "high"]].isna().all(axis=None)


def test_top_rows_leave_out_special_tokens_and_what_few_carry(folder, drawn):
    summary = summarise(folder)
    top = summary.top("code", "overall", "all", 3, "mean", 1)
    assert top["mean"].is_monotonic_decreasing
    assert len(top) == 3
    every = summary.top("code", "overall", "all", 99, "count", 1)
    assert set(every["code"]) == set(cohorts.CODES) - {"<unk>"}
    least = every["samples"].min()
    assert len(summary.top("code", "overall", "all", 99, "count", least + 1)) < len(every)


def test_values_that_were_never_measured_are_values(tmp_path, drawn):
    found, rows = (table.copy() for table in drawn)
    labs = rows["feature"] == "labs"
    rows["measured"] = pd.Series(np.where(labs, False, None), dtype=object)
    rows.loc[labs, "value"] = np.nan
    rows.loc[rows["feature"] == "icd_codes", "measured"] = True  # of codes that have flags too
    summary = summarise(cohorts.write(tmp_path / "out", found, rows))
    kinds = summary.cohort.table.groupby("feature")["kind"].unique().map(list).to_dict()
    assert kinds == {"icd_codes": ["code"], "labs": ["value"], "vector": ["value"]}
    assert set(summary.table["feature"]) == {"icd_codes", "vector"}
    assert "no value of labs was measured, so it has no means of measured values" in summary.notes


def test_titles_without_a_release_are_those_of_the_package(folder):
    summary = summarise(folder)
    known = summary.table.set_index("code")["description"]
    assert set(known["I10"]) == {"Essential (primary) hypertension"}
    assert set(known["Sodium"]) == {"Sodium"}
    assert known["4019"].isna().all()
    assert not summary.described
    assert "5 codes have no description in this package (--mimic-root reads" in " ".join(summary.notes)
    assert "several dictionary entries" not in " ".join(summary.notes)


def replaced(folder, other, what):
    for path in other.rglob(what):
        (folder / path.relative_to(other)).write_bytes(path.read_bytes())


def interrupted(monkeypatch, then, times=1):
    """Calls `then` each time that the samples of a folder were read."""
    read, left = report.Totals, [times]

    def reading(folder):
        found = read(folder)
        if left[0]:
            left[0] -= 1
            then()
        return found

    monkeypatch.setattr(report, "Totals", reading)


@pytest.fixture
def two(tmp_path, drawn):
    """A cohort, and the same after its run was begun anew with other numbers."""
    found, rows = drawn
    before = cohorts.write(tmp_path / "before", found[:30], rows[rows["sample"] < 30])
    return before, cohorts.write(tmp_path / "after", found, rows.assign(attribution=-rows["attribution"]))


def test_what_a_run_writes_anew_meanwhile_is_read_again(two, monkeypatch):
    before, after = two
    interrupted(monkeypatch, lambda: replaced(before, after, "*.*"))
    found = summarise(before)
    check(found.table, summarise(after).table)
    assert found.completeness.samples == 60


def test_a_part_that_is_ahead_of_the_manifest_is_waited_for(two, monkeypatch):
    before, after = two
    interrupted(monkeypatch, lambda: replaced(before, after, "*.parquet"))
    monkeypatch.setattr(consistent.time, "sleep", lambda _: replaced(before, after, "manifest.json"))
    check(summarise(before).table, summarise(after).table)


def test_a_run_that_is_faster_than_its_reader_is_told(two, monkeypatch):
    before, after = two
    manifests = itertools.cycle([after, two[0].parent / "first"])
    shutil.copytree(before, before.parent / "first")
    interrupted(monkeypatch, lambda: replaced(before, next(manifests), "*.*"), times=99)
    with pytest.raises(SummaryError, match=r"a run replaces parts of .* faster than they are read; try again"):
        summarise(before)


IDENTITY = cohorts.identity()
SOUND = {"identity": IDENTITY, "about": about_of(IDENTITY), "device": "cpu"}
UNREADABLE = {
    "it has no about": {"parts": {}},
    "part 0 is a int": SOUND | {"total": 60, "parts": {"0": 3}},
    "it has no device": {key: SOUND[key] for key in ("about", "identity")} | {"parts": {}},
    "it has no parts": SOUND,
    "interpreter has no rules": SOUND | {"identity": {"part_samples": 20}, "parts": {}},
    "part_samples is": SOUND | {"identity": IDENTITY | {"part_samples": None}, "parts": {}},
}


@pytest.mark.parametrize("wrong", UNREADABLE)
def test_a_manifest_that_no_run_wrote_is_refused(folder, wrong):
    (folder / "manifest.json").write_text(json.dumps(UNREADABLE[wrong]))
    with pytest.raises(SummaryError, match=f"cannot be read as a cohort's manifest .*{wrong}.*; accepted: "):
        summarise(folder)


def lose_part(out):
    (out / "samples" / "part-000001.parquet").unlink()


def damage_part(out):
    (out / "attributions" / "part-000001.parquet").write_bytes(b"PAR1 and nothing else")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda out: (out / "manifest.json").unlink(), "holds no manifest.json; accepted"),
        (lambda out: (out / "manifest.json").write_text("{"), "cannot be read"),
        (lambda out: (out / "samples" / "part-000001.parquet").write_bytes(b""), "part-000001.parquet is damaged"),
        (lose_part, "part-000001.parquet is missing.*same command"),
        (damage_part, "part-000001.parquet is damaged.*same command"),
    ],
)
def test_a_damaged_folder_gives_no_numbers(folder, harm, message):
    harm(folder)
    with pytest.raises(SummaryError, match=message):
        summarise(folder)


@pytest.mark.parametrize("out", ["nothing://here", "zip://here"])
def test_a_url_that_cannot_be_opened_is_named(out):
    with pytest.raises(SummaryError, match=f"{out} cannot be opened"):
        summarise(out)
