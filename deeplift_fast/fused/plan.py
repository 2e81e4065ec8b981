"""Runs a model through its fused layers: prepared once, checked once against the model's own forward pass."""

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast import targets
from deeplift_fast.diagnostics import Tally
from deeplift_fast.features import Feature
from deeplift_fast.fused.models import FUSED, FusedModel, Unfit
from deeplift_fast.fused.pair import Arithmetic
from deeplift_fast.fused.recognise import family, obstacle, parameters_of

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
CHECKED = 2  # samples that the self-check compares
FUSED_RULE = "fused"

Features = Mapping[str, Feature]
Baselines = Mapping[str, Tensor]


@dataclass(frozen=True)
class Found:
    """What the fused layers give.

    Attributes:
        contributions: by feature key, in the values' shapes; nothing in them is scaled.
        output: `f(x)` at the target, `[batch]`.
        baseline_output: `f(x0)` at the target, `[batch]`.
        target: int64 `[batch, 1]`.
        tally: the layers.
    """

    contributions: dict[Any, Tensor]
    output: Tensor
    baseline_output: Tensor
    target: Tensor
    tally: Tally


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
        self, model: Any, modules: list[Any], own: Callable[[int], Tensor], given: tuple[Features, Baselines]
    ) -> FusedModel | None:
        """The fused layers, or `None` where they do not agree with the model's own forward pass.

        Args:
            model: the model.
            modules: all of its modules, from :func:`deeplift_fast.fused.recognise.modules_of`.
            own: the model's own logits of the first samples of the batch, `[n, classes]`.
            given: the batch.

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
            if not self._checked:
                self.unfit, self._checked = self._check(model, self._fused, own, given)
            return self._fused if self.unfit is None else None

    @staticmethod
    def _check(
        model: Any, fused: FusedModel, own: Callable[[int], Tensor], given: tuple[Features, Baselines]
    ) -> tuple[str | None, bool]:
        """What keeps the fused layers from this model, and whether that was found out."""
        features, baselines = _chosen(*given, torch.arange(len(next(iter(given[1].values()))))[:CHECKED])
        with torch.inference_mode(False), torch.no_grad():
            ours, _, _ = _logits(model, fused, features, baselines, Arithmetic("rescale"), (0.0, 1.0))
        theirs = own(CHECKED)
        if ours.shape != theirs.shape:
            return f"{type(model).__name__}'s own logits have another shape", False
        if not theirs.isfinite().all():  # another batch will tell
            return None, False
        error = float((ours - theirs).abs().max())
        if error <= _TOLERANCE[ours.dtype] * (1 + float(theirs.abs().max())):
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


def usable(modules: list[Any], features: Features) -> bool:
    """Whether fused layers run here: on the CPU, without autocast, in eval mode."""
    on_cpu = all(feature.value.device.type == "cpu" for feature in features.values())
    return on_cpu and not torch.is_autocast_enabled("cpu") and not any(module.training for module in modules)


def run(
    model: Any,
    fused: FusedModel,
    features: Features,
    baselines: Baselines,
    target: int | None,
    rules: str,
    steps: int,
) -> Found:
    """Contributions of a batch; arguments as for :class:`deeplift_fast.pyhealth.DeepLift`.

    Raises:
        Unfit: for a batch that the layers were not written for.
    """
    size = next(iter(features.values())).value.shape[0]
    if size <= fused.at_once:
        found = _run_part(model, fused, features, baselines, target, rules, steps)
    else:
        order = _by_length(features)
        parts = [
            _run_part(model, fused, *_chosen(features, baselines, some), target, rules, steps)
            for some in order.tensor_split(-(-size // fused.at_once))
        ]
        found = _joined(parts, torch.argsort(order))
    contributions, output, baseline_output, chosen = found
    tally = Tally()
    for _ in features:
        tally.count(fused.layer, FUSED_RULE)
    return Found({**contributions}, output, baseline_output, chosen, tally)


Part = tuple[dict[str, Tensor], Tensor, Tensor, Tensor]


def _run_part(
    model: Any,
    fused: FusedModel,
    features: Features,
    baselines: Baselines,
    target: int | None,
    rules: str,
    steps: int,
) -> Part:
    arithmetic = Arithmetic(rules)
    totals: dict[str, Tensor] = {}
    chosen = torch.empty(0)
    output = baseline_output = chosen
    with torch.inference_mode(False), torch.no_grad():
        for k in range(steps, 0, -1):
            # Of several segments, the one that starts is the end nearer to the input, as in the generic walk.
            segment = (0.0, 1.0) if steps == 1 else (k / steps, (k - 1) / steps)
            logits, logits0, backs = _logits(model, fused, features, baselines, arithmetic, segment)
            if steps > 1:
                logits, logits0 = logits0, logits
            if k == steps:
                found = targets.indices(logits, target)
                assert found is not None
                chosen = found
                output = targets.select(logits, chosen)
            if k == 1:
                baseline_output = targets.select(logits0, chosen)
            seeds = model.fc.weight[chosen[:, 0]].chunk(len(features), 1)
            for (key, back), seed in zip(backs.items(), seeds, strict=True):
                part = back(seed) / steps if steps > 1 else back(seed)
                totals[key] = totals[key] + part if key in totals else part
    return totals, output, baseline_output, chosen


def _logits(
    model: Any, fused: FusedModel, features: Features, baselines: Baselines, arithmetic: Arithmetic, segment: Any
) -> tuple[Tensor, Tensor, dict[str, Callable[[Tensor], Tensor]]]:
    bias = model.fc.weight.new_zeros(len(model.fc.weight)) if model.fc.bias is None else model.fc.bias
    backs, found = {}, [bias, bias]
    for (key, feature), weight in zip(features.items(), model.fc.weight.chunk(len(features), 1), strict=True):
        end, backs[key] = fused.feature(key, feature, baselines[key], arithmetic, segment)
        found = [torch.addmm(found[0], end.x, weight.T), found[1] + end.facing(end.x0 @ weight.T)]
    return found[0], found[1], backs


def _by_length(features: Features) -> Tensor:
    """The samples from the one with the most real steps to the one with the fewest: parts then waste no steps."""
    steps: Any = 0
    for feature in features.values():
        real = feature.real()
        steps = steps + real.reshape(*real.shape[:2], -1).any(-1).sum(-1)
    return torch.argsort(steps, descending=True, stable=True)


def _chosen(features: Features, baselines: Baselines, samples: Tensor) -> tuple[Features, Baselines]:
    return {key: feature.at(samples) for key, feature in features.items()}, {
        key: baseline[samples] for key, baseline in baselines.items()
    }


def _joined(parts: list[Part], order: Tensor) -> Part:
    """The parts' samples one after the other, put in `order`."""
    contributions = {key: torch.cat([part[0][key] for part in parts])[order] for key in parts[0][0]}
    output, baseline_output, chosen = (torch.cat([part[i] for part in parts])[order] for i in (1, 2, 3))  # type: ignore
    return contributions, output, baseline_output, chosen


def _versions(weights: list[Any]) -> Any:
    """What changes when a weight does; `None` where PyTorch does not keep count."""
    if any(weight.is_inference() for weight in weights):
        return None
    return [(id(weight), weight.data_ptr(), weight._version) for weight in weights]


__all__ = ["Found", "Plan", "Unfit", "plan_for", "run", "usable"]
