import patient_cases as cases
import pytest
from cohort_folders import draw, write

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.patient.rows import likelihood, read_sample


def test_a_sample_has_all_its_rows_wherever_they_lie(five):
    found = read_sample(CohortFolder(five), patient=cases.PATIENT)
    rows, stays = cases.record()
    assert found == read_sample(CohortFolder(five), sample=0)
    assert [row.name for row in found.rows] == rows["code"].tolist()
    assert [row.attribution for row in found.rows] == pytest.approx(rows["attribution"].tolist())
    assert found.stays == tuple((each["label"], each["begin"]) for each in stays)
    assert found.valued == {"labs"}
    assert (found.patient, found.visit, found.split, found.unit) == (cases.PATIENT, cases.VISIT, "test", "logit")
    hollow = [row for row in found.rows if row.measured is False]
    assert hollow
    assert all(row.value is None for row in hollow)


def test_the_last_sample_is_found_in_the_last_part(five):
    assert read_sample(CohortFolder(five), sample=31).patient == "other-patient-31"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"sample": 99},
            r"sample 99 is not in the finished parts of .*; accepted: the number of a sample from 0 to 31",
        ),
        ({"patient": "nobody"}, r"patient 'nobody' is not in the finished parts"),
        ({"sample": 0, "patient": "nobody"}, r"sample 0 of patient 'nobody'"),
        ({}, "give the number of a sample, or a patient_id"),
    ],
)
def test_what_is_not_there_is_said(five, asked, said):
    with pytest.raises(SummaryError, match=said) as told:
        read_sample(CohortFolder(five), **asked)
    assert "secret" not in str(told.value)


def test_a_patient_of_several_samples_is_asked_for_by_number(tmp_path):
    out = write(tmp_path / "out", *draw())
    with pytest.raises(SummaryError, match=r"has \d+ samples \(.*\); choose one of them by its number, with --sample"):
        read_sample(CohortFolder(out), patient="patient-14")


def test_sigmoids_do_not_overflow():
    assert (likelihood(0.0), likelihood(1000.0), likelihood(-1000.0)) == (0.5, 1.0, 0.0)
