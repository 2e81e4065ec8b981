import gzip
from collections import Counter

import pytest

from deeplift_fast.report import SummaryError, release
from deeplift_fast.report.release import code_uses, find_table, lab_ranges


@pytest.fixture
def root(tmp_path):
    (tmp_path / "hosp").mkdir()
    return tmp_path


def test_either_file_name_will_do(root):
    (root / "hosp/d_icd_diagnoses.csv").touch()
    (root / "hosp/d_icd_procedures.csv.gz").touch()
    assert find_table(root, "hosp/d_icd_diagnoses").suffix == ".csv"
    assert find_table(root, "hosp/d_icd_procedures").suffix == ".gz"
    assert find_table(root, "hosp/patients") is None


def test_codes_are_counted_by_dictionary_and_version(root):
    (root / "hosp/diagnoses_icd.csv").write_text(
        "subject_id,icd_code,icd_version\n1,e87.0 ,9\n2,E870,9\n2,E870,10\n3,,\n"
    )
    (root / "hosp/procedures_icd.csv.gz").write_bytes(gzip.compress(b"icd_version,icd_code\n9,0040\nodd,0040\n"))
    assert code_uses(root) == Counter(
        {
            ("d_icd_diagnoses", "E870", 9): 2,
            ("d_icd_diagnoses", "E870", 10): 1,
            ("d_icd_procedures", "0040", 9): 1,
        }
    )


def test_a_release_without_these_tables_has_no_counts(root):
    assert code_uses(root) == Counter()
    assert lab_ranges(root) == {}


def test_units_and_ranges_are_counted_by_item(root):
    (root / "hosp/labevents.csv").write_text(
        "labevent_id,itemid,valueuom,ref_range_lower,ref_range_upper,comments\n"
        '1,50983,mEq/L,133,145,"two\nlines"\n2,50983,mEq/L,133.0,145,\n3,50983,,,,\n4,50970, mg/dL ,odd,inf,\n'
    )
    assert lab_ranges(root) == {
        "50983": Counter({("mEq/L", 133.0, 145.0): 2, ("", None, None): 1}),
        "50970": Counter({("mg/dL", None, None): 1}),
    }


def test_columns_of_ranges_may_be_missing(root):
    (root / "hosp/labevents.csv").write_text("itemid,valueuom\n50983,mEq/L\n")
    assert lab_ranges(root) == {"50983": Counter({("mEq/L", None, None): 1})}


def test_labevents_are_read_up_to_a_number_of_rows(root, monkeypatch):
    path = root / "hosp/labevents.csv"
    # A row that cannot be read stands behind the rows that are read, in a later block.
    path.write_text("itemid,valueuom\n" + "50983,mEq/L\n" * 400_000 + "broken\n")
    monkeypatch.setattr(release, "LAB_ROWS", 1000)
    (counts,) = lab_ranges(root).values()
    assert 1000 <= counts.total() < 400_000
    monkeypatch.setattr(release, "LAB_ROWS", 10**9)
    with pytest.raises(SummaryError, match=r"cannot be read as a table of MIMIC-IV: it is no CSV(, at row #\d+)?; put"):
        lab_ranges(root)


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "itemid\n50983,3\n", "itemid,valueuom\n\xff\xfe,1\n"])
def test_what_is_no_table_of_laboratory_items_is_named(root, content):
    (root / "hosp/labevents.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(SummaryError, match=r"labevents\.csv cannot be read") as caught:
        lab_ranges(root)
    assert "50983" not in str(caught.value)  # no row of a patient in the message
