"""The fused route: from a PyHealth batch to its attribution through fused layers, or to the reason against them."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core.devices import device_of
from deeplift_fast.core.questions import NOW, Questions
from deeplift_fast.core.result import Attribution
from deeplift_fast.errors import Again, NotFused, PaddingCounts, Unfit, WeightsChanged
from deeplift_fast.pyhealth.as_read import with_masks
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.entries import with_entered
from deeplift_fast.pyhealth.fused.graphs import Graphs
from deeplift_fast.pyhealth.fused.model import embeddings
from deeplift_fast.pyhealth.fused.plan import plan_for, questions_on, unusable
from deeplift_fast.pyhealth.fused.recognise import modules_of
from deeplift_fast.pyhealth.fused.run import Baselines, Call, Features, judged, reporting
from deeplift_fast.pyhealth.request import Batch, Request
from deeplift_fast.rules import registered

TRIES = 4  # a call is computed again if its weights have changed, or if padding for a graph counts
OwnLogits = Callable[[Mapping[str, Feature], Mapping[str, Any], int], Tensor]


def questions_to(model: Any) -> Questions:
    """The questions to a batch's numbers: answered later where fused layers of the model run on a GPU."""
    return NOW if plan_for(model) is None else questions_on(device_of(model))


def attribute(
    request: Request,
    batch: Batch,
    baselines: Sequence[Mapping[str, BaselineValue]],
    own_logits: OwnLogits,
    graphs: Graphs | None = None,
) -> list[Attribution]:
    """The attribution of a batch to each of some baselines, through fused layers.

    All open questions to the batch are answered here with one read-back; the first call of a model needs one more, and
    so does a call whose answers show that it must be computed again.

    Args:
        request: model, target and options.
        batch: the batch.
        baselines: the baselines, each by feature key.
        own_logits: the model's own logits of the first samples, from features, the given batch and their number.
        graphs: finds and keeps CUDA graphs; `None` for none.

    Raises:
        NotFused: if the model has no fused layers, or they do not fit the model, the batch or a baseline.
        RuntimeError: if the weights keep changing during the call.

    Warns:
        ConvergenceWarning: as :class:`deeplift_fast.pyhealth.interpreter.DeepLift`.
    """
    model, questions = request.model, batch.questions
    plan = plan_for(model)
    if plan is None:
        raise NotFused("")
    seen = plan.seen(model)
    features = with_masks(model, batch.read, request.options.rules, torch.bool)
    reason = unusable([model] if seen else modules_of(model), features)
    if reason is not None:
        raise NotFused(reason)
    if request.options.complete and (registered.KINDS or registered.WRITTEN_OUT):
        raise NotFused("rules are registered for single operations")
    if batch.absent:
        graphs = None  # such batches are seldom of one kind
    own = functools.partial(own_logits, batch.read, batch.given)
    exact = False  # whether batches keep their shapes
    try:
        for _ in range(TRIES):
            fused = plan.prepared(model, seen, own, (features, baselines[0]), questions)
            if fused is None:
                raise NotFused(plan.unfit or "")
            call = Call(model, request.target, request.options, fused)
            entering = _entering(model, features, batch)
            try:
                reports = [_asked(call, (entering, each), questions, graphs, exact) for each in baselines]
                questions.fetch()
            except WeightsChanged:
                plan.forget(fused)
                seen = False
            except PaddingCounts as error:
                exact = True
                if graphs is not None:
                    graphs.exclude(error.keys)
            else:
                return [report() for report in reports]
    except Unfit as error:
        with contextlib.suppress(Unfit, Again):
            questions.fetch()  # the checks of the batch come first
        raise NotFused(str(error)) from error
    raise RuntimeError(
        f"the weights of {type(model).__name__} changed {TRIES} times while a batch was attributed; attribute between "
        "the steps of a training, or a copy of the model"
    )


def _entering(model: Any, features: Features, batch: Batch) -> Features:
    """The features with their masks, and with the baseline in place of absent tokens."""
    layers = embeddings(model)
    found = {key: with_entered(features[key], each.at_input, layers[key]) for key, each in batch.absent.items()}
    return {**features, **found}


def _asked(
    call: Call, given: tuple[Features, Baselines], questions: Questions, graphs: Graphs | None, exact: bool
) -> Callable[[], Attribution]:
    """Attribute a batch; the function makes the attribution with its report when `questions` are answered."""
    found = None if graphs is None else graphs.replayed(call, *given, questions, exact)
    return reporting(call, *(found or judged(call, *given, questions)), questions)
