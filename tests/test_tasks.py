"""Tasks: PyHealth's samples, and the day and stay of each step."""

import itertools
import pickle
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("pyhealth")

from pyhealth.data import Patient
from pyhealth.datasets import MIMIC4Dataset, create_sample_dataset
from pyhealth.tasks import MortalityPredictionStageNetMIMIC4

from deeplift_fast.demo.hospital import write_hospital
from deeplift_fast.demo.processors import DailyCodes, StandardLabs
from deeplift_fast.demo.samples import EHR_TABLES, quiet_pyhealth
from deeplift_fast.tasks import MortalityWithStaysMIMIC4

MIMIC_DEMO = Path(__file__).resolve().parents[1] / "../shared/data/mimic-demo"
SODIUM, POTASSIUM, OTHER = "50983", "50971", "51221"
BEGIN = datetime(2150, 1, 1, 8)
OURS = {"icd_codes_days", "icd_codes_stay", "labs_days", "labs_stay", "labs_measured", "stays", "visit_id"}


def stamp(time):
    return f"{time:%Y-%m-%d %H:%M:%S}"


def admitted(hadm_id, day, days=4.0, died=0, codes=("I10",)):
    """Events of a stay: its admission, and its codes."""
    begin, end = BEGIN + timedelta(days=day), BEGIN + timedelta(days=day + days)
    stay = {"hadm_id": hadm_id, "dischtime": stamp(end), "hospital_expire_flag": str(died)}
    coded = [("diagnoses_icd", end, {"hadm_id": hadm_id, "icd_code": code}) for code in codes]
    return [("admissions", begin, stay), *coded]


def drawn(day, values, stored=0.01):
    """Events of a blood draw."""
    time = BEGIN + timedelta(days=day)
    late = stamp(time + timedelta(days=stored))
    return [("labevents", time, {"itemid": item, "valuenum": value, "storetime": late}) for item, value in values]


def patient(*events, age="60"):
    """A PyHealth patient; events are (kind, time, attributes)."""
    columns = {
        "admissions": ("hadm_id", "dischtime", "hospital_expire_flag"),
        "diagnoses_icd": ("hadm_id", "icd_code"),
        "procedures_icd": ("hadm_id", "icd_code"),
        "labevents": ("itemid", "valuenum", "storetime"),
        "patients": ("anchor_age",),
    }
    schema = {"event_type": pl.String, "timestamp": pl.Datetime("ms")}
    schema |= {f"{kind}/{name}": pl.String for kind, names in columns.items() for name in names}
    events = [("patients", None, {"anchor_age": age}), *itertools.chain(*events)]
    rows = [
        {"event_type": kind, "timestamp": time, **{f"{kind}/{name}": each for name, each in given.items()}}
        for kind, time, given in events
    ]
    return Patient("p1", pl.DataFrame(rows, schema=schema))


def assert_same(sample, theirs):
    """The sample is PyHealth's and the metadata."""
    assert repr({key: sample[key] for key in theirs}) == repr(theirs)  # NaN equals itself in repr alone
    assert set(sample) - set(theirs) == OURS


def sample_of(*events):
    """The sample of a patient, which is PyHealth's in all but the metadata."""
    found = patient(*events)
    (sample,), (theirs,) = MortalityWithStaysMIMIC4()(found), MortalityPredictionStageNetMIMIC4()(found)
    assert_same(sample, theirs)
    return sample


def test_steps_stand_under_the_days_and_stays_of_the_record():
    sample = sample_of(
        admitted("11", 0, codes=("I10", "E119")),
        drawn(1, [(SODIUM, "140")]),
        admitted("12", 100, codes=()),  # no step, but a stay
        drawn(100.5, [(POTASSIUM, "4.1")]),
        admitted("13", 250.25),
        admitted("14", 400),
        drawn(401, [(SODIUM, "133"), (POTASSIUM, "5.0")]),
    )
    assert sample["stays"] == [("11", 0.0), ("12", 100.0), ("13", 250.25), ("14", 400.0)]
    assert sample["icd_codes_days"] == [0.0, 250.25]  # PyHealth's time of the second, 150.25, counts from stay 12
    assert sample["icd_codes_stay"] == [0, 2]
    assert sample["labs_days"] == [1.0, 100.5, 401.0]
    assert sample["labs_stay"] == [0, 1, 3]
    assert sample["visit_id"] == "14"


def test_only_values_of_the_laboratory_count_as_measured():
    sample = sample_of(
        admitted("11", 0),
        drawn(1, [(SODIUM, "140"), (POTASSIUM, None)]),
        drawn(2, [(OTHER, "7")]),  # none of the task's items: no step
        drawn(3, [(POTASSIUM, "nan"), (SODIUM, "0")]),
        drawn(3.5, [(POTASSIUM, "4.4")]),
        admitted("12", 9),
    )
    measured = [[*row[:2], any(row[2:])] for row in sample["labs_measured"]]
    assert measured == [[True, False, False], [True, False, False], [False, True, False]]
    assert {len(row) for row in sample["labs_measured"]} == {10}


def test_draws_that_pyhealth_leaves_out_have_no_day():
    sample = sample_of(
        admitted("11", 0, days=2),
        drawn(-0.5, [(SODIUM, "138")]),  # before the stay
        drawn(1, [(SODIUM, "139")]),
        drawn(1.9, [(SODIUM, "140")], stored=1),  # known after the stay
        admitted("12", 10, days=9),
        drawn(11, [(SODIUM, "141")]),
        drawn(13, [(SODIUM, "142")]),  # after the window of the target stay
    )
    assert sample["labs_days"] == [1.0, 11.0]


