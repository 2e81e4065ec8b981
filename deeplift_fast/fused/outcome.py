"""What a call through fused layers computes, apart from what is told of it: that waits for numbers."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.attribution import Attribution
from deeplift_fast.completeness import Scaling, convergence_delta, is_incomplete, rescaled, warn_of_missed
from deeplift_fast.diagnostics import Tally, figures
from deeplift_fast.fused.models import FusedModel
from deeplift_fast.fused.plan import Baselines, Features, run
from deeplift_fast.read_back import ReadBack


@dataclass(frozen=True)
class Outcome:
    """Tensors of an attribution, on the batch's device.

    Attributes:
        contributions: by feature key, in the values' shapes.
        delta: the convergence delta, `[batch]`.
        output: `f(x)` at the target, `[batch]`.
        baseline_output: `f(x0)` at the target, `[batch]`.
        target: int64 `[batch]`.
        total: the sum of the convergence deltas.
        rounding: how much of it may be rounding.
        tally: the layers.
        scaling: what contributions were scaled by; `None` under complete rules.
        missed: which samples are incomplete, bool `[batch]`; `None` under the other rules.
    """

    contributions: dict[Any, Tensor]
    delta: Tensor
    output: Tensor
    baseline_output: Tensor
    target: Tensor
    total: Tensor
    rounding: Tensor
    tally: Tally
    scaling: Scaling | None
    missed: Tensor | None

    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        named = [value for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)]
        scaling = () if self.scaling is None else (getattr(self.scaling, field.name) for field in fields(self.scaling))
        return [*self.contributions.values(), *named, *scaling]

    def with_tensors(self, tensors: list[Tensor]) -> "Outcome":
        """The same with other tensors, in the order of :meth:`tensors`."""
        following = iter(tensors)
        contributions = {key: next(following) for key in self.contributions}
        names = [field.name for field in fields(self) if isinstance(getattr(self, field.name), Tensor)]
        named: dict[str, Any] = {name: next(following) for name in names}
        scaling = None if self.scaling is None else Scaling(next(following), next(following), next(following))
        return replace(self, contributions=contributions, scaling=scaling, **named)

    def told(self, tolerance: float, later: ReadBack | None) -> Attribution:
        """The attribution with its report; warns as :class:`deeplift_fast.pyhealth.DeepLift`.

        Args:
            tolerance: as `delta_tol` there.
            later: read back here, together with what is asked of the outcome; `None` on the CPU, where nobody waits.
        """
        if self.missed is not None:
            warn_of_missed(self.missed, self.delta, tolerance, later)
        elif self.scaling is not None:
            self.scaling.warn(later)
        found = [0.0, 0.0]
        if later is None:
            found = [float(self.total), float(self.rounding)]
        else:
            later.ask((self.total, self.rounding), lambda known: found.__setitem__(slice(None), known))
            later.fetch()
        report = self.tally.report_of(*found)
        return Attribution(
            self.contributions, self.delta, self.output, self.baseline_output, self.target, report
        )  # fmt: skip


@dataclass(frozen=True)
class Call:
    """What is asked of a model, for whatever batch; arguments as for :func:`deeplift_fast.fused.route.attribute`."""

    model: Any
    fused: FusedModel
    target: int | None
    rules: str
    steps: int
    delta_tol: float

    def __call__(self, features: Features, baselines: Baselines, later: ReadBack) -> Outcome:
        """The outcome for a batch.

        Raises:
            Unfit: for a batch that the layers were not written for.
        """
        found = run(self.model, self.fused, features, baselines, self.target, self.rules, self.steps, later)
        contributions, output, output0 = found.contributions, found.output, found.baseline_output
        scaling = missed = None
        with torch.no_grad():
            if self.rules == "complete":
                delta = convergence_delta(contributions, output, output0)
                missed = is_incomplete(delta, output, output0, self.delta_tol)
            else:
                contributions, delta, scaling = rescaled(contributions, output, output0)
            sums = figures(delta, output - output0)
        return Outcome(
            contributions, delta, output, output0, found.target[:, 0], *sums, found.tally, scaling, missed
        )  # fmt: skip
