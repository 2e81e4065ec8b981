"""The sample of a cohort's folder that a page is about: its line of `samples`, and its rows of the other tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from deeplift_fast.cohort.manifest_content import INTERACTIONS
from deeplift_fast.cohort.tables import ATTRIBUTIONS, SAMPLES
from deeplift_fast.errors import SummaryError
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.has_values import HasValues

_SHOWN = 8
"""Numbers of samples that an error lists."""


@dataclass(frozen=True, slots=True)
class Row:
    """One token or value, as in `attributions`; `name` is the code, or "dimension 3" where it has none."""

    feature: str
    name: str
    step: int
    time: float | None
    day: float | None
    stay: str | None
    measured: bool | None
    value: float | None
    attribution: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two codes that act together, as in `interactions`; each is a feature and a code."""

    first: tuple[str, str]
    second: tuple[str, str]
    interaction: float

    @property
    def codes(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Both codes."""
        return self.first, self.second


@dataclass(frozen=True)
class Sample:
    """A sample, with the columns of `samples`, and its rows.

    Attributes:
        stays: label and begin of the patient's stays, in days from the first record; empty where not known.
        valued: the features of values, as opposed to codes.
        pairs: the pairs of its strongest codes; `None` for a cohort without interactions.
    """

    number: int
    patient: str | None
    visit: str | None
    split: str | None
    target: int
    output: float
    baseline_output: float
    probability: float | None
    label: float | None
    convergence_delta: float
    stays: tuple[tuple[str, float | None], ...]
    rows: tuple[Row, ...]
    valued: frozenset[str]
    pairs: tuple[Pair, ...] | None = None

    @property
    def change(self) -> float:
        """The change in output from the baseline to the input."""
        return self.output - self.baseline_output

    @property
    def unit(self) -> str:
        """What outputs and contributions are in: "logit", or "output" for regression."""
        return "output" if self.probability is None else "logit"

    @property
    def is_likely(self) -> bool:
        """Whether the probability is the sigmoid of the output, so that each output has a probability of its own."""
        return self.probability is not None and abs(likelihood(self.output) - self.probability) < 1e-4


def likelihood(output: float) -> float:
    """The sigmoid of an output."""
    return 1 / (1 + math.exp(-output)) if output >= 0 else math.exp(output) / (1 + math.exp(output))


def read_sample(folder: CohortFolder, sample: int | None = None, patient: str | None = None) -> Sample:
    """A sample of the finished parts.

    Args:
        folder: the cohort.
        sample: the sample's number; `None` where the patient is given.
        patient: the patient's `patient_id`; `None` where the sample is given. Both must fit if both are given.

    Raises:
        SummaryError: if there is no such sample, the patient has several, or a file is missing or damaged. The message
            repeats what was given and names no other patient.
    """
    if sample is None and patient is None:
        raise SummaryError("neither sample nor patient is given; give the number of a sample, or a patient_id")
    found: list[tuple[int, dict[str, Any]]] = []
    for part in _parts(folder, sample):
        table = folder.samples(part, SAMPLES.names)
        if sample is not None:
            table = table.filter(pa.compute.equal(table["sample"], sample))
        if patient is not None:
            table = table.filter(pa.compute.equal(table["patient_id"].cast(pa.string()), patient))
        found += [(part, each) for each in table.to_pylist()]
    if not found:
        raise SummaryError(_missing(folder, sample, patient))
    if len(found) > 1:
        numbers = [each["sample"] for _, each in found]
        listed = ", ".join(map(str, numbers[:_SHOWN])) + (", …" if len(numbers) > _SHOWN else "")
        raise SummaryError(
            f"patient {patient!r} has {len(numbers)} samples ({listed}); choose one of them by its number, with "
            "--sample (in Python: sample=)"
        )
    return _sample(folder, *found[0])


def _parts(folder: CohortFolder, sample: int | None) -> tuple[int, ...]:
    """The parts in which a sample may be."""
    if sample is None:
        return folder.parts
    return tuple(number for number, part in folder.manifest.parts.items() if part.begin <= sample < part.end)


def _missing(folder: CohortFolder, sample: int | None, patient: str | None) -> str:
    asked = [f"{name} {value!r}" for name, value in (("sample", sample), ("patient", patient)) if value is not None]
    last = max((part.end for part in folder.manifest.parts.values()), default=0) - 1
    return (
        f"{' of '.join(asked)} is not in the finished parts of {folder.out}; accepted: the number of a sample"
        f"{f' from 0 to {last}' if last >= 0 else ''} that was attributed, or a patient_id of the table samples"
    )


def _sample(folder: CohortFolder, part: int, about: dict[str, Any]) -> Sample:
    columns = [name for name in ATTRIBUTIONS.names if name not in ("sample", "patient_id", "visit_id")]
    table = folder.rows_of(part, about["sample"], columns)
    rows = tuple(_row(each) for each in table.to_pylist())
    stays = tuple((each["label"], each["begin"]) for each in about.get("stays") or ())
    return Sample(
        number=about["sample"],
        patient=about["patient_id"],
        visit=about["visit_id"],
        split=about.get("split"),
        target=about["target"] or 0,
        output=about["output"],
        baseline_output=about["baseline_output"],
        probability=about["probability"],
        label=about["label"],
        convergence_delta=about["convergence_delta"],
        stays=stays,
        rows=rows,
        valued=_valued(rows),
        pairs=_pairs(folder, part, about["sample"]) if folder.has_interactions else None,
    )


def _pairs(folder: CohortFolder, part: int, sample: int) -> tuple[Pair, ...]:
    columns = ["first_feature", "first_code", "second_feature", "second_code", "interaction"]
    table = folder.rows_of(part, sample, columns, INTERACTIONS)
    each = zip(*(table[name].to_pylist() for name in columns), strict=True)
    return tuple(Pair((one, code), (other, its), moved) for one, code, other, its, moved in each)


def _valued(rows: Sequence[Row]) -> frozenset[str]:
    """The features of values."""
    found: dict[str, HasValues] = {}
    for row in rows:
        known = row.value is not None
        here = HasValues(known, row.measured is False, row.measured is True and not known)
        found[row.feature] = found.get(row.feature, HasValues()).merged(here)
    return frozenset(name for name, signs in found.items() if signs)


def _row(about: dict[str, Any]) -> Row:
    code = about["code"]
    return Row(
        about["feature"],
        f"dimension {about['slot']}" if code is None else code,
        about["step"],
        about["time"],
        about.get("day"),
        about.get("stay"),
        about.get("measured"),
        about["value"],
        about["attribution"],
    )
