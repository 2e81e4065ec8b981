"""Contributions per sample: naive sums with pandas, quantiles with NumPy."""

import cohort_folders as cohorts
import numpy as np
import pandas as pd
import pytest

from deeplift_fast.report import summarise
from deeplift_fast.report.per_sample import QUANTILES
from deeplift_fast.report.points import MOST_POINTS, Points


@pytest.fixture(scope="module")
def drawn():
    return cohorts.draw(samples=90, patients=31)


@pytest.fixture(scope="module")
def summary(tmp_path_factory, drawn):
    return summarise(cohorts.write(tmp_path_factory.mktemp("cohort") / "out", *drawn))


def named(rows):
    return rows.assign(code=rows["code"].fillna("dimension " + rows["slot"].astype(str)))


def sums_of(found, rows):
    """The contribution of each sample, feature and code, measured or not."""
    rows = named(rows).astype({"attribution": float})
    sums = rows.groupby(["feature", "code", "sample"])["attribution"].agg(["sum", "count"]).reset_index()
    return sums.merge(found[["sample", "patient_id", "label"]], on="sample")


def check(table, sums):
    expected = dict(iter(sums.groupby(["feature", "code"])))
    assert len(table) == len(expected)
    for row in table.itertuples():
        mine = expected[row.feature, row.code]
        numbers = [len(mine), mine["patient_id"].nunique(), mine["count"].sum()]
        assert [row.samples, row.patients, row.rows] == numbers
        assert [row.mean, row.mean_abs] == pytest.approx([mine["sum"].mean(), mine["sum"].abs().mean()])


def test_sums_of_samples(summary, drawn):
    table, sums = summary.cohort.table, sums_of(*drawn)
    check(table, sums)
    assert (table["low"] < table["mean"]).all()
    assert (table["mean"] < table["high"]).all()
    for row in table.itertuples():
        mine = sums[(sums["feature"] == row.feature) & (sums["code"] == row.code)]["sum"].to_numpy(np.float32)
        found = [getattr(row, name) for name in QUANTILES]
        np.testing.assert_allclose(found, np.quantile(mine.astype(float), list(QUANTILES.values())), rtol=1e-6)


def test_sums_of_samples_by_label(summary, drawn):
    sums = sums_of(*drawn)
    for label in (0, 1):
        table = summary.by_group.query(f"grouping == 'label' and group == '{label}'")
        check(table, sums[sums["label"] == label])


def test_patients_and_outputs(summary, drawn):
    found = drawn[0]
    assert (summary.cohort.samples, summary.cohort.patients) == (90, found["patient_id"].nunique())
    outputs = summary.cohort.outputs.iloc[0]
    assert (outputs["target"], outputs["samples"]) == (0, 90)
    expected = np.quantile(found["output"].astype(float), list(QUANTILES.values()))
    np.testing.assert_allclose(outputs[list(QUANTILES)].astype(float), expected, rtol=1e-6)


def test_intervals_are_those_of_resampled_patients(tmp_path):
    found, rows = cohorts.draw(samples=400, patients=150, seed=1)
    rows["attribution"] += (rows["patient_id"].astype("category").cat.codes % 7).astype(np.float32)
    table = summarise(cohorts.write(tmp_path / "out", found, rows, 100)).cohort.table
    row = table.query("code == 'Sodium'").iloc[0]
    sums = sums_of(found, rows).query("code == 'Sodium'")
    mine = sums.groupby("patient_id")["sum"].agg(["sum", "count"]).to_numpy()
    picked = mine[np.random.default_rng(0).integers(0, len(mine), (4000, len(mine)))].sum(axis=1)
    low, high = np.quantile(picked[:, 0] / picked[:, 1], [0.025, 0.975])
    assert [row["low"], row["high"]] == pytest.approx([low, high], abs=0.2 * (high - low))


def test_how_it_is_cut_into_parts_does_not_matter(tmp_path, drawn):
    one, other = (summarise(cohorts.write(tmp_path / str(n), *drawn, n)) for n in (90, 7))
    keys = ["target", "feature", "code"]
    tables = [each.cohort.table.sort_values(keys, ignore_index=True) for each in (one, other)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)
    assert one.points.keys() == other.points.keys()
    for key, points in one.points.items():
        pd.testing.assert_frame_equal(points, other.points[key], rtol=1e-4)


def test_points_are_sums_with_the_newest_measured_value(summary, drawn):
    _, rows = drawn
    rows = rows[rows["code"] == "Sodium"]
    expected = {
        (np.float32(mine["attribution"].sum()), np.float32(mine["value"].dropna().iloc[-1]))
        for _, mine in rows.groupby("sample")
        if mine["value"].notna().any()
    }
    found = summary.points[0, "labs", "Sodium"]
    assert len(found) == rows["sample"].nunique()
    known = found[found["value"].notna()].to_numpy()
    assert len(known) == len(expected)
    for point in known:
        assert any(np.allclose(point, each, rtol=1e-5) for each in expected)
    assert summary.points[0, "icd_codes", "I10"]["value"].isna().all()


def test_four_hundred_points_of_many_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    samples, rows = rng.permutation(9000), rng.integers(0, 3, 9000)
    orders = [np.argsort(samples), rng.permutation(9000)]
    found = []
    for order in orders:
        points = Points()
        for piece in np.array_split(order, 11):
            points.add(rows[piece], samples[piece], samples[piece] / 10, np.full(len(piece), np.nan))
        tables = points.tables({(0, "codes", str(row)): row for row in range(3)})
        found.append({key: table["contribution"].tolist() for key, table in tables.items()})
    assert found[0] == found[1]
    assert {len(each) for each in found[0].values()} == {MOST_POINTS}
    spread = np.quantile(found[0][0, "codes", "0"], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(spread, [225, 450, 675], atol=75)  # they are no first or last ones


def test_a_feature_that_gets_its_first_value_in_a_later_part(tmp_path, drawn):
    found, rows = drawn
    rows = rows.assign(value=rows["value"].where(rows["sample"] >= 40))
    table = summarise(cohorts.write(tmp_path / "out", found, rows)).cohort.table
    check(table, sums_of(found, rows))
    assert set(table.loc[table["feature"] == "labs", "kind"]) == {"value"}
