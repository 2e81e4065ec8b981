"""Writes a synthetic hospital in the file layout of MIMIC-IV, with a planted cause of death.

Patients have chronic conditions, which are coded again at later stays, and blood draws throughout each stay. `PLANTED`
is a logistic model of death at the last stay. Its terms are diagnoses coded at an *earlier* stay, levels of laboratory
values at the *last* stay, and a few pairwise interactions. PyHealth's ``MortalityPredictionStageNetMIMIC4`` reads the
same diagnoses and values, so the ranks of the terms measure an attribution method.

Patients are drawn and written in chunks, each with its own seed. Memory does not grow with their number, the same seed
gives the same bytes, and a smaller hospital is the start of a larger one.
"""

import csv
import gzip
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from deeplift_fast.demo.codes import DIAGNOSES, LAB_ITEMS, PROCEDURES
from deeplift_fast.demo.planted import PLANTED
from deeplift_fast.support.bars import bar

CHUNK = 500
"""Patients drawn at a time."""

ANALYTES: tuple[str, ...] = tuple(dict.fromkeys(item.analyte for item in LAB_ITEMS))
"""PyHealth's lab categories; the laboratory measures several items of each."""

# Shares of patients who carry a diagnosis: common, planted and other ones.
_COMMON = {
    "I10": 0.34,
    "E785": 0.28,
    "Z87891": 0.24,
    "K219": 0.22,
    "I4891": 0.20,
    "N1830": 0.19,
    "I2510": 0.18,
    "N179": 0.18,
    "E119": 0.16,
    "Z7982": 0.15,
    "D649": 0.15,
    "F329": 0.14,
    "J449": 0.13,
    "Z794": 0.12,
    "E039": 0.12,
    "N390": 0.10,
    "Z7901": 0.10,
    "D62": 0.09,
    "E871": 0.09,
    "G4733": 0.08,
}
_PLANTED_SHARE = 0.13
_OTHER_SHARE = 0.012
_CODED_AGAIN = 0.85  # share of a patient's conditions that a stay records

_STAYS = np.array([0.04, 0.34, 0.25, 0.15, 0.10, 0.06, 0.04, 0.02])  # share of patients with 1, 2, … stays
_HOUR = 3600
_DAY = 24 * _HOUR


@dataclass(frozen=True)
class _Stays:
    """Hospital stays of one chunk, sorted by patient and time; every array has one entry per stay."""

    patient: np.ndarray  # int64, index within the chunk
    last: np.ndarray  # bool, the patient's last stay
    hadm_id: np.ndarray  # int64
    admitted: np.ndarray  # datetime64[s]
    length: np.ndarray  # int64, seconds


