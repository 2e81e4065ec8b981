"""A batch through fused layers: its contributions, convergence deltas, report and warnings."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.core.cancellation import Cancellation
from deeplift_fast.core.completeness import scaled_by, totals, warn_if_not_finite, warn_of_factors, warn_of_missed
from deeplift_fast.core.diagnostics import of_one
from deeplift_fast.core.questions import Questions
from deeplift_fast.core.result import Attribution
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.model import FusedModel
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Pair
from deeplift_fast.pyhealth.request import Request

AT_ONCE_ON_GPU = 16  # a GPU takes so many times the samples of the CPU, whose caches limit them
Features = Mapping[str, Feature]
Baselines = Mapping[str, BaselineValue]
FUSED_RULE = "fused"
# Whether a sample needs no warning, bool `[batch]`, and figures of the deltas, from `ops.convergence`.
Verdict = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Call(Request):
    """A request to the fused layers `fused`."""

    fused: FusedModel


# Contributions by feature key, `f(x)` and `f(x0)` at the target, `[batch]`, and the target, int64 `[batch, 1]`.
Part = tuple[dict[str, Tensor], Tensor, Tensor, Tensor]


def run(call: Call, features: Features, baselines: Baselines, questions: Questions) -> Part:
    """Contributions of a batch before any rescaling.

    Raises:
        Unfit: if the layers do not fit the batch.
    """
    size = next(iter(features.values())).value.shape[0]
    at_once = call.fused.at_once * AT_ONCE_ON_GPU if questions.static else call.fused.at_once

    def part_of(samples: Tensor | slice) -> Part:
        return _run_part(_call_of(call, samples), *chosen_of(features, baselines, samples), questions)

    if size <= at_once:
        return _run_part(call, features, baselines, questions)
    if questions.static:
        return _joined([part_of(slice(first, first + at_once)) for first in range(0, size, at_once)])
    order = _by_length(features)
    return _joined([part_of(some) for some in order.tensor_split(-(-size // at_once))], torch.argsort(order))


def _run_part(call: Call, features: Features, baselines: Baselines, questions: Questions) -> Part:
    model, steps, arithmetic = call.model, call.options.steps, Arithmetic(call.options.rules, questions)
    if steps == 1:
        return _one_step(call, (features, baselines), arithmetic)
    totals: dict[str, Tensor] = {}
    chosen = torch.empty(0, device=model.device)
    output = baseline_output = chosen
    for k in range(steps, 0, -1):
        # Stream x0 is at the end nearer to the input, as in the generic walk.
        segment = k / steps, (k - 1) / steps
        pair, back, parts = logits_of(model, call.fused, (features, baselines), arithmetic, segment)
        if k == steps:
            chosen = _target(pair.x0, call.target)
        baseline_output, nearer = _at(chosen, pair)
        if k == steps:
            output = nearer
        for key, each in back(_seeds(call, parts, chosen)).items():
            totals[key] = totals[key] + each / steps if key in totals else each / steps
    return totals, output, baseline_output, chosen


def _one_step(call: Call, given: tuple[Features, Baselines], arithmetic: Arithmetic) -> Part:
    pair, back, parts = logits_of(call.model, call.fused, given, arithmetic, (0.0, 1.0))
    if arithmetic.static and pair.both is not None and not isinstance(call.target, Tensor):
        index = -1 if call.target is None else _class_of(call.target, pair.x)
        by_part = _by_part(call, parts)
        found, ends, seeds = ops.target(pair.both.unflatten(0, (2, -1)), by_part, index)
        return back(list(seeds)), ends[0], ends[1], found[:, None]
    chosen = _target(pair.x, call.target)
    return back(_seeds(call, parts, chosen)), *_at(chosen, pair), chosen


def _by_part(call: Call, parts: int) -> Tensor:
    """The weights of the last layer, by part of the patient embedding, `[parts, classes, width]`."""
    weight: Tensor = call.model.fc.weight
    return weight.reshape(weight.shape[0], parts, -1).transpose(0, 1)


def _seeds(call: Call, parts: int, chosen: Tensor) -> list[Tensor]:
    """The multipliers of the patient embedding's parts, `[batch, width]`, or one row for all samples."""
    weight: Tensor = call.model.fc.weight
    if weight.shape[0] == 1 and call.fused.takes_one_row:
        return list(weight.chunk(parts, 1))
    by_part = _by_part(call, parts)
    # Contiguous for each part, so that nothing copies them.
    return list(by_part.index_select(1, chosen[:, 0]).unbind())


