"""The tables open in other programs as they are, all parts at once."""

import re
from pathlib import Path

import cohort_folders as cohorts
import pandas as pd
import pytest

DOCS = Path(__file__).parents[2] / "docs" / "cohorts.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    found, rows = cohorts.draw()
    out = cohorts.write(tmp_path_factory.mktemp("cohort") / "mortality", found, rows)
    return cohorts.add_pairs(out, cohorts.pairs(rows)), found, rows


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


def test_duckdb(written, monkeypatch):
    """The queries of docs/cohorts.md, as they stand there."""
    duckdb = pytest.importorskip("duckdb")
    out, found, rows = written
    pairs, query = re.findall(r"(?ms)^```sql\n(.*?)^```$", DOCS.read_text(encoding="utf-8"))
    monkeypatch.chdir(out.parent)
    joined = rows.merge(found[["sample", "label"]], on="sample")
    means = joined[joined["label"] == 1].fillna({"code": ""}).groupby("code")["attribution"].mean()
    given = {code or "": mean for code, mean in duckdb.sql(query).fetchall()}
    assert given == pytest.approx(means.to_dict(), abs=1e-6)
    of_pairs = cohorts.pairs(rows).groupby(["first_code", "second_code"])["interaction"].agg(["mean", "size"])
    expected = of_pairs[of_pairs["size"] >= 10]
    found = {(first, second): mean for first, second, mean, _ in duckdb.sql(pairs).fetchall()}
    assert 0 < len(expected) < len(of_pairs)
    assert found == pytest.approx(expected["mean"].to_dict(), abs=1e-6)