def write_hospital(root: Path, patients: int = 1000, seed: int = 0) -> None:
    """Writes the tables ``hosp/*.csv.gz`` and ``icu/icustays.csv.gz`` under ``root``.

    Args:
        root: Folder to write into; made if it does not exist.
        patients: Number of patients, at least 1.
        seed: Any non-negative integer. The same seed gives the same bytes; with more patients, the same
            patients come first.

    Raises:
        ValueError: If ``patients`` or ``seed`` is out of range.
    """
    if patients < 1:
        raise ValueError(f"patients is {patients}; accepted: 1 or more")
    if seed < 0:
        raise ValueError(f"seed is {seed}; accepted: 0 or more")
    for folder in ("hosp", "icu"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _write_dictionaries(root / "hosp")
    with ExitStack() as stack:
        writers: dict[str, pa_csv.CSVWriter] = {}
        shown = stack.enter_context(bar(total=patients, desc="Patients", unit="", delay=1))
        for chunk in range(-(-patients // CHUNK)):
            wanted = min(CHUNK, patients - chunk * CHUNK)
            for name, table in _draw_chunk(seed, chunk, wanted).items():
                if name not in writers:
                    writers[name] = stack.enter_context(_csv_writer(root / name, table.schema))
                writers[name].write_table(table)
            shown.update(wanted)


@contextmanager
def _gzip_file(path: Path) -> Iterator[IO[bytes]]:
    """A gzip file whose bytes depend on its contents alone: no name, no time stamp."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=5, fileobj=raw, mtime=0) as file:
        yield cast(IO[bytes], file)


@contextmanager
def _csv_writer(path: Path, schema: pa.Schema) -> Iterator[pa_csv.CSVWriter]:
    options = pa_csv.WriteOptions(quoting_style="none")
    with _gzip_file(path) as file, pa_csv.CSVWriter(file, schema, write_options=options) as writer:
        yield writer


def _write_dictionaries(hosp: Path) -> None:
    icd = ["icd_code", "icd_version", "long_title"]
    tables: dict[str, tuple[list[str], list[list[object]]]] = {
        "d_icd_diagnoses": (icd, [[c, 10, t] for c, t in DIAGNOSES.items()]),
        "d_icd_procedures": (icd, [[c, 10, t] for c, t in PROCEDURES.items()]),
        "d_labitems": (
            ["itemid", "label", "fluid", "category"],
            [[item.itemid, item.label, "Blood", item.category] for item in LAB_ITEMS],
        ),
    }
    for name, (header, rows) in tables.items():
        with _gzip_file(hosp / f"{name}.csv.gz") as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)


def _draw_chunk(seed: int, chunk: int, wanted: int) -> dict[str, pa.Table]:
    """The event tables of the first ``wanted`` patients of a chunk, by path under the hospital's root."""
    # A chunk is always drawn whole, so that a smaller hospital is the start of a larger one.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(chunk,)))
    subject = 10_000_000 + chunk * CHUNK + np.arange(CHUNK)
    stays = _draw_stays(rng, chunk)
    diagnoses = _draw_diagnoses(rng, stays)
    level = _draw_levels(rng, stays)
    died = rng.random(CHUNK) < _probability_of_death(stays, diagnoses, level)
    tables = {
        "hosp/patients.csv.gz": _patients(rng, subject, stays, died),
        "hosp/admissions.csv.gz": _admissions(rng, subject, stays, died),
        "hosp/diagnoses_icd.csv.gz": _diagnoses_icd(rng, subject, stays, diagnoses),
        "hosp/procedures_icd.csv.gz": _procedures_icd(rng, subject, stays),
        "hosp/labevents.csv.gz": _labevents(rng, chunk, subject, stays, level),
        "icu/icustays.csv.gz": _icustays(rng, subject, stays),
    }
    limit = int(subject[0]) + wanted
    return {name: table.filter(pc.less(table["subject_id"], limit)) for name, table in tables.items()}


def _draw_stays(rng: np.random.Generator, chunk: int) -> _Stays:
    count = rng.choice(np.arange(1, len(_STAYS) + 1), size=CHUNK, p=_STAYS)
    patient = np.repeat(np.arange(CHUNK), count)
    first = np.r_[True, patient[1:] != patient[:-1]]
    length = (np.clip(rng.lognormal(1.35, 0.6, len(patient)), 0.8, 21.0) * _DAY).astype(np.int64)
    gap = (np.clip(rng.lognormal(3.3, 0.9, len(patient)), 1.0, 400.0) * _DAY).astype(np.int64)
    start = _later(np.datetime64("2110-01-01", "s"), rng.integers(0, 80 * 365 * _DAY, CHUNK))
    # Seconds since the patient's first admission: stays and gaps before this one, summed within the patient.
    before = np.where(first, 0, np.r_[0, (length + gap)[:-1]])
    elapsed = np.cumsum(before)
    elapsed -= np.repeat(elapsed[first], count)
    return _Stays(
        patient=patient,
        last=np.r_[first[1:], True],
        hadm_id=20_000_000 + chunk * CHUNK * len(_STAYS) + np.arange(len(patient)),
        admitted=_later(start[patient], elapsed),
        length=length,
    )


def _draw_diagnoses(rng: np.random.Generator, stays: _Stays) -> np.ndarray:
    """Whether each stay records each code of ``DIAGNOSES``: bool, [stays, codes]; at least one code per stay."""
    planted = set(PLANTED.codes) | {name for pair in PLANTED.interactions for name in pair}
    share = np.array([_COMMON.get(c, _PLANTED_SHARE if c in planted else _OTHER_SHARE) for c in DIAGNOSES])
    carried = rng.random((CHUNK, len(share))) < share
    again = rng.random((len(stays.patient), len(share))) < _CODED_AGAIN
    recorded = carried[stays.patient] & again
    acute = rng.random(recorded.shape) < 0.007
    acute[np.arange(len(recorded)), rng.integers(0, len(share), len(recorded))] = True
    return recorded | acute


def _draw_levels(rng: np.random.Generator, stays: _Stays) -> np.ndarray:
    """Level of every analyte at every stay, in standard deviations: float64, [stays, analytes]."""
    of_patient = rng.standard_normal((CHUNK, len(ANALYTES)))
    of_stay = rng.standard_normal((len(stays.patient), len(ANALYTES)))
    return 0.55 * of_patient[stays.patient] + np.sqrt(1 - 0.55**2) * of_stay


def _probability_of_death(stays: _Stays, diagnoses: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Probability that each patient's last stay ends in death: float64, [patients]."""
    earlier = np.zeros((CHUNK, len(DIAGNOSES)), dtype=bool)
    np.logical_or.at(earlier, stays.patient[~stays.last], diagnoses[~stays.last])
    codes = list(DIAGNOSES)

    def term(name: str) -> np.ndarray:
        if name in ANALYTES:
            return level[stays.last][:, ANALYTES.index(name)]
        return earlier[:, codes.index(name)].astype(np.float64)

    logit = np.full(CHUNK, PLANTED.intercept)
    for name, weight in (PLANTED.codes | PLANTED.labs).items():
        logit += weight * term(name)
    for (one, other), weight in PLANTED.interactions.items():
        logit += weight * term(one) * term(other)
    return 1 / (1 + np.exp(-logit))


def _patients(rng: np.random.Generator, subject: np.ndarray, stays: _Stays, died: np.ndarray) -> pa.Table:
    first = np.r_[True, stays.patient[1:] != stays.patient[:-1]]
    discharged = _later(stays.admitted, stays.length)[stays.last]
    return pa.table(
        {
            "subject_id": subject,
            "gender": rng.choice(["F", "M"], CHUNK),
            "anchor_age": np.clip(rng.normal(63, 16, CHUNK).astype(np.int64), 18, 91),
            "anchor_year": stays.admitted[first].astype("datetime64[Y]").astype(np.int64) + 1970,
            "anchor_year_group": rng.choice(["2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019"], CHUNK),
            "dod": pa.array(discharged.astype("datetime64[D]"), mask=~died),
        }
    )


def _admissions(rng: np.random.Generator, subject: np.ndarray, stays: _Stays, died: np.ndarray) -> pa.Table:
    n = len(stays.patient)
    death = stays.last & died[stays.patient]
    discharged = _later(stays.admitted, stays.length)
    home = rng.choice(["HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB"], n, p=[0.5, 0.25, 0.15, 0.1])
    # Constant within a patient, as in MIMIC-IV.
    language = rng.choice(["English", "Spanish"], CHUNK, p=[0.9, 0.1])[stays.patient]
    marital = rng.choice(["MARRIED", "SINGLE", "WIDOWED", "DIVORCED"], CHUNK)[stays.patient]
    race = rng.choice(["WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN", "OTHER"], CHUNK, p=[0.6, 0.2, 0.1, 0.1])
    arrival = _later(stays.admitted, -rng.integers(1, 9, n) * _HOUR)
    provider = np.char.add("P", rng.integers(1000, 9999, n).astype(str))
    return pa.table(
        {
            "subject_id": subject[stays.patient],
            "hadm_id": stays.hadm_id,
            "admittime": stays.admitted,
            "dischtime": discharged,
            "deathtime": pa.array(discharged, mask=~death),
            "admission_type": rng.choice(["EW EMER.", "URGENT", "OBSERVATION ADMIT"], n, p=[0.6, 0.2, 0.2]),
            "admit_provider_id": provider,
            "admission_location": rng.choice(["EMERGENCY ROOM", "PHYSICIAN REFERRAL"], n, p=[0.7, 0.3]),
            "discharge_location": np.where(death, "DIED", home),
            "insurance": rng.choice(["Medicare", "Medicaid", "Other"], n, p=[0.5, 0.15, 0.35]),
            "language": language,
            "marital_status": marital,
            "race": race[stays.patient],
            "edregtime": arrival,
            "edouttime": _later(stays.admitted, _HOUR),
            "hospital_expire_flag": death.astype(np.int64),
        }
    )


def _later(time: np.ndarray | np.datetime64, seconds: np.ndarray | int) -> np.ndarray:
    """Times (datetime64[s]) after whole seconds."""
    return time + np.asarray(seconds).astype("timedelta64[s]")


def _numbered(groups: np.ndarray) -> np.ndarray:
    """1, 2, … within each run of equal values of a sorted array."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)])) + 1


def _diagnoses_icd(rng: np.random.Generator, subject: np.ndarray, stays: _Stays, diagnoses: np.ndarray) -> pa.Table:
    stay, code = diagnoses.nonzero()
    order = np.lexsort((rng.random(len(stay)), stay))  # codes within a stay are in random order
    stay, code = stay[order], code[order]
    return pa.table(
        {
            "subject_id": subject[stays.patient[stay]],
            "hadm_id": stays.hadm_id[stay],
            "seq_num": _numbered(stay),
            "icd_code": np.array(list(DIAGNOSES))[code],
            "icd_version": np.full(len(stay), 10),
        }
    )


def _procedures_icd(rng: np.random.Generator, subject: np.ndarray, stays: _Stays) -> pa.Table:
    share = 1 / (3 + np.arange(len(PROCEDURES)))
    done = rng.random((len(stays.patient), len(share))) < 0.25 * share
    stay, code = done.nonzero()
    day = _later(stays.admitted[stay], rng.random(len(stay)) * stays.length[stay])
    return pa.table(
        {
            "subject_id": subject[stays.patient[stay]],
            "hadm_id": stays.hadm_id[stay],
            "seq_num": _numbered(stay),
            "chartdate": day.astype("datetime64[D]"),
            "icd_code": np.array(list(PROCEDURES))[code],
            "icd_version": np.full(len(stay), 10),
        }
    )


def _draw_blood(rng: np.random.Generator, stays: _Stays) -> tuple[np.ndarray, np.ndarray]:
    """The stay (int64) and the time (datetime64[s]) of every blood draw, sorted."""
    count = np.clip(1 + stays.length // _DAY, 1, 9)
    stay = np.repeat(np.arange(len(count)), count)
    nth = _numbered(stay) - 1
    hours = np.where(nth == 0, rng.uniform(0.5, 4.0, len(stay)), nth * 24 - 18 + rng.uniform(-3, 3, len(stay)))
    return stay, _later(stays.admitted[stay], hours * _HOUR)


def _labevents(rng: np.random.Generator, chunk: int, subject: np.ndarray, stays: _Stays, level: np.ndarray) -> pa.Table:
    stay, time = _draw_blood(rng, stays)
    gas = np.array([item.category == "Blood Gas" for item in LAB_ITEMS])
    share = np.array([item.share for item in LAB_ITEMS])
    gas_drawn = rng.random(len(stay)) < 0.45
    measured = (rng.random((len(stay), len(share))) < share) & (gas_drawn[:, None] | ~gas)
    draw, item = measured.nonzero()
    analyte = np.array([ANALYTES.index(i.analyte) for i in LAB_ITEMS])[item]
    z = 0.92 * level[stay[draw], analyte] + 0.39 * rng.standard_normal(len(draw))
    names = ("mean", "spread", "decimals", "low", "high")
    of = {name: np.array([getattr(i, name) for i in LAB_ITEMS])[item] for name in names}
    scale = 10.0 ** of["decimals"]
    value = np.rint(np.maximum(of["mean"] + of["spread"] * z, 0.1 * of["mean"]) * scale) / scale
    empty = pa.nulls(len(draw), pa.string())
    return pa.table(
        {
            "labevent_id": chunk * 1_000_000 + 1 + np.arange(len(draw)),
            "subject_id": subject[stays.patient[stay[draw]]],
            "hadm_id": stays.hadm_id[stay[draw]],
            "specimen_id": chunk * 100_000 + 1 + draw,
            "itemid": np.array([i.itemid for i in LAB_ITEMS])[item],
            "order_provider_id": empty,
            "charttime": time[draw],
            "storetime": _later(time, rng.integers(10, 90, len(stay)) * 60)[draw],
            "value": pc.cast(pa.array(value), pa.string()),
            "valuenum": value,
            "valueuom": np.array([i.unit for i in LAB_ITEMS])[item],
            "ref_range_lower": of["low"],
            "ref_range_upper": of["high"],
            "flag": pa.array(np.full(len(draw), "abnormal"), mask=(value >= of["low"]) & (value <= of["high"])),
            "priority": rng.choice(["STAT", "ROUTINE"], len(stay))[draw],
            "comments": empty,
        }
    )


def _icustays(rng: np.random.Generator, subject: np.ndarray, stays: _Stays) -> pa.Table:
    (stay,) = (rng.random(len(stays.patient)) < 0.3).nonzero()
    units = ["Medical Intensive Care Unit (MICU)", "Surgical Intensive Care Unit (SICU)", "Coronary Care Unit (CCU)"]
    unit = rng.choice(units, len(stay))
    seconds = (stays.length[stay] * rng.uniform(0.2, 0.9, len(stay))).astype(np.int64)
    return pa.table(
        {
            "subject_id": subject[stays.patient[stay]],
            "hadm_id": stays.hadm_id[stay],
            "stay_id": stays.hadm_id[stay] + 10_000_000,
            "first_careunit": unit,
            "last_careunit": unit,
            "intime": _later(stays.admitted[stay], _HOUR),
            "outtime": _later(stays.admitted[stay], _HOUR + seconds),
            "los": np.round(seconds / _DAY, 4),
        }
    )
