"""Both tables open in other programs as they are, all parts at once."""

import cohort_folders as cohorts
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    found, rows = cohorts.draw()
    return cohorts.write(tmp_path_factory.mktemp("cohort") / "out", found, rows), found, rows


def expected(found, rows):
    joined = rows.merge(found[["sample", "label"]], on="sample")
    codes = joined[(joined["feature"] == "icd_codes") & (joined["label"] == 1)]
    return codes.groupby("code")["attribution"].sum().round(3).to_dict()


def test_pandas(written):
    out, found, rows = written
    read = pd.read_parquet(out / "attributions"), pd.read_parquet(out / "samples")
    assert expected(read[1], read[0].astype({"code": object, "feature": object})) == expected(found, rows)


def test_polars(written):
    pl = pytest.importorskip("polars")
    out, found, rows = written
    tables = pl.scan_parquet(out / "attributions" / "*.parquet"), pl.scan_parquet(out / "samples" / "*.parquet")
    joined = tables[0].join(tables[1], on="sample").filter(pl.col("feature") == "icd_codes", pl.col("label") == 1)
    sums = joined.group_by(pl.col("code").cast(pl.String)).agg(pl.col("attribution").cast(pl.Float64).sum()).collect()
    assert {code: round(total, 3) for code, total in sums.iter_rows()} == pytest.approx(expected(found, rows), abs=2e-3)


def test_duckdb(written):
    duckdb = pytest.importorskip("duckdb")
    out, found, rows = written
    sums = duckdb.sql(
        f"SELECT code, sum(attribution) FROM '{out}/attributions/*.parquet' "
        f"JOIN '{out}/samples/*.parquet' USING (sample) "
        "WHERE feature = 'icd_codes' AND label = 1 GROUP BY code"
    ).fetchall()
    assert dict(sums) == pytest.approx(expected(found, rows), abs=2e-3)
