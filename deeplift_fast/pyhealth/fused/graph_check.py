"""The comparison of a graph's first replay with a plain run of the same launches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from deeplift_fast.core.result import Attribution

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}  # as in the check of fused layers against the model


def agrees(replayed: Attribution, plain: Attribution) -> bool:
    """Whether a replay and a plain run have the same numbers.

    They are compared bit for bit first. The package's kernels promise equal bits, but a matrix product of a library may
    choose another algorithm during a capture, and another order of its sums. So a difference as by rounding is accepted
    too, which grows with a sample's cancellation, `Σ|c| / |f(x) − f(x0)|`. A graph that reads or writes wrong memory
    differs by orders of magnitude.
    """
    found, expected = _tensors(replayed), _tensors(plain)
    if all(map(torch.equal, found, expected)):
        return True
    outputs, outputs0 = (torch.stack([each.output, each.baseline_output]) for each in (replayed, plain))
    tolerance = TOLERANCE[outputs.dtype]
    apart = _apart(outputs, outputs0).amax() <= tolerance * (1 + outputs0.abs().nan_to_num(0, 0, 0).amax())
    rows, rows0 = (_rows(each) for each in (replayed, plain))
    sizes = rows0.abs().nan_to_num(0, 0, 0)
    cancellation = (sizes.sum(1) / (outputs0[0] - outputs0[1]).abs()).nan_to_num(1).clamp(min=1)
    alike = _apart(rows, rows0).amax(1) <= tolerance * sizes.amax(1) * cancellation
    return bool(apart & alike.all())


def _tensors(found: Attribution) -> Sequence[Tensor]:
    return [*found.contributions.values(), found.output, found.baseline_output, found.convergence_delta]


def _rows(found: Attribution) -> Tensor:
    """All contributions of each sample, `[batch, all]`."""
    return torch.cat([each.flatten(1) if each.dim() > 1 else each[:, None] for each in found.contributions.values()], 1)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """The differences; 0 where both are NaN or the same infinity."""
    return torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
