"""Runs a model through its fused layers: prepared once, checked once against the model's own forward pass."""

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.feature_baselines import BaselineValue
from deeplift_fast.features import Feature
from deeplift_fast.fused.models import FUSED, FusedModel
from deeplift_fast.fused.pair import Arithmetic, Pair
from deeplift_fast.fused.recognise import family, obstacle, parameters_of
from deeplift_fast.options import Options
from deeplift_fast.questions import NOW, Later, Questions

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
_TOLERANCE_ON_GPU = {torch.float32: 1e-2, torch.float64: 1e-9}  # the model's own cuDNN layers may round to TF32
CHECKED = 2  # samples that the self-check compares
AT_ONCE_ON_GPU = 16  # times as many samples as on the CPU, whose caches set that number

static_on_cpu = False  # whether the route for GPUs is taken on the CPU as well: for tests

Features = Mapping[str, Feature]
Baselines = Mapping[str, BaselineValue]


class Plan:
    """A model's fused layers, and what was found out about them.

    Attributes:
        unfit: why the model cannot go through them, or `None`.
    """

    def __init__(self) -> None:
        self.unfit: str | None = None
        self._checked = False
        self._parts: list[Any] = []
        self._weights: Any = None
        self._fused: FusedModel | None = None
        self._lock = threading.Lock()

    def prepared(
        self,
        model: Any,
        modules: list[Any],
        own: Callable[[int], Tensor],
        given: tuple[Features, Baselines],
        questions: Questions,
    ) -> FusedModel | None:
        """The fused layers, or `None` where they do not agree with the model's own forward pass.

        Args:
            model: the model.
            modules: all of its modules, from :func:`deeplift_fast.fused.recognise.modules_of`.
            own: the model's own logits of the first samples of the batch, `[n, classes]`.
            given: the batch.
            questions: those to the batch; they are answered before the model runs itself.

        Raises:
            Unfit: for a batch that the layers were not written for.
        """
        with self._lock:
            self.unfit = obstacle(model, modules)
            if self.unfit is not None:
                return None
            parameters = parameters_of(modules)
            parts = [*modules[1:], *parameters]  # not the model itself, which must not live as long as its plan
            if len(parts) != len(self._parts) or any(a is not b for a, b in zip(parts, self._parts, strict=True)):
                self._parts, self._checked, self._fused = parts, False, None
            weights = _versions(parameters)
            if weights is None or weights != self._weights or self._fused is None or self._fused.is_outdated():
                with torch.inference_mode(False), torch.no_grad():
                    self._fused = FUSED[type(model)](weakref.proxy(model))
                self._weights = weights
                _wait_for(parameters_of(modules))
            if not self._checked:
                questions.fetch()
                self.unfit, self._checked = self._check(model, self._fused, own, given)
            return self._fused if self.unfit is None else None

    @staticmethod
    def _check(
        model: Any, fused: FusedModel, own: Callable[[int], Tensor], given: tuple[Features, Baselines]
    ) -> tuple[str | None, bool]:
        """What keeps the fused layers from this model, and whether that was found out."""
        features, baselines = _chosen(*given, slice(0, CHECKED))
        device = next(iter(features.values())).value.device
        arithmetic = Arithmetic("rescale", questions_on(device))
        with torch.inference_mode(False), torch.no_grad():
            logits, _, _ = _logits(model, fused, (features, baselines), arithmetic, (0.0, 1.0))
        arithmetic.questions.fetch()
        ours, theirs = logits.x, own(CHECKED)
        if ours.shape != theirs.shape:
            return f"{type(model).__name__}'s own logits have another shape", False
        if not theirs.isfinite().all():  # another batch will tell
            return None, False
        error = float((ours - theirs).abs().max())
        tolerance = (_TOLERANCE if device.type == "cpu" else _TOLERANCE_ON_GPU)[ours.dtype]
        if error <= tolerance * (1 + float(theirs.abs().max())):
            return None, True
        return f"{type(model).__name__}'s own forward pass gives other logits (by {error:.3g})", False


_plans: "weakref.WeakKeyDictionary[Any, Plan]" = weakref.WeakKeyDictionary()


def plan_for(model: Any) -> Plan | None:
    """The model's plan, shared by all who explain it; `None` where there are no fused layers for its class."""
    if family(model) is None:
        return None
    if model not in _plans:
        _plans[model] = Plan()
    return _plans[model]


def unusable(modules: list[Any], features: Features) -> str | None:
    """Why fused layers do not run here, if so: they do on the CPU or CUDA, without autocast, in eval mode."""
    kinds = {feature.value.device.type for feature in features.values()}
    if not kinds <= {"cpu", "cuda"}:
        return f"it is on {', '.join(sorted(kinds))}"
    if any(torch.is_autocast_enabled(kind) for kind in kinds):
        return "it runs under autocast"
    return "it is in training mode" if any(module.training for module in modules) else None


def is_static(device: torch.device) -> bool:
    """Whether nothing may wait for the numbers on a device: shapes and paths depend on the batch's shapes alone."""
    return static_on_cpu or device.type == "cuda"


def questions_on(device: torch.device) -> Questions:
    """How numbers on a device are asked for."""
    return Later() if is_static(device) else NOW


@dataclass(frozen=True)
class Call:
    """The request that a model answers for any batch; fields as for :func:`deeplift_fast.fused.route.attribute`."""

    model: Any
    fused: FusedModel
    target: int | None
    options: Options


# Contributions by feature key, `f(x)` and `f(x0)` at the target, `[batch]`, and the target, int64 `[batch, 1]`.
Part = tuple[dict[str, Tensor], Tensor, Tensor, Tensor]


