"""A PyHealth task whose samples also say when, and during which stay, each code and value was recorded."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from pyhealth.tasks import MortalityPredictionStageNetMIMIC4

__all__ = ["MortalityWithStaysMIMIC4"]

_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class _Stay:
    """A hospital stay.

    Attributes:
        hadm_id: MIMIC-IV's identifier.
        begin: time of admission.
        until: time until which the task reads blood draws.
        has_codes: whether the task reads codes of this stay.
    """

    hadm_id: str
    begin: datetime
    until: datetime
    has_codes: bool


@dataclass(frozen=True)
class _Step:
    """A step of a feature.

    Attributes:
        stay: hadm_id of its stay.
        time: time of the step.
        hours: the hours that PyHealth's task gives to the step.
    """

    stay: str
    time: datetime
    hours: float


class MortalityWithStaysMIMIC4(MortalityPredictionStageNetMIMIC4):
    """PyHealth's `MortalityPredictionStageNetMIMIC4`, with the days, stays and measured values of each step.

    Samples, features and labels are those of PyHealth's task. The target stay is the one whose outcome the label
    tells. Days are counted from the beginning of the first stay that the task reads. Each sample also has these plain
    lists, which no processor changes and no model reads; `attribute_cohort` writes them to its tables:

    - `icd_codes_days`: a float per step, the beginning of the codes' stay. (MIMIC-IV assigns codes at discharge.)
    - `icd_codes_stay`: an int per step, the place of that stay in `stays`.
    - `labs_days`: a float per step, the time of the blood draw.
    - `labs_stay`: an int per step, the place in `stays` of the stay with this draw.
    - `labs_measured`: bools `[steps][10]`, whether a value was measured at the step. PyHealth's processor fills the
      others with the last measured value, or with 0.
    - `stays`: pairs (`hadm_id`, beginning in days) of all stays up to the target stay, in order.
    - `visit_id`: `hadm_id` of the target stay. PyHealth's datasets list it in `record_to_index`, which is empty for
      PyHealth's task; `patient_to_index` and splits by patient are the same.

    It takes the argument `padding` of PyHealth's task.

    Example:
        >>> from deeplift_fast.tasks import MortalityWithStaysMIMIC4
        >>> task = MortalityWithStaysMIMIC4()
        >>> list(task.input_schema), list(task.output_schema)
        (['icd_codes', 'labs'], ['mortality'])
    """

    task_name = "MortalityWithStaysMIMIC4"  # PyHealth's caches have it in their names

    def __call__(self, patient: Any) -> list[dict[str, Any]]:
        """The patient's sample.

        Args:
            patient: a PyHealth `Patient`.

        Returns:
            One sample, or none for a patient whom PyHealth's task leaves out.

        Raises:
            RuntimeError: if PyHealth's task has read other stays or blood draws; the message names the patient.
        """
        return [sample | self._metadata(patient, sample) for sample in super().__call__(patient)]

    def _metadata(self, patient: Any, sample: dict[str, Any]) -> dict[str, Any]:
        stays = self._stays(patient)
        first = stays[0].begin
        before = [first, *(stay.begin for stay in stays)]
        codes = [
            _Step(stay.hadm_id, stay.begin, _hours(since, stay.begin))
            for since, stay in zip(before, stays, strict=False)
            if stay.has_codes
        ]
        labs = [
            _Step(stay.hadm_id, time, _hours(stay.begin, time)) for stay in stays for time in self._draws(patient, stay)
        ]
        self._check(patient, sample, {"icd_codes": codes, "labs": labs})
        names = list(dict.fromkeys(stay.hadm_id for stay in stays))
        begins = {stay.hadm_id: _days(first, stay.begin) for stay in reversed(stays)}
        found: dict[str, Any] = {}
        for key, steps in (("icd_codes", codes), ("labs", labs)):
            found[f"{key}_days"] = [_days(first, step.time) for step in steps]
            found[f"{key}_stay"] = [names.index(step.stay) for step in steps]
        values = sample["labs"][1]
        found["labs_measured"] = [[not (value is None or math.isnan(value)) for value in row] for row in values]
        return found | {"stays": [(name, begins[name]) for name in names], "visit_id": names[-1]}

    def _stays(self, patient: Any) -> list[_Stay]:
        """The stays that PyHealth's task reads, in order: valid ones up to the target stay."""
        valid, target = [], None
        for admission in patient.get_events(event_type="admissions"):
            try:
                end = datetime.strptime(admission.dischtime, _FORMAT)
            except (ValueError, AttributeError):
                continue
            if end < admission.timestamp:
                continue
            valid.append((admission, end))
            if target is None and _died(admission):
                target = admission.hadm_id
        target = valid[-1][0].hadm_id if target is None else target
        found = []
        for admission, end in valid:
            begin, is_target = admission.timestamp, admission.hadm_id == target
            window = timedelta(hours=self.TARGET_ADMISSION_INPUT_WINDOW_HOURS)
            until = min(end, begin + window) if is_target else end
            found.append(_Stay(str(admission.hadm_id), begin, until, not is_target and _has_codes(patient, admission)))
            if is_target:
                break
        return found

    def _draws(self, patient: Any, stay: _Stay) -> list[datetime]:
        """Times of the stay's blood draws that PyHealth's task reads, in order."""
        labs = patient.get_events(event_type="labevents", start=stay.begin, end=stay.until, return_df=True)
        labs = labs.filter(pl.col("labevents/itemid").is_in(self.LABITEMS))
        stored = pl.col("labevents/storetime").str.strptime(pl.Datetime, _FORMAT)
        times: list[datetime] = labs.filter(stored <= stay.until)["timestamp"].unique().sort().to_list()
        return times

    def _check(self, patient: Any, sample: dict[str, Any], steps: dict[str, list[_Step]]) -> None:
        """Raise RuntimeError unless these are the steps of the sample's features."""
        differing = [key for key, each in steps.items() if [step.hours for step in each] != list(sample[key][0])]
        if differing:
            raise RuntimeError(
                f"the times of {' and '.join(differing)} are not those that PyHealth's task gives; {self.task_name} "
                f"follows PyHealth 2.1: use that version, or {MortalityPredictionStageNetMIMIC4.__name__}, whose "
                "samples have no days"
            )


def _died(admission: Any) -> bool:
    try:
        return int(admission.hospital_expire_flag) == 1
    except (ValueError, TypeError, AttributeError):
        return False


def _has_codes(patient: Any, admission: Any) -> bool:
    of_stay = [("hadm_id", "==", admission.hadm_id)]
    return any(
        getattr(event, "icd_code", None)
        for kind in ("diagnoses_icd", "procedures_icd")
        for event in patient.get_events(event_type=kind, filters=of_stay)
    )


def _hours(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds() / 3600.0


def _days(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds() / 86400.0
