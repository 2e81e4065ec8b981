"""A model's outputs for some samples of the dataset, which identify the model.

They are compared as numbers, never by a digest, since processors round differently.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from deeplift_fast.cohort.attributing import to_device
from deeplift_fast.cohort.samples import Group
from deeplift_fast.core.generators import RandomState
from deeplift_fast.core.isolation import stochastic_modules
from deeplift_fast.errors import CohortError
from deeplift_fast.pyhealth.features import read_features
from deeplift_fast.pyhealth.interpreter import DeepLift

TOLERANCE = 1e-4
"""Accepted difference of outputs, relative to their size as :func:`difference` defines it."""

_DIGITS = 8
_ROUNDINGS = 8  # exceeds TOLERANCE for dtypes shorter than float32

Outputs = list[list[float] | None]


def outputs_of(interpreter: DeepLift, groups: Iterable[Group]) -> Outputs | None:
    """A model's logits for some samples, each by itself.

    Args:
        interpreter: the `DeepLift` of the model.
        groups: the samples.

    Returns:
        The logits of each sample, or `None` for a sample if the model raises or they are not finite; `None` for all if
        the model draws at random.
    """
    model: Any = interpreter.model
    if stochastic_modules(model):
        return None
    devices = {torch.device(model.device)} if model.device.type == "cuda" else set()
    draws = RandomState(devices)
    try:
        return _of_each(interpreter, groups)
    finally:
        draws.restore()


def _of_each(interpreter: DeepLift, groups: Iterable[Group]) -> Outputs:
    """The logits of each sample; the caller restores the state of random numbers."""
    model: Any = interpreter.model
    found: dict[int, list[float] | None] = {}
    for group in groups:
        for place, number in enumerate(group.numbers):
            try:
                given = to_device(group.batch(np.array([place])), model.device)
                found[int(number)] = _logits(interpreter, given)
            except Exception:  # such samples cannot be attributed either
                found[int(number)] = None
    return [found[number] for number in sorted(found)]


def run_once(model: Any, groups: Sequence[Group]) -> None:
    """Runs a model on the first sample, if there is one."""
    for group in groups[:1]:
        model(**to_device(group.batch(np.array([0])), model.device))


def check_same_outputs(before: Outputs | None, now: Outputs | None, shown: str, eps: float = 0.0) -> None:
    """Raise unless the outputs of this run's model are those in the folder's manifest.

    Args:
        before: outputs in the manifest.
        now: outputs of this run's model.
        shown: the folder's name in messages.
        eps: machine epsilon of the model's dtype; coarser dtypes may differ by more.

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
            "start over with force=True (on the command line: --force)"
        )


def difference(before: Outputs, now: Outputs) -> float:
    """The largest difference of outputs, relative to their size; inf if one is missing or has other classes.

    The size of a sample's outputs is the largest absolute one, but at least the median of these sizes, so that the
    rounding of a logit near 0 does not count.
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
    """The machine epsilon of the coarsest dtype among a model's parameters."""
    return max((torch.finfo(each.dtype).eps for each in model.parameters() if each.is_floating_point()), default=0.0)


def _logits(interpreter: DeepLift, given: dict[str, Any]) -> list[float] | None:
    """The logits of a batch of one; random numbers are drawn from fixed seeds."""
    features = read_features(interpreter.model, given, use_embeddings=True)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the legacy generator is the one that models draw from
    if interpreter.model.device.type == "cpu":
        torch.default_generator.manual_seed(0)  # `torch.manual_seed` also keeps a stack trace for each other device
    else:
        torch.manual_seed(0)
    logits = interpreter.own_logits(features, given, 1).double().flatten()
    if not bool(logits.isfinite().all()):
        return None
    return [float(f"{logit:.{_DIGITS}g}") for logit in logits.tolist()]
