"""A model's outputs on the samples that a dataset is recognised by: they tell a model from another one.

They are compared as numbers, never by a digest: other processors round differently.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from deeplift_fast.cohort.attributing import to_device
from deeplift_fast.cohort.windows import Group
from deeplift_fast.core.isolation import RandomState, stochastic_modules
from deeplift_fast.errors import CohortError
from deeplift_fast.pyhealth.features import read_features
from deeplift_fast.pyhealth.interpreter import DeepLift

TOLERANCE = 1e-4
"""By how much outputs may differ, relative to the largest of a sample, or to that of most samples where it is less."""

_DIGITS = 8
_ROUNDINGS = 8  # more than TOLERANCE for dtypes shorter than float32

Outputs = list[list[float] | None]


def outputs_of(interpreter: DeepLift, groups: Iterable[Group]) -> Outputs | None:
    """A model's logits for some samples, each by itself.

    Args:
        interpreter: the `DeepLift` of the model.
        groups: the samples.

    Returns:
        By sample, its logits, or `None` where the model raises or they are not finite; `None` where they are random.
    """
    model: Any = interpreter.model
    if stochastic_modules(model):
        return None
    found: dict[int, list[float] | None] = {}
    for group in groups:
        for place, number in enumerate(group.numbers):
            try:
                given = to_device(group.batch(np.array([place])), model.device)
                found[int(number)] = _logits(interpreter, given)
            except Exception:  # as samples do that cannot be attributed
                found[int(number)] = None
    return [found[number] for number in sorted(found)]


def run_once(model: Any, groups: Sequence[Group]) -> None:
    """Run a model as it is on the first of the samples, if there is one."""
    for group in groups[:1]:
        model(**to_device(group.batch(np.array([0])), model.device))


def check_same_outputs(before: Outputs | None, now: Outputs | None, shown: str, eps: float = 0.0) -> None:
    """Raise unless the model that a folder was written with has these outputs.

    Args:
        before: outputs that the folder's manifest has.
        now: outputs of this run's model.
        shown: the folder, as messages name it.
        eps: of the model's dtype: what is rounded more coarsely may differ by more.

    Raises:
        CohortError: if they differ.
    """
    if before is None or now is None:
        return
    tolerance = max(TOLERANCE, _ROUNDINGS * eps)
    largest = difference(before, now)
    if largest > tolerance:
        raise CohortError(
            f"out is {shown}, which holds the attributions of another model: classes, attributes, hooks and weights "
            f"are the same, but its outputs for {len(now)} samples of the dataset differ by up to {largest:.2g} of "
            f"their size (accepted: {tolerance:.0e})\nchoose another folder, use the model that was used there, or "
            "start over with force"
        )


def difference(before: Outputs, now: Outputs) -> float:
    """The largest difference of outputs, relative to their size; inf where one of two is missing or has other classes.

    The size of a sample's outputs is the largest of them, but not less than the median of such sizes: where a logit
    happens to be near 0, its rounding is no difference.
    """
    if [each and len(each) for each in before] != [each and len(each) for each in now]:
        return float("inf")
    pairs = [(np.array(one), np.array(other)) for one, other in zip(before, now, strict=True) if one and other]
    if not pairs:
        return 0.0
    sizes = np.array([max(np.abs(one).max(), np.abs(other).max()) for one, other in pairs])
    sizes = np.maximum(sizes, np.median(sizes))
    differences = np.array([np.abs(one - other).max() for one, other in pairs])
    return float(max(np.divide(differences, sizes, out=np.zeros_like(sizes), where=sizes > 0)))


def coarsest(model: nn.Module) -> float:
    """By how much 1 is rounded in the coarsest dtype of a model's parameters."""
    return max((torch.finfo(each.dtype).eps for each in model.parameters() if each.is_floating_point()), default=0.0)


def _logits(interpreter: DeepLift, given: dict[str, Any]) -> list[float] | None:
    """The logits of a batch of one; models that draw at random draw alike each time."""
    features = read_features(interpreter.model, given, use_embeddings=True)
    devices = {torch.device(interpreter.model.device)} if interpreter.model.device.type == "cuda" else set()
    draws = RandomState(devices)
    try:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - the legacy generator is the one that models draw from
        torch.manual_seed(0)
        logits = interpreter.own_logits(features, given, 1).double().flatten()
    finally:
        draws.restore()
    if not bool(logits.isfinite().all()):
        return None
    return [float(f"{logit:.{_DIGITS}g}") for logit in logits.tolist()]
