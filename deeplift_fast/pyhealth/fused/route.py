"""The fused route: from a PyHealth batch to its attribution through fused layers, or to the reason against them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core.questions import NOW, Questions
from deeplift_fast.core.result import Attribution
from deeplift_fast.errors import NotFused, Unfit
from deeplift_fast.pyhealth.as_read import with_masks
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.graphs import Graphs
from deeplift_fast.pyhealth.fused.plan import plan_for, questions_on, unusable
from deeplift_fast.pyhealth.fused.recognise import modules_of
from deeplift_fast.pyhealth.fused.run import Call, judged, reported
from deeplift_fast.pyhealth.request import Batch, Request
from deeplift_fast.rules import registered

OwnLogits = Callable[[Mapping[str, Feature], Mapping[str, Any], int], Tensor]


def questions_to(model: Any) -> Questions:
    """The questions to a batch's numbers: answered later where fused layers of the model run on a GPU."""
    return NOW if plan_for(model) is None else questions_on(next(model.parameters()).device)


def attribute(
    request: Request,
    batch: Batch,
    baselines: Mapping[str, BaselineValue],
    own_logits: OwnLogits,
    graphs: Graphs | None = None,
) -> Attribution:
    """The attribution of a batch through fused layers.

    All open questions to the batch are answered here with one read-back; the first call of a model needs one more.

    Args:
        request: model, target and options.
        batch: the batch.
        baselines: by feature key.
        own_logits: the model's own logits of the first samples, from features, the given batch and their number.
        graphs: finds and keeps CUDA graphs; `None` for none.

    Raises:
        NotFused: if the model has no fused layers, or they do not fit the model or the batch.

    Warns:
        ConvergenceWarning: as :class:`deeplift_fast.pyhealth.interpreter.DeepLift`.
    """
    model, questions = request.model, batch.questions
    plan, modules = plan_for(model), modules_of(model)
    if plan is None:
        raise NotFused("")
    features = with_masks(model, batch.read, request.options.rules, torch.bool)
    reason = unusable(modules, features)
    if reason is not None:
        raise NotFused(reason)
    if request.options.complete and (registered.KINDS or registered.WRITTEN_OUT):
        raise NotFused("rules are registered for single operations")
    try:
        own = functools.partial(own_logits, batch.read, batch.given)
        fused = plan.prepared(model, modules, own, (features, baselines), questions)
        if fused is None:
            raise NotFused(plan.unfit or "")
        call = Call(model, request.target, request.options, fused)
        found = None if graphs is None else graphs.replayed(call, features, baselines, questions)
        return reported(call, *(found or judged(call, features, baselines, questions)), questions)
    except Unfit as error:
        raise NotFused(str(error)) from error
