"""What a call through fused layers computes, apart from what is told of it: that waits for numbers."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.attribution import Attribution
from deeplift_fast.completeness import scaled_by, totals, warn_if_not_finite, warn_of_factors, warn_of_missed
from deeplift_fast.diagnostics import Tally
from deeplift_fast.fused.models import FusedModel
from deeplift_fast.fused.plan import Baselines, Features, run
from deeplift_fast.options import Options
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
        fine: which samples need no warning, bool `[batch]`.
        figures: of the deltas, as :func:`deeplift_fast.ops.convergence` gives them.
        tally: the layers.
        scaled: whether contributions were scaled.
    """

    contributions: dict[Any, Tensor]
    delta: Tensor
    output: Tensor
    baseline_output: Tensor
    target: Tensor
    fine: Tensor
    figures: Tensor
    tally: Tally
    scaled: bool

    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        named = [value for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)]
        return [*self.contributions.values(), *named]

    def with_tensors(self, tensors: list[Tensor]) -> "Outcome":
        """The same with other tensors, in the order of :meth:`tensors`."""
        following = iter(tensors)
        contributions = {key: next(following) for key in self.contributions}
        names = [field.name for field in fields(self) if isinstance(getattr(self, field.name), Tensor)]
        named: dict[str, Any] = {name: next(following) for name in names}
        return replace(self, contributions=contributions, **named)

    def told(self, tolerance: float, later: ReadBack | None) -> Attribution:
        """The attribution with its report; warns as :class:`deeplift_fast.pyhealth.DeepLift`.

        Args:
            tolerance: as `delta_tol` there.
            later: read back here, together with what is asked of the outcome; `None` on the CPU, where nobody waits.
        """
        found: list[float] = []
        if later is None:
            found = self.figures.flatten().tolist()
        else:
            later.ask((self.figures,), found.extend)
            later.fetch()
        count, delta = int(sum(found[2::3])), self.delta
        if not math.isfinite(sum(found[::3])):
            warn_if_not_finite(self.output, self.baseline_output)
            finite = self.output.isfinite() & self.baseline_output.isfinite()
            count, delta = int((~self.fine & finite).sum()), delta.where(finite, 0.0)
        if count and self.scaled:
            warn_of_factors(self.fine, self.output.double() - self.baseline_output.double())
        elif count:
            warn_of_missed(count, delta, tolerance)
        report = self.tally.report_of(sum(found[::3]), sum(found[1::3]))
        report = report.of(self.contributions.values(), self.output, self.baseline_output)
        return Attribution(
            self.contributions, self.delta, self.output, self.baseline_output, self.target, report
        )  # fmt: skip


@dataclass(frozen=True)
class Call:
    """What is asked of a model, for whatever batch; arguments as for :func:`deeplift_fast.fused.route.attribute`."""

    model: Any
    fused: FusedModel
    target: int | None
    options: Options

    def __call__(self, features: Features, baselines: Baselines, later: ReadBack) -> Outcome:
        """The outcome for a batch.

        Raises:
            Unfit: for a batch that the layers were not written for.
        """
        found = run(self.model, self.fused, features, baselines, self.target, self.options, later)
        contributions, output, output0 = found.contributions, found.output, found.baseline_output
        scaled = not self.options.complete
        with torch.no_grad():
            delta, factor, fine, figures = ops.convergence(
                totals(contributions), output, output0, scaled, self.options.delta_tol
            )
            if scaled:
                contributions = {key: scaled_by(factor, each) for key, each in contributions.items()}
        return Outcome(
            contributions, delta, output, output0, found.target[:, 0], fine, figures, found.tally, scaled
        )  # fmt: skip
