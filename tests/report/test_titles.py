import gzip
import re
from pathlib import Path

import pytest

from deeplift_fast.report import SummaryError
from deeplift_fast.report.titles import Title, Titles
from deeplift_fast.support.packaged import packaged_rows

DIAGNOSES = """icd_code,icd_version,long_title
0040,9,Salmonella gastroenteritis
E119,10,"Type 2 diabetes mellitus, without complications"
E870,10,Hyperosmolality
E870,9,Failure of sterile precautions
I10,10,Essential hypertension
V10,9,Same words
V10,10,Same words
"""
PROCEDURES = """icd_code,icd_version,long_title
0040,9,Procedure on single vessel
5A1221Z,10,"Performance of Cardiac Output, Continuous"
"""
LABS = """itemid,label,fluid,category
50983,Sodium,Blood,Chemistry
50824,"Sodium, Whole Blood",Blood,Blood Gas
50808,Free Calcium,Blood,Blood Gas
51624,"Calcium, Whole Blood",Blood,Chemistry
51006,Urea Nitrogen,Blood,Chemistry
"""
EVENTS = """itemid,valueuom,ref_range_lower,ref_range_upper
50983,mEq/L,133,145
50983,mEq/L,133,145
50824,mEq/L,130,
50808,mmol/L,1.12,1.32
50808,mmol/L,1.12,1.32
51624,mg/dL,8.4,10.3
51006,mg/dL,,20
"""
MIMIC_DEMO = Path(__file__).parents[2] / "../shared/data/mimic-demo"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "hosp").mkdir()
    (tmp_path / "hosp/d_icd_diagnoses.csv").write_text(DIAGNOSES)
    (tmp_path / "hosp/d_icd_procedures.csv.gz").write_bytes(gzip.compress(PROCEDURES.encode()))
    (tmp_path / "hosp/d_labitems.csv").write_text(LABS)
    return tmp_path


@pytest.mark.parametrize(
    ("feature", "code", "expected"),
    [
        ("codes", "I10", "Essential hypertension"),
        ("codes", "E11.9", "Type 2 diabetes mellitus, without complications"),
        ("codes", "e119", "Type 2 diabetes mellitus, without complications"),
        ("codes", "9_E870", "Failure of sterile precautions"),
        ("codes", "10_E870", "Hyperosmolality"),
        ("codes", "ICD10CM_E87.0", "Hyperosmolality"),
        ("codes", "ICD-9-CM: E870", "Failure of sterile precautions"),
        ("codes", "ICD9PROC_0040", "Procedure on single vessel"),
        ("codes", "ICD9CM_0040", "Salmonella gastroenteritis"),
        ("procedures", "9_0040", "Procedure on single vessel"),
        ("conditions", "0040", "Salmonella gastroenteritis"),
        ("procedures", "5A1221Z", "Performance of Cardiac Output, Continuous"),
        ("labs", "50983", "Sodium"),
        ("codes", "V10", "Same words"),
        ("procedures", "I10", "Essential hypertension"),  # a feature's name is only a hint
    ],
)
def test_one_meaning(root, feature, code, expected):
    title = Titles(root).find(feature, code)
    assert (title.text, title.ambiguous) == (expected, False)


@pytest.mark.parametrize(
    ("feature", "code", "expected"),
    [
        ("codes", "E870", "ICD-10 diagnosis: Hyperosmolality / ICD-9 diagnosis: Failure of sterile precautions"),
        ("diagnoses", "E870", "ICD-10 diagnosis: Hyperosmolality / ICD-9 diagnosis: Failure of sterile precautions"),
        ("codes", "0040", "ICD-9 diagnosis: Salmonella gastroenteritis / ICD-9 procedure: Procedure on single vessel"),
    ],
)
def test_several_meanings_are_all_shown_and_flagged(root, feature, code, expected):
    title = Titles(root).find(feature, code)
    assert (title.text, title.ambiguous) == (expected, True)


@pytest.mark.parametrize("code", ["Q999", "9_I10", "10_0040", "<unk>", ""])
def test_no_meaning(root, code):
    assert Titles(root).find("codes", code) is None


def test_a_folder_without_dictionaries_is_refused(tmp_path):
    with pytest.raises(SummaryError, match="holds none of hosp/d_icd_diagnoses"):
        Titles(tmp_path)