def _call_of(call: Call, samples: Tensor | slice) -> Call:
    """The call for some samples, which may have classes of their own."""
    return replace(call, target=call.target[samples]) if isinstance(call.target, Tensor) else call


def _target(logits: Tensor, target: int | Tensor | None) -> Tensor:
    """The explained class of each sample, int64 `[batch, 1]`."""
    if target is None:
        return logits.argmax(1, keepdim=True)
    if isinstance(target, Tensor):
        return target.unsqueeze(1)
    return torch.full((len(logits), 1), _class_of(target, logits), device=logits.device)


def _class_of(target: int, logits: Tensor) -> int:
    """The class as a number from 0 on."""
    if not -logits.shape[1] <= target < logits.shape[1]:
        raise ValueError(f"target is {target}, outside the model's output of shape {tuple(logits.shape)}")
    return target % logits.shape[1]


def _at(chosen: Tensor, logits: Pair) -> tuple[Tensor, Tensor]:
    """Both streams' logits of the chosen classes, `[batch]`."""
    if logits.x.shape[1] == 1:
        return logits.x.select(1, 0), logits.x0.select(1, 0)
    if logits.both is None:
        return logits.x.gather(1, chosen)[:, 0], logits.x0.gather(1, chosen)[:, 0]
    by_stream = logits.both.unflatten(0, (2, -1))
    x, x0 = by_stream.gather(2, chosen.expand(2, *chosen.shape))[..., 0]
    return x, x0


def logits_of(
    model: Any, fused: FusedModel, given: tuple[Features, Baselines], arithmetic: Arithmetic, segment: Any
) -> tuple[Pair, Callable[[list[Tensor]], dict[str, Tensor]], int]:
    """Logits of both streams, `back` from the multipliers of the patient embedding's parts, and their number."""
    weight, bias = model.fc.weight, model.fc.bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    ends, back = fused.features(*given, arithmetic, segment)
    stacked = [end.both for end in ends if end.both is not None]
    if len(stacked) == len(ends) and not arithmetic.static:
        return Pair.stacked(torch.addmm(bias, torch.cat(stacked, 1), weight.T)), back, len(ends)
    found = None
    for end, part in zip(ends, weight.T.chunk(len(ends)), strict=True):
        found = _added(found, end, part, bias)
    assert found is not None
    return found, back, len(ends)


def _added(found: Pair | None, end: Pair, weight: Tensor, bias: Tensor) -> Pair:
    """The logits with one more part of the patient embedding."""
    so_far = bias if found is None else found.both
    if end.both is not None and so_far is not None:
        return Pair.stacked(torch.addmm(so_far, end.both, weight))
    x, x0 = (bias, bias) if found is None else (found.x, found.x0)
    return Pair(torch.addmm(x, end.x, weight), x0 + end.facing(end.x0 @ weight))


def _by_length(features: Features) -> Tensor:
    """The samples by falling number of real steps, so that samples of one part have similar lengths."""
    steps: Any = 0
    for feature in features.values():
        real = feature.real()
        steps = steps + real.reshape(*real.shape[:2], -1).any(-1).sum(-1)
    return torch.argsort(steps, descending=True, stable=True)


def chosen_of(features: Features, baselines: Baselines, samples: Tensor | slice) -> tuple[Features, Baselines]:
    """Some samples of a batch and of its baselines."""
    return {key: feature.at(samples) for key, feature in features.items()}, {
        key: baseline.at(samples) for key, baseline in baselines.items()
    }


