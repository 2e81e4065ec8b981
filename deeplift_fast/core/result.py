"""The result of an attribution."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from deeplift_fast.core.diagnostics import Report


@dataclass(frozen=True)
class Attribution:
    """The contributions of a batch, and the outputs that they explain.

    Attributes:
        contributions: in the structure, shapes and dtypes of the inputs, in units of the output.
        convergence_delta: `[batch]`, `Σ contributions − (f(x) − f(x0))` *before* any rescaling.
        output: `[batch]`, `f(x)` at the target.
        baseline_output: `[batch]`, `f(x0)` at the target.
        target: int64 `[batch]`, or `[batch, k]` for outputs of more than two dimensions; `None` if the target is a
            callable or the output has no class dimension.
        report: each operation met, with its rule, its count and its part of the convergence delta; also the
            cancellation. Under `"rescale"` and `"pyhealth"` operations without a rule share one row.
        baseline: a description of the baseline.
        multipliers: in the structure of the inputs; their mean over several steps. `None` if they are not kept.
    """

    contributions: Any
    convergence_delta: Tensor
    output: Tensor
    baseline_output: Tensor
    target: Tensor | None
    report: Report = field(default_factory=lambda: Report((), 0.0))
    baseline: str = ""
    multipliers: Any = field(default=None, repr=False)
