"""An attribution through fused layers with its convergence delta, and the report and warnings that follow from it."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.completeness import scaled_by, totals, warn_if_not_finite, warn_of_factors, warn_of_missed
from deeplift_fast.diagnostics import Tally
from deeplift_fast.fused.plan import Baselines, Call, Features, run
from deeplift_fast.questions import Questions
from deeplift_fast.result import Attribution

FUSED_RULE = "fused"
# Which samples need no warning, bool `[batch]`, and figures of the deltas, as `ops.convergence` gives them.
Verdict = tuple[Tensor, Tensor]


def judged(call: Call, features: Features, baselines: Baselines, questions: Questions) -> tuple[Attribution, Verdict]:
    """The attribution of a batch, without its report, and the verdict on its convergence deltas.

    Nothing here waits for a number.

    Raises:
        Unfit: for a batch that the layers were not written for.
    """
    contributions, output, output0, target = run(call, features, baselines, questions)
    scaled = not call.options.complete
    with torch.no_grad():
        delta, factor, fine, figures = ops.convergence(
            totals(contributions), output, output0, scaled, call.options.delta_tol
        )
        if scaled:
            contributions = {key: scaled_by(factor, each) for key, each in contributions.items()}
    return Attribution(contributions, delta, output, output0, target[:, 0]), (fine, figures)


def reported(call: Call, found: Attribution, verdict: Verdict, questions: Questions) -> Attribution:
    """The attribution with its report; warns as :class:`deeplift_fast.pyhealth.DeepLift`.

    What was asked of the batch is answered here, together with the verdict.
    """
    (fine, figures), delta = verdict, found.convergence_delta
    read: list[float] = []
    questions.ask((figures,), read.extend)
    questions.fetch()
    count = int(sum(read[2::3]))
    if not math.isfinite(sum(read[::3])):
        warn_if_not_finite(found.output, found.baseline_output)
        finite = found.output.isfinite() & found.baseline_output.isfinite()
        count, delta = int((~fine & finite).sum()), delta.where(finite, 0.0)
    if count and not call.options.complete:
        warn_of_factors(fine, found.output.double() - found.baseline_output.double())
    elif count:
        warn_of_missed(count, delta, call.options.delta_tol)
    tally = Tally()
    for _ in found.contributions:
        tally.count(call.fused.layer, FUSED_RULE)
    report = tally.report_of(sum(read[::3]), sum(read[1::3]))
    return replace(found, report=report.of(found.contributions.values(), found.output, found.baseline_output))


def tensors_of(found: Attribution, verdict: Verdict) -> list[Tensor]:
    """All tensors of an attribution and of its verdict, in one order."""
    assert found.target is not None
    named = found.convergence_delta, found.output, found.baseline_output, found.target
    return [*found.contributions.values(), *named, *verdict]


def with_tensors(keys: Sequence[Hashable], tensors: list[Tensor]) -> tuple[Attribution, Verdict]:
    """An attribution of these feature keys, and its verdict, from tensors in the order of :func:`tensors_of`."""
    *by_key, delta, output, output0, target, fine, figures = tensors
    return Attribution(dict(zip(keys, by_key, strict=True)), delta, output, output0, target), (fine, figures)