def _joined(parts: list[Part], order: Tensor | None = None) -> Part:
    """The samples of all parts, in `order`."""
    contributions = {key: torch.cat([part[0][key] for part in parts]) for key in parts[0][0]}
    output, baseline_output, chosen = (torch.cat([part[i] for part in parts]) for i in (1, 2, 3))  # type: ignore
    if order is None:
        return contributions, output, baseline_output, chosen
    return (
        {key: each[order] for key, each in contributions.items()},
        output[order],
        baseline_output[order],
        chosen[order],
    )


def judged(call: Call, features: Features, baselines: Baselines, questions: Questions) -> tuple[Attribution, Verdict]:
    """The attribution of a batch without its report, and the verdict on its convergence deltas.

    Nothing here waits for a GPU. The answers to `questions` raise :class:`deeplift_fast.errors.WeightsChanged` if the
    weights have changed since they were packed.

    Raises:
        Unfit: if the layers do not fit the batch.
    """
    call.fused.watch(questions)
    scaled = not call.options.complete
    with torch.inference_mode(False), torch.no_grad():
        contributions, output, output0, target = run(call, features, baselines, questions)
        sums, tolerance = totals(contributions), call.options.delta_tol
        delta, factor, fine, figures = ops.unchecked.convergence(sums, output, output0, scaled, tolerance)
        if scaled:
            contributions = {key: scaled_by(factor, each) for key, each in contributions.items()}
    return Attribution(contributions, delta, output, output0, target[:, 0]), (fine, figures)


def reporting(call: Call, found: Attribution, verdict: Verdict, questions: Questions) -> Callable[[], Attribution]:
    """Ask for the verdict's numbers.

    Returns:
        A function for the time after the answers: it warns as :class:`deeplift_fast.pyhealth.interpreter.DeepLift`, and
        returns the attribution with its report. It waits for nothing.
    """
    numbers: list[float] = []
    read: list[Tensor] = []
    fine, figures = verdict
    questions.ask((figures,), numbers.extend)
    questions.bring((fine, found.convergence_delta, found.output, found.baseline_output), read.extend)

    def report() -> Attribution:
        total, rounding, misses = (sum(numbers[first::3]) for first in range(3))
        _warn(call, int(misses), math.isfinite(total), read)
        cancelled = Cancellation(found.contributions.values(), found.output, found.baseline_output)
        told = of_one(call.fused.layer, FUSED_RULE, len(found.contributions), total, rounding, cancelled)
        named = found.convergence_delta, found.output, found.baseline_output, found.target
        return Attribution(found.contributions, *named, told)

    return report


def _warn(call: Call, misses: int, finite: bool, read: Sequence[Tensor]) -> None:
    """Warn of outputs that are not finite and of `misses` samples that are not fine.

    Args:
        call: the request.
        misses: the number of samples that are not fine.
        finite: whether all deltas are.
        read: whether each sample is fine (see :data:`Verdict`), the deltas, `f(x)` and `f(x0)`, `[batch]` each.
    """
    fine, delta, output, output0 = read
    if not finite:
        warn_if_not_finite(output, output0)
        real = output.isfinite() & output0.isfinite()
        misses, delta = int((~fine & real).sum()), delta.where(real, 0.0)
    if misses and not call.options.complete:
        warn_of_factors(fine, output.double() - output0.double())
    elif misses:
        warn_of_missed(misses, delta, call.options.delta_tol)


def tensors_of(found: Attribution, verdict: Verdict) -> list[Tensor]:
    """All tensors of an attribution and of its verdict, in a fixed order."""
    assert found.target is not None
    named = found.convergence_delta, found.output, found.baseline_output, found.target
    return [*found.contributions.values(), *named, *verdict]


def with_tensors(keys: Sequence[Hashable], tensors: list[Tensor]) -> tuple[Attribution, Verdict]:
    """The inverse of :func:`tensors_of`, for contributions of these feature keys."""
    *by_key, delta, output, output0, target, fine, figures = tensors
    return Attribution(dict(zip(keys, by_key, strict=True)), delta, output, output0, target), (fine, figures)
