"""From a PyHealth batch to an attribution through fused layers, or the reason why not."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from deeplift_fast.attribution import Attribution
from deeplift_fast.feature_baselines import BaselineValue
from deeplift_fast.features import Feature
from deeplift_fast.fused.graphs import Graphs
from deeplift_fast.fused.inputs import Unfit
from deeplift_fast.fused.outcome import Call
from deeplift_fast.fused.plan import is_static, plan_for, unusable
from deeplift_fast.fused.recognise import modules_of
from deeplift_fast.options import Options
from deeplift_fast.read_back import ReadBack
from deeplift_fast.rules import registry


class NotFused(Exception):
    """The fused layers step aside; its text says why, and is empty where nobody expects them."""


def read_back(model: Any) -> ReadBack | None:
    """Where checks of a batch are put off to, for a model whose fused layers do not wait for a GPU; else `None`."""
    device = next(model.parameters()).device
    return ReadBack() if plan_for(model) is not None and is_static(device) else None


def attribute(
    model: Any,
    features: Mapping[str, Feature],
    baselines: Mapping[str, BaselineValue],
    target: int | None,
    options: Options,
    own_logits: Callable[[int], Tensor],
    later: ReadBack | None = None,
    graphs: Graphs | None = None,
) -> Attribution:
    """The attribution of a batch through fused layers.

    Args:
        model: a PyHealth model.
        features: the batch, each with the mask that the model is given with it.
        baselines: by feature key.
        target: the class, or `None` for the predicted one.
        options: rules, steps and tolerance.
        own_logits: the model's own logits of the first n samples, `[n, classes]`.
        later: what was asked of the batch so far. It is read back here, once: before the model runs itself (once per
            model), or together with what is asked on the way.
        graphs: where to find and keep CUDA graphs, if they are wanted.

    Raises:
        NotFused: if there are no fused layers for the model, or they were not written for it or the batch.

    Warns:
        ConvergenceWarning: as :class:`deeplift_fast.pyhealth.DeepLift`.
    """
    plan, modules = plan_for(model), modules_of(model)
    if plan is None:
        raise NotFused("")
    reason = unusable(modules, features)
    if reason is not None:
        raise NotFused(reason)
    if options.complete and (registry.KINDS or registry.WRITTEN_OUT):
        raise NotFused("rules are registered for single operations")
    later, immediate = later or ReadBack(), later is None
    try:
        fused = plan.prepared(model, modules, own_logits, (features, baselines), later)
        if fused is None:
            raise NotFused(plan.unfit or "")
        call = Call(model, fused, target, options)
        found = None if graphs is None else graphs.replayed(call, features, baselines, later)
        found = found or call(features, baselines, later)
        return found.told(options.delta_tol, None if immediate else later)
    except Unfit as error:
        raise NotFused(str(error)) from error
