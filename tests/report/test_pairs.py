"""Means of pairs: naive ones with pandas, all at once."""

import json
import tracemalloc

import cohort_folders as cohorts
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from deeplift_fast.report import SummaryError, pairs, summarise
from deeplift_fast.report.bootstrap import hash_texts, weights
from deeplift_fast.report.files import SCHEMA, write_csv, write_json, write_parquet
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.pairs import FEWEST, PAIR, PairReader, strongest_pairs

PAIR = list(PAIR)


@pytest.fixture(scope="module")
def drawn():
    found, rows = cohorts.draw(samples=60, patients=30)
    return found, rows, cohorts.pairs(rows)


@pytest.fixture(scope="module")
def out(tmp_path_factory, drawn):
    found, rows, table = drawn
    return cohorts.add_pairs(cohorts.write(tmp_path_factory.mktemp("pairs") / "out", found, rows), table)


@pytest.fixture(scope="module")
def summary(out):
    return summarise(out)


def naive(found, table):
    """The means of all samples."""
    table = table.astype({"interaction": np.float32}).astype({"interaction": float})
    drawn = weights(hash_texts(table["patient_id"].to_numpy(object)))
    table = table.assign(size=table["interaction"].abs(), positive=table["interaction"] > 0)
    grouped = table.groupby(PAIR)
    means = grouped.agg(
        samples=("sample", "nunique"),
        patients=("patient_id", "nunique"),
        mean=("interaction", "mean"),
        mean_abs=("size", "mean"),
        share_positive=("positive", "mean"),
    )
    for key, part in grouped:
        weight = drawn[part.index].astype(float)
        ends = np.full(2, np.nan)
        if (weight.sum(0) > 0).all():
            ends = np.quantile(part["interaction"].to_numpy() @ weight / weight.sum(0), [0.025, 0.975])
        means.loc[key, ["low", "high"]] = ends
    return means.sort_index()


def test_means_counts_and_intervals(summary, drawn):
    found, _, table = drawn
    table = table.reset_index(drop=True)
    mine = summary.pairs.query("grouping == 'overall'").set_index(PAIR).sort_index()
    expected = naive(found, table)
    assert len(expected) > 10
    pd.testing.assert_frame_equal(mine[list(expected)], expected, check_dtype=False, rtol=1e-4, atol=1e-6)
    assert mine["low"].notna().any()
    by_size = summary.pairs.query("grouping == 'overall'")["mean_abs"]
    assert by_size.is_monotonic_decreasing


def test_means_by_label(summary, drawn):
    found, _, table = drawn
    labels = table["sample"].map(found.set_index("sample")["label"])
    for label in (0, 1):
        mine = summary.pairs.query(f"grouping == 'label' and group == '{label}'").set_index(PAIR)["mean"].sort_index()
        expected = table[labels == label].groupby(PAIR)["interaction"].mean()
        pd.testing.assert_series_equal(mine, expected, check_names=False, rtol=1e-5)


def test_several_targets_are_never_averaged_together(tmp_path, drawn):
    found, rows, table = drawn
    found = found.assign(target=found["sample"] % 2)
    summary = summarise(cohorts.add_pairs(cohorts.write(tmp_path / "out", found, rows), table))
    assert set(summary.pairs["grouping"]) == {"target", "label"}
    mine = summary.pairs.query("grouping == 'target' and group == '1'").set_index(PAIR)["mean"].sort_index()
    expected = table[table["sample"] % 2 == 1].groupby(PAIR)["interaction"].mean()
    pd.testing.assert_series_equal(mine, expected, check_names=False, rtol=1e-5)


def test_the_strongest_are_those_of_enough_samples_with_the_largest_mean(out, drawn):
    reader = PairReader(CohortFolder(out))
    chosen, known = strongest_pairs(reader, most=5)
    sizes = drawn[2].assign(size=drawn[2]["interaction"].abs()).groupby(PAIR)["size"].agg(["size", "mean"])
    assert known == len(sizes)
    enough = sizes[sizes["size"] >= FEWEST]
    assert 5 < len(enough) < len(sizes)
    first, second = reader.names(chosen)
    assert {(*one, *other) for one, other in zip(first, second, strict=True)} == set(enough["mean"].nlargest(5).index)


@pytest.mark.parametrize("most", [4, 1000])
def test_pairs_that_are_too_many_for_one_reading_are_counted_in_several(out, most, monkeypatch):
    monkeypatch.setattr(pairs, "_FEW", 1)
    reader = PairReader(CohortFolder(out))
    whole, known = strongest_pairs(reader, most)
    reads = []
    read = PairReader.read
    monkeypatch.setattr(PairReader, "read", lambda self, part: reads.append(part) or read(self, part))
    pieces, counted = strongest_pairs(reader, most, at_once=3)
    assert counted == known
    assert pieces.tolist() == whole.tolist()
    assert len(reads) >= 4 * len(reader.folder.parts)


