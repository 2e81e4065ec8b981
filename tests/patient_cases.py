"""Patients made up for tests of their pages, in a cohort's folder as the engine lays it out."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from cohort_folders import write

from deeplift_fast.cohort.tables import INTERACTIONS
from deeplift_fast.report.titles import Title

LABS = {  # usual value, unit, reference range
    "Sodium": (139, "mEq/L", 133, 145),
    "Potassium": (4.2, "mEq/L", 3.3, 5.1),
    "Chloride": (102, "mEq/L", 96, 108),
    "Bicarbonate": (24, "mEq/L", 22, 32),
    "Glucose": (118, "mg/dL", 70, 105),
    "Calcium": (8.8, "mg/dL", 8.4, 10.3),
    "Magnesium": (2.0, "mg/dL", 1.6, 2.6),
    "Anion Gap": (13, "mEq/L", 8, 20),
    "Osmolality": (290, "mOsm/kg", 275, 310),
    "Phosphate": (3.4, "mg/dL", 2.7, 4.5),
}
TITLES = {
    "I10": "Essential (primary) hypertension",
    "N179": "Acute kidney failure, unspecified",
    "E119": "Type 2 diabetes mellitus without complications",
    "I5032": "Chronic diastolic (congestive) heart failure",
    "A419": "Sepsis, unspecified organism",
    "J9601": "Acute respiratory failure with hypoxia",
    "4019": "Unspecified essential hypertension",
    "R6521": "Severe sepsis with septic shock",
    "Z515": "Encounter for palliative care",
    "E785": "Hyperlipidemia, unspecified",
    "I2510": "Atherosclerotic heart disease of native coronary artery without angina pectoris",
    "N186": "End stage renal disease",
    "D649": "Anemia, unspecified",
    "K219": "Gastro-esophageal reflux disease without esophagitis",
}
CODES = [*TITLES, *(f"Z{number}" for number in range(700, 740))]
WEIGHT = {code: 0.5 * np.sin(1.7 * n) for n, code in enumerate(CODES[:14])}
PATIENT, VISIT = "secret-patient-1", "secret-visit-1"


class Named:
    """What `Titles` tells of these codes and labs."""

    def find(self, feature, code):
        if feature == "labs" and code in LABS:
            _, unit, low, high = LABS[code]
            return Title(code, unit=unit, low=low, high=high)
        return Title(TITLES[code]) if code in TITLES else None


def record(stays=5, codes=8, steps=6, seed=0, label="secret-stay-{}"):
    """A patient's rows: codes at the begin of each stay, labs at its steps, some carried forward; and the stays."""
    rng = np.random.default_rng(seed)
    begins = np.sort(rng.choice(np.arange(1, 40 * stays), stays - 1, replace=False)) if stays > 1 else []
    begins = [0.0, *map(float, begins)]
    rows = []
    for stay, begin in enumerate(begins):
        often = np.r_[np.full(14, 4.0), np.ones(len(CODES) - 14)]
        drawn = rng.choice(CODES, size=min(codes, len(CODES)), replace=False, p=often / often.sum())
        for slot, code in enumerate(drawn):
            moved = WEIGHT.get(code, 0.02) * rng.uniform(0.2, 0.5) + rng.normal(0, 0.02)
            rows.append(("conditions", stay, slot, code, begin, begin, label.format(stay), None, np.nan, moved))
        for step in range(steps):
            day = begin + step * 0.31
            for slot, (lab, (usual, *_)) in enumerate(LABS.items()):
                measured = bool(rng.random() < (0.75 if slot < 8 else 0.2))
                value = round(usual * rng.normal(1, 0.09), 0 if usual > 20 else 1)
                moved = 0.02 * rng.normal() + (0.03 * (value / usual - 1) if measured else 0)
                place = stay * steps + step
                value = value if measured else np.nan
                rows.append(("labs", place, slot, lab, day, day, label.format(stay), measured, value, moved))
    columns = ["feature", "step", "slot", "code", "time", "day", "stay", "measured", "value", "attribution"]
    return pd.DataFrame(rows, columns=columns), [
        {"label": label.format(stay), "begin": begin} for stay, begin in enumerate(begins)
    ]


def plain(rows):
    """The rows as of a run whose samples had no metadata: a carried-forward value is a value."""
    filled = rows.groupby("code")["value"].ffill().where(rows["feature"] == "labs")
    first = rows["code"].map({lab: usual for lab, (usual, *_) in LABS.items()})
    rows = rows.assign(value=filled.fillna(first).where(rows["feature"] == "labs"))
    return rows.assign(day=np.nan, stay=None, measured=None)


def folder(out, *records, others=30, rules="complete", baseline="typical 0123456789ab", patient=PATIENT, output=-0.4):
    """A cohort in which the first samples are these pairs of rows and stays, and small others follow."""
    every = [*records, *(record(1, 6, 2, seed=100 + number) for number in range(others))]
    samples, tables = [], []
    for number, (rows, stays) in enumerate(every):
        own = number < len(records)
        names = {
            "patient_id": patient if own and number == 0 else f"other-patient-{number}",
            "visit_id": VISIT if own and number == 0 else f"other-visit-{number}",
        }
        tables.append(rows.assign(sample=number, **names))
        change = float(rows["attribution"].astype(np.float32).sum())
        samples.append(
            {
                "sample": number,
                **names,
                "split": "test",
                "target": 0,
                "output": output,
                "baseline_output": output - change,
                "probability": 1 / (1 + np.exp(-output)),
                "label": float(number % 2),
                "convergence_delta": 1e-7,
                "stays": stays,
            }
        )
    write(out, pd.DataFrame(samples), pd.concat(tables, ignore_index=True), rules=rules, baseline=baseline)
    path = out / "manifest.json"
    about = json.loads(path.read_text())
    about["identity"] |= {
        "model": {"class": "pyhealth.models.stagenet.StageNet", "weights": "ab12" * 16},
        "dataset": {"output_schema": {"mortality": "binary"}},
        "versions": {"deeplift_fast": "0.1.0", "torch": "2.14.1", "pyhealth": "2.1.0"},
    }
    path.write_text(json.dumps(about | {"total": len(every)}))
    return out


def pairs(found):
    """The table `interactions` of the first patient: by pair of codes, how they act together."""
    names = {"sample": 0, "patient_id": PATIENT, "visit_id": VISIT}
    features = {"first_feature": "conditions", "second_feature": "conditions"}
    rows = [
        names | features | {"first_code": first, "second_code": second, "interaction": moved}
        for (first, second), moved in found.items()
    ]
    return pd.DataFrame(rows).reindex(columns=INTERACTIONS.names)


def cohort_table(out):
    """The table of `deeplift_fast.report.cohort_table`, made simply."""
    rows = pd.read_parquet(Path(out) / "attributions")
    named = rows.assign(code=rows["code"].astype(object))
    sums = named.groupby(["feature", "code", "sample", "patient_id"], observed=True)["attribution"].sum().reset_index()
    found = []
    for (feature, code), part in sums.groupby(["feature", "code"], observed=True):
        quantiles = np.quantile(part["attribution"], [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1])
        names = [f"q{share:02d}" for share in (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)]
        about = {"target": 0, "feature": feature, "code": code, "samples": len(part)}
        found.append(about | {"patients": part["patient_id"].nunique()} | dict(zip(names, quantiles, strict=True)))
    return pd.DataFrame(found)
