"""The fused layers of a model, packed once and checked once against the model's own forward pass."""

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer
from torch import Tensor

from deeplift_fast.core.questions import NOW, Later, Questions
from deeplift_fast.pyhealth.fused.buffers import wait_for
from deeplift_fast.pyhealth.fused.mlp import FusedMLP
from deeplift_fast.pyhealth.fused.model import FusedModel
from deeplift_fast.pyhealth.fused.pair import Arithmetic
from deeplift_fast.pyhealth.fused.recognise import family, modules_of, obstacle, parameters_of
from deeplift_fast.pyhealth.fused.rnn import FusedRNN
from deeplift_fast.pyhealth.fused.run import Baselines, Features, chosen_of, logits_of
from deeplift_fast.pyhealth.fused.stagenet import FusedStageNet
from deeplift_fast.pyhealth.fused.transformer import FusedTransformer
from deeplift_fast.pyhealth.fused.unchanged import Unchanged

FUSED: dict[type, type[FusedModel]] = {
    StageNet: FusedStageNet,
    StageAttentionNet: FusedStageNet,
    Transformer: FusedTransformer,
    MLP: FusedMLP,
    RNN: FusedRNN,
}
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
CHECKED = 2  # number of samples in the check against the model

static_on_cpu = False  # for tests: whether the CPU takes the path for GPUs


class Plan:
    """A model's fused layers, and the result of their check.

    Attributes:
        unfit: the reason why the model cannot use them, or `None`.
    """

    def __init__(self) -> None:
        self.unfit: str | None = None
        self._checked = False
        self._parts: list[Any] = []
        self._weights: Any = None
        self._fused: FusedModel | None = None
        self._unchanged: Unchanged | None = None  # since the layers were packed and checked
        self._lock = threading.Lock()

    def seen(self, model: Any) -> bool:
        """Whether the fused layers are ready, and the model has not changed since."""
        with self._lock:
            unchanged = self._unchanged
            return unchanged is not None and self._fused is not None and unchanged.holds(model)

    def prepared(
        self,
        model: Any,
        seen: bool,
        own: Callable[[int], Tensor],
        given: tuple[Features, Baselines],
        questions: Questions,
    ) -> FusedModel | None:
        """The fused layers; `None` if they differ from the model's own forward pass, and `unfit` says how.

        Args:
            model: the model.
            seen: the result of :meth:`seen` in this call.
            own: the model's own logits of the first n samples of the batch, `[n, classes]`.
            given: the features of the batch and their baselines.
            questions: the questions to the batch; they are answered before the model itself runs.

        Raises:
            Unfit: if the layers do not fit the batch.
        """
        with self._lock:
            if seen and self._is_current():
                return self._fused
            self._unchanged, modules = None, modules_of(model)
            self.unfit = obstacle(model, modules)
            if self.unfit is not None:
                return None
            parameters = parameters_of(modules)
            parts = [*modules[1:], *parameters]  # without the model, so that the plan does not keep it alive
            if len(parts) != len(self._parts) or any(a is not b for a, b in zip(parts, self._parts, strict=True)):
                self._parts, self._checked, self._fused = parts, False, None
            weights = _versions(parameters)
            if weights is None or weights != self._weights or self._fused is None or self._fused.is_outdated():
                with torch.inference_mode(False), torch.no_grad():
                    self._fused = FUSED[type(model)](weakref.proxy(model))
                self._weights = weights
                wait_for(parameters_of(modules))
            if not self._checked:
                questions.fetch()
                self.unfit, self._checked = self._check(model, self._fused, own, given)
            if self._checked and weights is not None and not any(module.training for module in modules):
                self._unchanged = Unchanged(modules)
            return self._fused if self.unfit is None else None

    def _is_current(self) -> bool:
        """Whether the weights are those that the fused layers were made from, for a model that has not changed."""
        if self._unchanged is None or self._fused is None:
            return False
        return _versions(self._unchanged.parameters()) == self._weights and not self._fused.is_outdated()

    def forget(self, fused: FusedModel) -> None:
        """Pack the weights again before the next call, if `fused` are still the layers in use."""
        with self._lock:
            if self._fused is fused:
                self._fused = None

    @staticmethod
    def _check(
        model: Any, fused: FusedModel, own: Callable[[int], Tensor], given: tuple[Features, Baselines]
    ) -> tuple[str | None, bool]:
        """The reason why the fused layers do not fit the model, if any, and whether the check is done."""
        features, baselines = chosen_of(*given, slice(0, CHECKED))
        device = next(iter(features.values())).value.device
        arithmetic = Arithmetic("rescale", questions_on(device))
        with torch.inference_mode(False), torch.no_grad():
            logits, _, _ = logits_of(model, fused, (features, baselines), arithmetic, (0.0, 1.0))
        arithmetic.questions.fetch()
        ours, theirs = logits.x, own(CHECKED)
        if ours.shape != theirs.shape:
            return f"{type(model).__name__}'s own logits have another shape", False
        if not theirs.isfinite().all():  # the next batch decides
            return None, False
        error = float((ours - theirs).abs().max())
        if error <= _TOLERANCE[ours.dtype] * (1 + float(theirs.abs().max())):
            return None, True
        return f"{type(model).__name__}'s own forward pass gives other logits (by {error:.3g})", False


_plans: "weakref.WeakKeyDictionary[Any, Plan]" = weakref.WeakKeyDictionary()


def plan_for(model: Any) -> Plan | None:
    """The model's plan, shared by all interpreters of the model; `None` if its class has no fused layers."""
    if family(model) is None:
        return None
    if model not in _plans:
        _plans[model] = Plan()
    return _plans[model]


def unusable(modules: list[Any], features: Features) -> str | None:
    """Why fused layers cannot run; `None` if they can: on the CPU or CUDA, without autocast, in eval mode."""
    kinds = {feature.value.device.type for feature in features.values()}
    if not kinds <= {"cpu", "cuda"}:
        return f"it is on {', '.join(sorted(kinds))}"
    if any(torch.is_autocast_enabled(kind) for kind in kinds):
        return "it runs under autocast"
    return "it is in training mode" if any(module.training for module in modules) else None


def is_static(device: torch.device) -> bool:
    """Whether shapes and paths must follow from a batch's shapes alone, so that nothing waits for the device."""
    return static_on_cpu or device.type == "cuda"


def questions_on(device: torch.device) -> Questions:
    """New questions to numbers on a device."""
    return Later() if is_static(device) else NOW


def _versions(weights: list[Any]) -> Any:
    """A value that changes with every weight; `None` where PyTorch counts no versions."""
    try:
        return [(id(weight), weight.data_ptr(), weight._version) for weight in weights]
    except RuntimeError:  # a weight was made in inference mode
        return None