def test_what_is_left_out_is_told(out, monkeypatch):
    monkeypatch.setattr(pairs.strongest_pairs, "__defaults__", (3, pairs.AT_ONCE))
    summary = summarise(out)
    assert summary.pairs[PAIR].drop_duplicates().shape[0] == 3
    assert any(note.endswith("pairs of codes, the 3 strongest have means") for note in summary.notes)


def test_memory_grows_with_neither_samples_nor_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "_FEW", 1 << 10)

    def peak(parts):
        found, rows = cohorts.draw(samples=10 * parts)
        table = pd.DataFrame({name: np.zeros(900 * parts) for name in cohorts.INTERACTIONS.names})
        table[["sample", "patient_id", "visit_id"]] = np.repeat(found[["sample", "patient_id", "visit_id"]], 90, axis=0)
        number = np.random.default_rng(parts).integers(0, 90, (2, len(table)))
        table = table.assign(first_feature="a", second_feature="a", interaction=1.0)
        table["first_code"], table["second_code"] = (np.char.add("c", each.astype(str)) for each in number)
        out = cohorts.add_pairs(cohorts.write(tmp_path / str(parts), found, rows, part_samples=10), table)
        reader = PairReader(CohortFolder(out))
        tracemalloc.start()
        _, known = strongest_pairs(reader, most=100, at_once=500)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, known

    peak(1)  # what is loaded once
    (few, some), (many, more) = peak(2), peak(6)
    assert more > 2 * some
    assert many < 1.2 * few


def test_a_cohort_without_interactions_has_no_pairs(tmp_path, drawn):
    found, rows, _ = drawn
    summary = summarise(cohorts.write(tmp_path / "out", found, rows))
    assert summary.pairs is None
    assert summary.top_pairs("overall", "all", 5, "mean", 1).empty
    write_json(summary, tmp_path / "s.json")
    assert "pairs" not in json.loads((tmp_path / "s.json").read_text())
    write_parquet(summary, tmp_path / "s.parquet")
    assert pq.read_schema(tmp_path / "s.parquet").names == SCHEMA.names


def test_files_have_every_pair(summary, tmp_path):
    rows = json_rows(summary, tmp_path)
    assert len(rows) == len(summary.pairs)
    assert rows[0]["mean"] == summary.pairs["mean"][0]
    write_csv(summary, tmp_path / "s.csv")
    write_parquet(summary, tmp_path / "s.parquet")
    for table in (pd.read_csv(tmp_path / "s.csv"), pd.read_parquet(tmp_path / "s.parquet")):
        mine = table[table["kind"] == "pair"].reset_index(drop=True)
        assert mine["code"].tolist() == summary.pairs["first_code"].tolist()
        assert mine["second_code"].tolist() == summary.pairs["second_code"].tolist()
        np.testing.assert_allclose(mine["low"], summary.pairs["low"])
        assert (mine["count"] == summary.pairs["samples"]).all()
        assert (mine["patients"] == summary.pairs["patients"]).all()
        assert (table["kind"] != "pair").sum() == len(summary.table)


def json_rows(summary, tmp_path):
    write_json(summary, tmp_path / "s.json")
    return json.loads((tmp_path / "s.json").read_text())["pairs"]


def test_the_unknown_code_is_no_code(summary):
    assert "<unk>" in {*summary.pairs["first_code"], *summary.pairs["second_code"]}
    shown = summary.top_pairs("overall", "all", 100, "count", 1)
    assert "<unk>" not in {*shown["first_code"], *shown["second_code"]}
    assert shown["samples"].is_monotonic_decreasing


@pytest.mark.parametrize("harm", ["missing", "flipped", "of fewer rows"])
def test_interactions_that_were_harmed_are_named(tmp_path, drawn, harm, monkeypatch):
    monkeypatch.setattr("deeplift_fast.report.consistent.PAUSE", 0.0)
    found, rows, table = drawn
    out = cohorts.add_pairs(cohorts.write(tmp_path / "out", found, rows), table)
    path = out / "interactions/part-000001.parquet"
    if harm == "missing":
        path.unlink()
    elif harm == "flipped":
        path.write_bytes(path.read_bytes()[:-9] + b"123456789")
    else:
        name = out / "manifest.json"
        about = json.loads(name.read_text())
        about["parts"]["1"]["interactions"] += 1
        name.write_text(json.dumps(about))
    with pytest.raises(SummaryError, match=r"interactions/part-000001\.parquet is (missing|damaged).*run the cohort"):
        summarise(out)


def test_interactions_of_samples_that_failed_are_refused(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr("deeplift_fast.report.consistent.PAUSE", 0.0)
    found, rows, table = drawn
    number = int(table["sample"][0])
    found, rows = (each[each["sample"] != number] for each in (found, rows))
    out = cohorts.add_pairs(cohorts.write(tmp_path / "out", found, rows, part_samples=60), table)
    with pytest.raises(SummaryError, match="interactions name samples that its samples table lacks"):
        summarise(out)
