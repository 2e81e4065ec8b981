"""Routes a model's activations to rules while it runs, wherever it calls them; the model itself is not touched.

Two streams, in two passes of one thread-local `TorchFunctionMode`: the baseline pass keeps each activation's
pre-activation in the order of the calls; the actual pass meets the same calls in the same order and puts the rule,
fed with both pre-activations, in place of the activation.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.overrides import TorchFunctionMode

from deeplift_fast.errors import InterceptionError, InterceptionWarning, warn
from deeplift_fast.isolation import ShadowState
from deeplift_fast.rules import SecantRule

_aten = torch.ops.aten


class _Activation(NamedTuple):
    function: str
    in_place: bool


def _activations() -> dict[Callable[..., Any], _Activation]:
    out_of_place = {
        "relu": [F.relu, torch.relu, Tensor.relu, _aten.relu, _aten.relu.default],
        "sigmoid": [
            torch.sigmoid,
            Tensor.sigmoid,
            torch.special.expit,
            _aten.sigmoid,
            _aten.sigmoid.default,
            _aten.special_expit,
            _aten.special_expit.default,
        ],
        "tanh": [torch.tanh, Tensor.tanh, _aten.tanh, _aten.tanh.default],
    }
    in_place = {
        "relu": [torch.relu_, Tensor.relu_, _aten.relu_, _aten.relu_.default],
        "sigmoid": [torch.sigmoid_, Tensor.sigmoid_, _aten.sigmoid_, _aten.sigmoid_.default],
        "tanh": [torch.tanh_, Tensor.tanh_, _aten.tanh_, _aten.tanh_.default],
    }
    table = {call: _Activation(name, False) for name, calls in out_of_place.items() for call in calls}
    table.update((call, _Activation(name, True)) for name, calls in in_place.items() for call in calls)
    return table


_ACTIVATIONS = _activations()
_MODULE_CALLS = {kind.forward.__code__ for kind in (nn.ReLU, nn.Sigmoid, nn.Tanh)}
_FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(slots=True)
class _Record:
    function: str
    x0: Tensor
    version: int | None

    def describe(self) -> str:
        return f"{self.function} of shape {tuple(self.x0.shape)}"


_USED = _Record("", torch.empty(0), 0)


class Records:
    """What the baseline pass kept of each activation, in the order of the calls."""

    def __init__(self) -> None:
        self.calls: list[_Record] = []

    def intact(self) -> bool:
        """Whether no pre-activation was written to after it was kept."""
        return all(record.version is None or record.x0._version == record.version for record in self.calls)


class IsolatedPass(TorchFunctionMode):
    """Runs a model as it is, with its own state kept apart; the two passes below also look at its activations.

    Args:
        kept: the modules and tensors that must not change.
        modules_only: whether only `nn.ReLU`, `nn.Sigmoid` and `nn.Tanh` count, as in PyHealth.
    """

    def __init__(self, kept: Iterable[nn.Module | Tensor], modules_only: bool = False) -> None:
        super().__init__()
        self._state = ShadowState(kept)
        self._modules_only = modules_only

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run `func`, or what stands in for it; see :class:`torch.overrides.TorchFunctionMode`."""
        args, kwargs = self._state.substitute(func, args, kwargs or {})
        activation = _ACTIVATIONS.get(func)
        if activation is None or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        x: Any = args[0] if args else kwargs.get("input", kwargs.get("self"))
        if getattr(x, "dtype", None) not in _FLOATING or (
            self._modules_only and not _called_by_module(sys._getframe(1))
        ):
            return func(*args, **kwargs)
        _require_plain(x, activation.function)
        if func is F.relu and (kwargs.get("inplace") or (len(args) > 1 and args[1])):
            activation = activation._replace(in_place=True)
        return self._activate(activation, x, lambda: func(*args, **kwargs))

    def _activate(self, activation: _Activation, x: Tensor, run: Callable[[], Tensor]) -> Tensor:
        return run()


class BaselinePass(IsolatedPass):
    """Runs the model at the baseline and keeps what the rules need.

    Args:
        records: filled by this pass.
        copy: whether to keep copies, for a model that writes to pre-activations after their use.
    """

    def __init__(
        self,
        records: Records,
        kept: Iterable[nn.Module | Tensor] = (),
        modules_only: bool = False,
        copy: bool = False,
    ) -> None:
        super().__init__(kept, modules_only)
        self._records = records
        self._copy = copy

    def _activate(self, activation: _Activation, x: Tensor, run: Callable[[], Tensor]) -> Tensor:
        x0 = x.detach().clone() if activation.in_place or self._copy or x.is_inference() else x.detach()
        version = None if x0.is_inference() else x0._version
        self._records.calls.append(_Record(activation.function, x0, version))
        return run()


