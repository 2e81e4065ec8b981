"""The largest difference between the model's own predictions and the explained ones in all runs of a cohort.

`manifest.json` holds it as `prediction_difference`. It is null before the first part, and for models that are run by
their own `forward`, where nothing needs a comparison.

samples       int      samples compared in the batch with the largest difference in a logit
differing     int      samples of that batch whose logit differs
logit         number   largest difference in a logit; null if a logit is not finite, or the model failed
probability   number   largest difference in a probability; null for regression, or if the model failed
failure       text     class of the error that `model(**batch)` raised; empty if it raised none
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
    """The differences that one run found: kept in its manifest, and warned of once, at its end.

    Each process that attributes, and each later run, compares anew.

    Args:
        manifest: the folder's manifest.
        before: the interpreter's difference before the run.
    """

    def __init__(self, manifest: "Manifest", before: PredictionDifference | None) -> None:
        self._manifest = manifest
        self._has_warned = before is not None and before.is_to_tell
        self._seen: PredictionDifference | None = None
        self.add(before)

    def add(self, found: PredictionDifference | None) -> None:
        """Takes a process's difference after a part; the manifest keeps the largest."""
        if found is None:
            return
        found = replace(found, failure=found.failure.partition(":")[0])  # the rest may quote a patient's values
        self._seen = _larger(self._seen, found)
        known = _of(self._manifest.prediction_difference)
        self._manifest.prediction_difference = _written(_larger(known, found))

    def warn(self) -> None:
        """Issues a :class:`deeplift_fast.PredictionWarning` of the run's largest difference, if there is one."""
        if self._seen is not None and not self._has_warned:
            self._seen.warn()


def check(found: Any) -> None:
    """Raise ValueError, with the reason, unless this is a manifest's difference or null."""
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


def _written(found: PredictionDifference) -> dict[str, Any]:
    logit = found.logit if math.isfinite(found.logit) else None
    return {**vars(found), "logit": logit}


def _of(written: dict[str, Any] | None) -> PredictionDifference | None:
    if written is None:
        return None
    logit = math.nan if written["logit"] is None else written["logit"]
    return PredictionDifference(**{**written, "logit": logit})