def run(call: Call, features: Features, baselines: Baselines, questions: Questions) -> Part:
    """Contributions of a batch, of which nothing is scaled.

    Raises:
        Unfit: for a batch that the layers were not written for.
    """
    size = next(iter(features.values())).value.shape[0]
    at_once = call.fused.at_once * AT_ONCE_ON_GPU if questions.static else call.fused.at_once

    def part_of(samples: Tensor | slice) -> Part:
        return _run_part(call, *_chosen(features, baselines, samples), questions)

    if size <= at_once:
        return _run_part(call, features, baselines, questions)
    if questions.static:
        return _joined([part_of(slice(first, first + at_once)) for first in range(0, size, at_once)])
    order = _by_length(features)
    return _joined([part_of(some) for some in order.tensor_split(-(-size // at_once))], torch.argsort(order))


def _run_part(call: Call, features: Features, baselines: Baselines, questions: Questions) -> Part:
    model, steps, arithmetic = call.model, call.options.steps, Arithmetic(call.options.rules, questions)
    totals: dict[str, Tensor] = {}
    chosen = torch.empty(0, device=model.device)
    output = baseline_output = chosen
    with torch.inference_mode(False), torch.no_grad():
        for k in range(steps, 0, -1):
            # Of several segments, the one that starts is the end nearer to the input, as in the generic walk.
            segment = (0.0, 1.0) if steps == 1 else (k / steps, (k - 1) / steps)
            pair, back, parts = _logits(model, call.fused, (features, baselines), arithmetic, segment)
            if k == steps:
                chosen = _target(pair.x if steps == 1 else pair.x0, call.target)
            ends = _at(chosen, pair)
            if k == steps:
                output = ends[0 if steps == 1 else 1]
            if k == 1:
                baseline_output = ends[1 if steps == 1 else 0]
            by_part = model.fc.weight.unflatten(1, (parts, -1)).transpose(0, 1)
            seeds = by_part.index_select(1, chosen[:, 0])  # each part's lie together: no kernel copies them
            for key, each in back(list(seeds)).items():
                part = each / steps if steps > 1 else each
                totals[key] = totals[key] + part if key in totals else part
    return totals, output, baseline_output, chosen


def _target(logits: Tensor, target: int | None) -> Tensor:
    """The class that is explained of each sample, int64 `[batch, 1]`."""
    if target is None:
        return logits.argmax(1, keepdim=True)
    if not -logits.shape[1] <= target < logits.shape[1]:
        raise ValueError(f"target lies outside the model's output of shape {tuple(logits.shape)}; got {target}")
    return torch.full((len(logits), 1), target % logits.shape[1], device=logits.device)


def _at(chosen: Tensor, logits: Pair) -> tuple[Tensor, Tensor]:
    """Both streams' logits of the chosen classes, `[batch]`."""
    if logits.both is None:
        return logits.x.gather(1, chosen)[:, 0], logits.x0.gather(1, chosen)[:, 0]
    by_stream = logits.both.unflatten(0, (2, -1))
    x, x0 = by_stream.gather(2, chosen.expand(2, *chosen.shape))[..., 0]
    return x, x0


def _logits(
    model: Any, fused: FusedModel, given: tuple[Features, Baselines], arithmetic: Arithmetic, segment: Any
) -> tuple[Pair, Callable[[list[Tensor]], dict[str, Tensor]], int]:
    """Also the way back from the multipliers of the patient embedding's parts, and how many these are."""
    bias = model.fc.weight.new_zeros(len(model.fc.weight)) if model.fc.bias is None else model.fc.bias
    ends, back = fused.features(*given, arithmetic, segment)
    found = None
    for end, weight in zip(ends, model.fc.weight.chunk(len(ends), 1), strict=True):
        found = _added(found, end, weight.T, bias)
    assert found is not None
    return found, back, len(ends)


def _added(found: Pair | None, end: Pair, weight: Tensor, bias: Tensor) -> Pair:
    """What one more part of the patient embedding gives to the logits."""
    so_far = bias if found is None else found.both
    if end.both is not None and so_far is not None:
        return Pair.stacked(torch.addmm(so_far, end.both, weight))
    x, x0 = (bias, bias) if found is None else (found.x, found.x0)
    return Pair(torch.addmm(x, end.x, weight), x0 + end.facing(end.x0 @ weight))


def _by_length(features: Features) -> Tensor:
    """The samples from the one with the most real steps to the one with the fewest: parts then waste no steps."""
    steps: Any = 0
    for feature in features.values():
        real = feature.real()
        steps = steps + real.reshape(*real.shape[:2], -1).any(-1).sum(-1)
    return torch.argsort(steps, descending=True, stable=True)


def _chosen(features: Features, baselines: Baselines, samples: Tensor | slice) -> tuple[Features, Baselines]:
    return {key: feature.at(samples) for key, feature in features.items()}, {
        key: baseline.at(samples) for key, baseline in baselines.items()
    }


def _joined(parts: list[Part], order: Tensor | None = None) -> Part:
    """The parts' samples one after the other, put in `order`."""
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


def _wait_for(weights: list[Any]) -> None:
    """Have other streams find the packed weights ready."""
    for device in {weight.device for weight in weights if weight.is_cuda}:
        torch.cuda.current_stream(device).synchronize()


def _versions(weights: list[Any]) -> Any:
    """What changes when a weight does; `None` where PyTorch does not keep count."""
    if any(weight.is_inference() for weight in weights):
        return None
    return [(id(weight), weight.data_ptr(), weight._version) for weight in weights]


__all__ = ["Call", "Plan", "is_static", "plan_for", "questions_on", "run", "unusable"]
