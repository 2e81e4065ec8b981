"""Several baselines for one batch: the mean of what they give."""

import torch

from deeplift_fast.core.attribution import Attribution
from deeplift_fast.core.diagnostics import merged


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