def test_a_dictionary_that_is_none_is_named(root):
    (root / "hosp/d_labitems.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SummaryError, match=r"d_labitems\.csv cannot be read"):
        Titles(root)


def test_a_version_that_is_none_is_named(root):
    (root / "hosp/d_icd_diagnoses.csv").write_text("icd_code,icd_version,long_title\nI10,ten,Hypertension\n")
    with pytest.raises(SummaryError, match=r"d_icd_diagnoses\.csv cannot be read: icd_version is 'ten'"):
        Titles(root)


def written(root, diagnoses="", procedures=""):
    for name, rows in (("diagnoses", diagnoses), ("procedures", procedures)):
        (root / f"hosp/{name}_icd.csv").write_text(f"icd_code,icd_version\n{rows}")
    return Titles(root)


@pytest.mark.parametrize(
    ("code", "diagnoses", "procedures", "expected"),
    [
        ("E870", "E870,9\n", "", "Failure of sterile precautions"),
        ("E87.0", "E870,10\nI10,10\n", "", "Hyperosmolality"),
        ("0040", "", "0040,9\n", "Procedure on single vessel"),
        ("0040", "0040,9\n", "5A1221Z,10\n", "Salmonella gastroenteritis"),
    ],
)
def test_the_version_that_occurs_in_the_release_decides(root, code, diagnoses, procedures, expected):
    title = written(root, diagnoses, procedures).find("icd_codes", code)
    assert (title.text, title.ambiguous) == (expected, False)


def test_of_versions_that_both_occur_the_more_frequent_comes_first(root):
    title = written(root, "E870,9\nE870,9\nE870,10\n").find("icd_codes", "E870")
    assert title.text == "ICD-9 diagnosis: Failure of sterile precautions / ICD-10 diagnosis: Hyperosmolality"
    assert title.ambiguous


def test_the_name_of_the_version_outweighs_the_release(root):
    assert written(root, "E870,9\n").find("icd_codes", "10_E870").text == "Hyperosmolality"


def test_of_versions_that_never_occur_all_are_shown(root):
    assert written(root, "I10,10\n").find("icd_codes", "E870").ambiguous


def test_an_item_with_the_number_of_a_code_is_no_code(root):
    (root / "hosp/d_icd_diagnoses.csv").write_text("icd_code,icd_version,long_title\n50983,9,A disease\n")
    titles = Titles(root)
    assert titles.find("icd_codes", "50983").text == "A disease"
    assert titles.find("labs", "50983").text == "Sodium"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("50983", Title("Sodium", False, "mEq/L", 133.0, 145.0)),
        ("50824", Title("Sodium, Whole Blood", False, "mEq/L", 130.0, None)),
        ("Sodium", Title("Sodium", False, "mEq/L", 133.0, 145.0)),  # a category
        ("calcium", Title("calcium", False, "mmol/L", 1.12, 1.32, mixed=True)),
        ("Urea Nitrogen", Title("Urea Nitrogen", False, "mg/dL", None, 20.0)),  # a label
        ("Magnesium", None),  # a category without items
        ("dimension 3", None),
    ],
)
def test_units_and_ranges(root, code, expected):
    (root / "hosp/labevents.csv").write_text(EVENTS)
    assert Titles(root).find("labs", code) == expected


def test_a_release_without_labevents_gives_no_units(root):
    assert Titles(root).find("labs", "Sodium") == Title("Sodium")


def test_a_drug_of_the_name_of_an_item_is_none(root):
    assert Titles(root).find("drugs", "Sodium") is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(133.0, 145.0, "133–145"), (None, 0.01, "≤ 0.01"), (60.0, None, "≥ 60"), (-2.0, 3.5, "−2–3.5"), (None, None, "")],
)
def test_a_range_as_text(low, high, expected):
    assert Title("x", low=low, high=high).range == expected


def test_the_package_holds_what_the_synthetic_hospital_has():
    titles = Titles.packaged()
    assert titles.find("icd_codes", "I5023").text == "Acute on chronic systolic (congestive) heart failure"
    assert titles.find("labs", "Calcium") == Title("Calcium", False, "mmol/L", 1.12, 1.32)
    assert titles.find("labs", "50931") == Title("Glucose", False, "mg/dL", 70.0, 105.0)
    assert titles.find("icd_codes", "4019") is None


def test_a_title_of_the_package_is_alone_only_where_no_code_of_icd_9_is_written_like_it():
    titles = Titles.packaged()
    found = {row["code"]: titles.find("icd_codes", row["code"]) for row in packaged_rows("codes.csv")}
    like_icd_9 = {code for code in found if re.fullmatch(r"E8(?!77)\d{2,3}|V\d{2,4}|\d{2,5}", code)}  # it has no E877
    assert like_icd_9
    assert {code for code, title in found.items() if title.ambiguous} == like_icd_9
    assert found["E871"].text == (
        "ICD-10 diagnosis: Hypo-osmolality and hyponatremia / ICD-9 diagnosis: Foreign object left in body during "
        "procedure"
    )
    assert titles.find("icd_codes", "10_E871") == Title("Hypo-osmolality and hyponatremia")
    assert titles.find("icd_codes", "9_E871") == Title("Foreign object left in body during procedure")
    assert titles.find("icd_codes", "9_I10") is None


@pytest.mark.parametrize("feature", ["icd_codes", "diagnoses", "procedures"])
def test_a_code_with_the_number_of_an_item_is_no_item(feature):
    assert Titles.packaged().find(feature, "50931") is None


@pytest.mark.skipif(not MIMIC_DEMO.is_dir(), reason="the MIMIC-IV demo's tables are not beside this checkout")
def test_the_mimic_demo():
    titles = Titles(MIMIC_DEMO)
    assert titles.find("icd_codes", "4019") == Title("Unspecified essential hypertension")
    assert titles.find("labs", "Sodium") == Title("Sodium", unit="mEq/L")


def test_own_titles_come_first_and_keep_units():
    known = Titles.packaged()
    titles = known.renamed({"I10": "Hypertension", ("labs", "Sodium"): "Na"}).renamed({"own": "Mine"})
    assert titles.find("icd_codes", "I10") == Title("Hypertension")
    sodium = titles.find("labs", "Sodium")
    assert (sodium.text, sodium.unit) == ("Na", known.find("labs", "Sodium").unit)
    assert titles.find("serum", "Sodium").text == "Sodium"
    assert titles.find("codes", "own") == Title("Mine")
    assert titles.find("codes", "other") is None
    assert known.find("icd_codes", "I10").text != "Hypertension"
    assert not titles.renamed({"E871": "Hyponatraemia"}).find("icd_codes", "E871").ambiguous