def test_a_record_ends_with_the_stay_of_death():
    stays = [admitted("11", 0), drawn(1, [(SODIUM, "140")]), admitted("12", 20, died=1), admitted("13", 30)]
    sample = sample_of(*stays, drawn(31, [(SODIUM, "150")]))
    assert sample["mortality"] == 1
    assert sample["stays"] == [("11", 0.0), ("12", 20.0)]
    assert (sample["visit_id"], sample["labs_stay"]) == ("12", [0])


def test_days_begin_with_the_first_stay_that_is_read():
    impossible = admitted("10", -50, days=-1)
    sample = sample_of(impossible, admitted("11", 0), drawn(1, [(SODIUM, "140")]), admitted("12", 20))
    assert sample["stays"] == [("11", 0.0), ("12", 20.0)]
    assert sample["icd_codes_days"] == [0.0]


def test_stays_that_overlap_keep_their_own_draws():
    both = drawn(3, [(SODIUM, "140")])
    sample = sample_of(admitted("11", 0, days=4), admitted("12", 2, days=3), both, admitted("13", 30))
    assert (sample["labs_days"], sample["labs_stay"]) == ([3.0, 3.0], [0, 1])


def test_an_admission_given_twice_is_one_stay():
    twice = admitted("11", 0)
    sample = sample_of(twice, twice[:1], drawn(1, [(SODIUM, "140")]), admitted("12", 20))
    assert sample["stays"] == [("11", 0.0), ("12", 20.0)]
    assert (sample["icd_codes_stay"], sample["labs_stay"]) == ([0, 0], [0, 0])


@pytest.mark.parametrize(
    ("events", "age"),
    [
        ((admitted("11", 0), drawn(1, [(SODIUM, "140")])), "60"),  # no codes before the target
        ((admitted("11", 0), admitted("12", 9)), "60"),  # no laboratory values
        ((admitted("11", 0), drawn(1, [(SODIUM, "140")]), admitted("12", 9)), "17"),
        ((), "60"),
    ],
)
def test_patients_whom_pyhealth_leaves_out_are_left_out(events, age):
    found = patient(*events, age=age)
    assert MortalityPredictionStageNetMIMIC4()(found) == MortalityWithStaysMIMIC4()(found) == []


@pytest.mark.parametrize("key", ["icd_codes", "labs"])
def test_another_reading_of_the_record_by_pyhealth_is_an_error(monkeypatch, key):
    found = patient(admitted("11", 0), drawn(1, [(SODIUM, "140")]), admitted("12", 9))
    read = MortalityPredictionStageNetMIMIC4.__call__

    def more(self, patient):
        (sample,) = read(self, patient)
        hours, values = sample[key]
        return [sample | {key: ([*hours, 99.0], values * 2)}]

    monkeypatch.setattr(MortalityPredictionStageNetMIMIC4, "__call__", more)
    with pytest.raises(RuntimeError, match=rf"^the times of {key} are not those"):
        MortalityWithStaysMIMIC4()(found)


def test_a_worker_gets_the_same_task_and_a_cache_of_its_own():
    task = pickle.loads(pickle.dumps(MortalityWithStaysMIMIC4(padding=3)))
    assert vars(task) == vars(MortalityPredictionStageNetMIMIC4(padding=3))
    assert task.task_name != MortalityPredictionStageNetMIMIC4.task_name


def test_processors_keep_the_steps_of_the_metadata():
    task = MortalityWithStaysMIMIC4()
    stays = [admitted("11", 0), drawn(1, [(SODIUM, "140")]), admitted("12", 9), drawn(9.5, [(POTASSIUM, None)])]
    ours = task(patient(*stays, admitted("13", 40)))
    pairs = {"pyhealth": task.input_schema, "demo": {"icd_codes": (DailyCodes, {}), "labs": (StandardLabs, {})}}
    for schema in pairs.values():
        dataset = create_sample_dataset(ours, schema, {"mortality": "multiclass"})
        assert dataset.record_to_index == {"13": [0]}
        sample = dataset[0]
        assert {key: sample[key] for key in OURS} == {key: ours[0][key] for key in OURS}
        for key in ("icd_codes", "labs"):
            lengths = {len(part) for part in sample[key]}
            assert lengths == {len(sample[f"{key}_days"])} == {len(sample[f"{key}_stay"])}
        assert tuple(sample["labs"][1].shape) == (len(sample["labs_measured"]), 10)


@pytest.mark.slow
@pytest.mark.parametrize("root", ["hospital", MIMIC_DEMO], ids=["hospital", "mimic-demo"])
def test_samples_are_those_of_pyhealth_on_whole_hospitals(tmp_path, root):
    if root == "hospital":
        root = tmp_path / "hospital"
        write_hospital(root, patients=40)
    elif not root.is_dir():
        pytest.skip("the MIMIC demo lies beside the checkout, not in it")
    with quiet_pyhealth():
        dataset = MIMIC4Dataset(ehr_root=str(root), ehr_tables=list(EHR_TABLES), cache_dir=str(tmp_path / "cache"))
        patients = list(dataset.iter_patients())
    ours, theirs = MortalityWithStaysMIMIC4(), MortalityPredictionStageNetMIMIC4()
    count = 0
    for each in patients:
        for sample, expected in itertools.zip_longest(ours(each), theirs(each)):
            assert_same(sample, expected)
            begins = [begin for _, begin in sample["stays"]]
            assert begins[0] == 0
            assert begins == sorted(begins)
            assert sample["icd_codes_days"] == [begins[stay] for stay in sample["icd_codes_stay"]]
            hours = [
                24 * (day - begins[stay]) for day, stay in zip(sample["labs_days"], sample["labs_stay"], strict=True)
            ]
            assert hours == pytest.approx(expected["labs"][0], abs=1e-6)
            count += 1
    assert count > 5
