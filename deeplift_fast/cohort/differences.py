"""How far what the model says is from what is explained: the largest difference that a cohort's runs saw.

`manifest.json` holds it as `prediction_difference`, null where nothing was compared: no part is done yet, or the model
is run by its own `forward`, which says the same of itself.

samples       int      how many samples were compared, where the difference in logit was the largest
differing     int      of how many of them a logit differs
logit         number   the largest difference in a logit; null if one of the two is not finite, or the model failed
probability   number   the largest difference in a probability; null for regression, or if the model failed
failure       text     class of the error with which `model(**batch)` failed; empty where it did not
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deeplift_fast.cohort.manifest_content import is_count, is_duration, quoted
from deeplift_fast.pyhealth.predictions import PredictionDifference

if TYPE_CHECKING:
    from deeplift_fast.cohort.manifest import Manifest

_NAMES = {"samples", "differing", "logit", "probability", "failure"}


class Differences:
    """What one run saw: for its manifest, and told once, at its end.

    Each process that attributes, and each later run, compares anew.

    Args:
        manifest: the folder's manifest.
        before: what the interpreter knew, and told, before the run.
    """

    def __init__(self, manifest: "Manifest", before: PredictionDifference | None) -> None:
        self._manifest = manifest
        self._is_told = before is not None and before.is_to_tell
        self._seen: PredictionDifference | None = None
        self.add(before)

    def add(self, found: PredictionDifference | None) -> None:
        """Takes what a process knows once it has attributed a part; the manifest keeps the larger difference."""
        if found is None:
            return
        found = _without_words(found)
        self._seen = _larger(self._seen, found)
        known = _of(self._manifest.prediction_difference)
        self._manifest.prediction_difference = _written(_larger(known, found))

    def warn(self) -> None:
        """Issues a :class:`deeplift_fast.PredictionWarning` of the largest difference, if there was one."""
        if self._seen is not None and not self._is_told:
            self._seen.warn()


def check(found: Any) -> None:
    """Raise unless this is a difference as a manifest holds it, or null.

    Raises:
        ValueError: naming what is wrong.
    """
    if found is None:
        return
    if not isinstance(found, dict) or found.keys() != _NAMES:
        raise ValueError(f"prediction_difference is {quoted(found)}")
    counted = all(is_count(found[name]) for name in ("samples", "differing"))
    measured = all(found[name] is None or is_duration(found[name]) for name in ("logit", "probability"))
    if not counted or not measured or not isinstance(found["failure"], str):
        raise ValueError(f"prediction_difference is {quoted(found)}")


def _larger(one: PredictionDifference | None, other: PredictionDifference) -> PredictionDifference:
    return other if one is None else one.or_larger(other)


def _without_words(found: PredictionDifference) -> PredictionDifference:
    """Without the words of the model's error, which may quote a patient's values."""
    return replace(found, failure=found.failure.partition(":")[0])


def _written(found: PredictionDifference) -> dict[str, Any]:
    logit = found.logit if math.isfinite(found.logit) else None
    return {**vars(found), "logit": logit}


def _of(written: dict[str, Any] | None) -> PredictionDifference | None:
    if written is None:
        return None
    logit = math.nan if written["logit"] is None else written["logit"]
    return PredictionDifference(**{**written, "logit": logit})
