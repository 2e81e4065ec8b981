"""From a PyHealth batch to an attribution through fused layers, or the reason why not."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from deeplift_fast.core.options import Options
from deeplift_fast.core.questions import NOW, Questions
from deeplift_fast.core.result import Attribution
from deeplift_fast.errors import NotFused, Unfit
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.graphs import Graphs
from deeplift_fast.pyhealth.fused.plan import plan_for, questions_on, unusable
from deeplift_fast.pyhealth.fused.recognise import modules_of
from deeplift_fast.pyhealth.fused.run import Call, judged, reported
from deeplift_fast.rules import registered


def questions_to(model: Any) -> Questions:
    """How a batch's numbers are asked for: later, where a model's fused layers do not wait for a GPU."""
    return NOW if plan_for(model) is None else questions_on(next(model.parameters()).device)


def attribute(
    model: Any,
    features: Mapping[str, Feature],
    baselines: Mapping[str, BaselineValue],
    target: int | None,
    options: Options,
    own_logits: Callable[[int], Tensor],
    questions: Questions,
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
        questions: those to the batch so far. They are answered here, once: before the model runs itself (once per
            model), or together with those on the way.
        graphs: where to find and keep CUDA graphs, if they are wanted.

    Raises:
        NotFused: if there are no fused layers for the model, or they were not written for it or the batch.

    Warns:
        ConvergenceWarning: as :class:`deeplift_fast.pyhealth.interpreter.DeepLift`.
    """
    plan, modules = plan_for(model), modules_of(model)
    if plan is None:
        raise NotFused("")
    reason = unusable(modules, features)
    if reason is not None:
        raise NotFused(reason)
    if options.complete and (registered.KINDS or registered.WRITTEN_OUT):
        raise NotFused("rules are registered for single operations")
    try:
        fused = plan.prepared(model, modules, own_logits, (features, baselines), questions)
        if fused is None:
            raise NotFused(plan.unfit or "")
        call = Call(model, fused, target, options)
        found = None if graphs is None else graphs.replayed(call, features, baselines, questions)
        return reported(call, *(found or judged(call, features, baselines, questions)), questions)
    except Unfit as error:
        raise NotFused(str(error)) from error
