"""From a PyHealth batch to an attribution through fused layers, or the reason why not."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from deeplift_fast.attribution import Attribution
from deeplift_fast.completeness import convergence_delta, rescale, warn_if_incomplete
from deeplift_fast.features import Feature
from deeplift_fast.fused.plan import Unfit, plan_for, run, usable
from deeplift_fast.fused.recognise import modules_of
from deeplift_fast.rules import registry


class NotFused(Exception):
    """The fused layers step aside; its text says why, and is empty where nobody expects them."""


def attribute(
    model: Any,
    features: Mapping[str, Feature],
    baselines: Mapping[str, Tensor],
    target: int | None,
    rules: str,
    steps: int,
    delta_tol: float,
    own_logits: Callable[[int], Tensor],
) -> Attribution:
    """The attribution of a batch through fused layers.

    Args:
        model: a PyHealth model.
        features: the batch.
        baselines: by feature key, of the values' shapes.
        target: the class, or `None` for the predicted one.
        rules: as for :class:`deeplift_fast.pyhealth.DeepLift`.
        steps: likewise.
        delta_tol: likewise.
        own_logits: the model's own logits of the first n samples, `[n, classes]`.

    Raises:
        NotFused: if there are no fused layers for the model, or they were not written for it or the batch.

    Warns:
        ConvergenceWarning: as :class:`deeplift_fast.pyhealth.DeepLift`.
    """
    plan, modules = plan_for(model), modules_of(model)
    if plan is None or not usable(modules, features):
        raise NotFused("")
    if rules == "complete" and (registry.KINDS or registry.WRITTEN_OUT):
        raise NotFused("rules are registered for single operations")
    inputs = {key: feature.with_derived_mask(rules == "pyhealth") for key, feature in features.items()}
    try:
        fused = plan.prepared(model, modules, own_logits, (inputs, baselines))
        if fused is None:
            raise NotFused(plan.unfit or "")
        found = run(model, fused, inputs, baselines, target, rules, steps)
    except Unfit as error:
        raise NotFused(str(error)) from error
    contributions, output, output0 = found.contributions, found.output, found.baseline_output
    if rules == "complete":
        delta = convergence_delta(contributions, output, output0)
        warn_if_incomplete(delta, output, output0, delta_tol)
    else:
        contributions, delta = rescale(contributions, output, output0)
    return Attribution(
        contributions, delta, output, output0, found.target[:, 0], found.tally.report(delta, output - output0)
    )
