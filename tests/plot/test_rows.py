import numpy as np
import pandas as pd
import plot_cases as cases
import polars as pl
import pyarrow as pa
import pytest
from cohort_folders import draw, write

from deeplift_fast.plot.rows import patient_rows, title_of
from deeplift_fast.report.titles import Titles


@pytest.mark.parametrize("kind", ["pandas", "polars", "lazy", "pyarrow"])
def test_tables_are_read_alike(kind):
    table = cases.patient()
    given = {
        "pandas": lambda: table,
        "polars": lambda: pl.from_pandas(table),
        "lazy": lambda: pl.from_pandas(table).lazy(),
        "pyarrow": lambda: pa.Table.from_pandas(table),
    }[kind]()
    found, expected = patient_rows(given), patient_rows(table)
    for name in ("feature", "name", "attribution", "value", "day"):
        assert found.table[name].equals(expected.table[name]), name
    assert (found.valued == (table["feature"] == "labs")).all()


def test_a_folder_gives_a_patients_sample_and_its_outputs(tmp_path):
    found, rows = draw()
    folder = write(tmp_path / "out", found, rows)
    one = patient_rows(folder, sample=25)
    expected = rows[rows["sample"] == 25]
    assert one.table["attribution"].tolist() == pytest.approx(expected["attribution"].tolist())
    about = found.set_index("sample").loc[25]
    assert (one.output, one.baseline_output, one.probability) == pytest.approx(
        (about["output"], about["baseline_output"], about["probability"])
    )
    assert (one.baseline, one.rules) == ("unk", "rescale")
    counts = found["patient_id"].value_counts()
    parts = found.assign(part=found["sample"] // 20).groupby("patient_id")["part"].nunique()
    several = next(name for name in counts.index if parts[name] == counts[name] > 1)
    with pytest.raises(ValueError, match=f"the patient has {counts[several]} samples"):  # one in each of some parts
        patient_rows(folder, patient=several)
    lone = counts[counts == 1].index[0]
    assert patient_rows(str(folder), patient=lone).table["patient_id"].unique().tolist() == [lone]


def test_errors_say_what_to_do(tmp_path):
    folder = write(tmp_path / "out", *draw())
    table = cases.cohort(4)
    for data, how, message in (
        (folder, {}, "say which patient"),
        (folder, {"sample": 999}, "no sample of the finished parts .* sample=999"),
        (table, {}, "holds 4 samples .* choose one with sample="),
        (table, {"patient": "p-0"}, "the patient has 2 samples"),
        (table, {"patient": "nobody"}, "no sample of the data has patient='nobody'"),
        (table.drop(columns="attribution"), {"sample": 0}, "lacks the column.s. attribution"),
        (table[:0], {}, "has no rows"),
        (table.assign(attribution=np.nan), {"sample": 0}, "NaN, inf or null"),
        (cases.plain(), {}, "holds 3 samples"),
        (cases.plain(), {"sample": 3}, "sample=3"),
    ):
        with pytest.raises(ValueError, match=message):
            patient_rows(data, **how)
    with pytest.raises(TypeError, match="data is a list; accepted: an Attribution"):
        patient_rows([1])


def test_an_attribution_brings_its_outputs():
    found = cases.plain()
    rows = patient_rows(found, sample=2)
    assert rows.output == float(found.output[2])
    assert rows.baseline_output == float(found.baseline_output[2])
    assert rows.probability is None
    assert rows.table["name"].tolist() == [f"x[{i}]" for i in range(6)]


def test_titles(tmp_path):
    (tmp_path / "hosp").mkdir()
    pd.DataFrame({"icd_code": ["I10"], "icd_version": [10], "long_title": ["Hypertension"]}).to_csv(
        tmp_path / "hosp/d_icd_diagnoses.csv", index=False
    )
    titles = Titles(tmp_path)
    assert title_of(titles, "conditions", "I10") == "Hypertension"
    assert title_of(titles, "conditions", "X") == "X"
    assert title_of({"I10": "a", ("f", "I10"): "b"}, "f", "I10") == "b"
    assert title_of({"I10": "a"}, "f", "I10") == "a"
