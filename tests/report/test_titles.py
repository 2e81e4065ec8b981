import gzip

import pytest

from deeplift_fast.report import SummaryError
from deeplift_fast.report.titles import Titles, find_table

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
LABS = "itemid,label,fluid,category\n50983,Sodium,Blood,Chemistry\n"


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


def test_either_file_name_will_do(root):
    assert find_table(root, "hosp/d_icd_diagnoses").suffix == ".csv"
    assert find_table(root, "hosp/d_icd_procedures").suffix == ".gz"
    assert find_table(root, "hosp/patients") is None
