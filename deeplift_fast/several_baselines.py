"""Several baselines for one batch: how they are told from one, and the mean of what they give."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.attribution import Attribution
from deeplift_fast.diagnostics import merged
from deeplift_fast.features import Feature


def are(baseline: Any, features: Mapping[str, Feature]) -> bool:
    """Whether several baselines are given: a sequence, or a leading dimension in every tensor."""
    if isinstance(baseline, Mapping):
        return bool(baseline) and all(
            key in features and isinstance(value, Tensor) and value.dim() == features[key].value.dim() + 1
            for key, value in baseline.items()
        )
    return isinstance(baseline, Sequence) and not isinstance(baseline, str)


def listed(baseline: Any, features: Mapping[str, Feature]) -> list[Any]:
    """The baselines one by one, unchecked.

    Args:
        baseline: one, or several in either form.
        features: the batch.

    Raises:
        ValueError: if there are none, or the leading dimensions differ.
    """
    if not are(baseline, features):
        return [baseline]
    if isinstance(baseline, Mapping):
        counts = {key: len(value) for key, value in baseline.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"baseline: the leading dimensions differ: {counts}; each tensor needs as many")
        baseline = [{key: value[i] for key, value in baseline.items()} for i in range(next(iter(counts.values())))]
    if not baseline:
        raise ValueError("baseline holds no baselines; accepted: None, a dict, or one or more of them")
    return list(baseline)


def mean(found: list[Attribution]) -> Attribution:
    """The mean over baselines; convergence deltas and baseline outputs one by one."""
    contributions = {
        key: torch.stack([each.contributions[key] for each in found]).mean(0) for key in found[0].contributions
    }
    output, baseline_outputs = found[0].output, torch.stack([each.baseline_output for each in found])
    return Attribution(
        contributions,
        torch.stack([each.convergence_delta for each in found]),
        output,
        baseline_outputs,
        found[0].target,
        merged([each.report for each in found]).of(contributions.values(), output, baseline_outputs.mean(0)),
    )
