"""The task in docs/cohorts.md that writes metadata runs as it stands."""

import re
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from cohort_cases import run, table
from metadata_cases import stagenet
from pyhealth.datasets import create_sample_dataset

TEXT = (Path(__file__).parents[2] / "docs/cohorts.md").read_text(encoding="utf-8")
FIRST = datetime(2150, 3, 1, 12)


class Patient:
    """Two stays, 40 days apart, and a lab in each."""

    def __init__(self, number):
        self.patient_id = f"p{number}"
        times = [FIRST, FIRST + timedelta(days=40)]
        self.admissions = [
            SimpleNamespace(timestamp=time, hadm_id=place, hospital_expire_flag=str(number))
            for place, time in enumerate(times)
        ]

    def get_events(self, kind, filters=()):
        if kind == "admissions":
            return self.admissions
        (((name, _, stay),),) = (filters,)
        assert name == "hadm_id"
        if kind == "diagnoses_icd":
            return [SimpleNamespace(icd_code=code) for code in ("I10", "E11")[: 2 - stay]]
        time = self.admissions[stay].timestamp + timedelta(days=0.25)
        return [SimpleNamespace(timestamp=time, sodium=140.0 - stay, potassium=None if stay else 4.0)]


def test_a_task_of_ones_own_writes_metadata(tmp_path):
    (code,) = re.findall(r"```python\n(from pyhealth.tasks import BaseTask\n.*?)```", TEXT, re.DOTALL)
    names = {}
    exec(code, names)
    task = names["Mortality"]()
    samples = [sample for number in range(2) for sample in task(Patient(number))]
    data = create_sample_dataset(samples, task.input_schema, task.output_schema, in_memory=True)
    run(stagenet(data), data, tmp_path, dimensions={"labs": ["Sodium", "Potassium"]})
    assert not table(tmp_path, "failures").num_rows
    rows = table(tmp_path, "attributions").to_pylist()
    shown = [(row["code"], row["day"], row["stay"], row["measured"], row["value"]) for row in rows if not row["sample"]]
    assert shown == [
        ("I10", 0.0, "stay 1", None, None),
        ("E11", 0.0, "stay 1", None, None),
        ("I10", 40.0, "stay 2", None, None),
        ("Sodium", 0.25, "stay 1", True, 140.0),
        ("Potassium", 0.25, "stay 1", True, 4.0),
        ("Sodium", 40.25, "stay 2", True, 139.0),
        ("Potassium", 40.25, "stay 2", False, None),  # carried forward
    ]
    assert table(tmp_path, "samples")["stays"].to_pylist()[0][1] == {"label": "stay 2", "begin": 40.0}


def test_every_column_is_in_the_documentation():
    from deeplift_fast.cohort import ATTRIBUTIONS, SAMPLES

    _, _, text = TEXT.partition("\n## The folder\n")
    tables = "".join(line for line in text.splitlines() if line.startswith("| `"))
    assert all(f"`{name}`" in tables for name in (*SAMPLES.names, *ATTRIBUTIONS.names))