class ActualPass(IsolatedPass):
    """Runs the model at the input, with rules in place of its activations.

    Args:
        records: what :class:`BaselinePass` kept; used up by this pass.
        variant: the `variant` of :func:`deeplift_fast.ops.secant`.

    Raises:
        InterceptionError: from within the model's call, if an activation has no partner at the baseline.
    """

    def __init__(
        self, records: Records, variant: str, kept: Iterable[nn.Module | Tensor] = (), modules_only: bool = False
    ) -> None:
        super().__init__(kept, modules_only)
        self._records = records
        self._variant = variant
        self._position = 0

    def _activate(self, activation: _Activation, x: Tensor, run: Callable[[], Tensor]) -> Tensor:
        x0 = self._partner(activation, x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return run()
        y = SecantRule.apply(x, x0, activation.function, self._variant)
        return x.copy_(y) if activation.in_place else y

    def _partner(self, activation: _Activation, x: Tensor) -> Tensor:
        calls, position = self._records.calls, self._position
        found = f"{activation.function} of shape {tuple(x.shape)}"
        if position >= len(calls):
            raise _unpaired(position, found, "no activation")
        record = calls[position]
        if (record.function, record.x0.shape, record.x0.dtype) != (activation.function, x.shape, x.dtype):
            raise _unpaired(position, found, record.describe())
        self._position += 1
        calls[position] = _USED  # frees the memory: nothing asks for it again
        return record.x0

    def finish(self) -> None:
        """Raise `InterceptionError` if the baseline met activations that the input did not."""
        if self._position < len(self._records.calls):
            record = self._records.calls[self._position]
            raise _unpaired(self._position, "no activation", record.describe())


def _unpaired(position: int, actual: str, baseline: str) -> InterceptionError:
    return InterceptionError(
        f"activation {position + 1} of the forward pass is {actual} at the input but {baseline} at the baseline: "
        "the model took another path there. Choose a baseline that takes the same path (same shapes, lengths and "
        "masks), or make the model's control flow independent of the attributed values."
    )


def _require_plain(x: Tensor, function: str) -> None:
    kind = None
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        kind = "transformed"
    elif x.is_nested or x.layout is not torch.strided:
        kind = "sparse or nested"
    if kind:
        raise InterceptionError(
            f"{function} is called on a {kind} tensor (torch.func transforms, sparse and nested tensors cannot be "
            "looked into); write this part of the model with plain dense tensors"
        )


def _called_by_module(frame: FrameType | None) -> bool:
    """Whether the activation called from within `frame` was called by an activation module's own `forward`."""
    for _ in range(3):  # F.relu and PyTorch's own dispatch may lie between
        if frame is None or frame.f_code in _MODULE_CALLS:
            break
        frame = frame.f_back
    return frame is not None and frame.f_code in _MODULE_CALLS


def check_model(model: Callable[..., Any], modules: Iterable[nn.Module]) -> None:
    """Refuse, or warn of, parts of a model whose activations cannot be met.

    Args:
        model: what is called.
        modules: the modules that run inside it.

    Raises:
        InterceptionError: for uninitialised lazy modules and for `DataParallel` over several devices.
    """
    scripted: list[Any] = [model.name] if isinstance(model, torch.jit.ScriptFunction) else []
    for root in modules:
        inside: str | None = None
        for name, module in root.named_modules():
            shown = name or type(module).__name__
            if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
                raise InterceptionError(f"{shown} is a DataParallel over several devices; pass its .module instead")
            if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
                raise InterceptionError(f"{shown} is a lazy module; run the model once before attributing")
            if inside is not None and f"{name}.".startswith(inside):
                continue
            if isinstance(module, torch.jit.ScriptModule):
                inside = f"{name}." if name else ""
                scripted.append(name or module.original_name)
            functions = [key for key, value in vars(module).items() if isinstance(value, torch.jit.ScriptFunction)]
            scripted.extend(f"{name}.{key}" if name else key for key in functions)
    if scripted:
        warn(
            f"scripted code cannot be looked into and is attributed by its gradient: {', '.join(scripted)}; "
            "pass the modules that it was made from",
            InterceptionWarning,
        )
