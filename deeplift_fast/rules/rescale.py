"""The rule sets `"rescale"` and `"pyhealth"`: secant slopes for ReLU, Sigmoid and Tanh, gradients for the rest."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, override

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplift_fast.rules.call import Arguments, Call, shared_name
from deeplift_fast.rules.operations import DRAWS
from deeplift_fast.rules.ruleset import Meeting, Note, RuleSet, draw
from deeplift_fast.rules.secant import secant

_aten = torch.ops.aten


def _activations() -> dict[Callable[..., Any], Meeting]:
    expit = (torch.special.expit, _aten.special_expit, _aten.special_expit.default)
    found: dict[Callable[..., Any], Meeting] = {F.relu: Meeting("relu"), **dict.fromkeys(expit, Meeting("sigmoid"))}
    for name in ("relu", "sigmoid", "tanh"):
        for called, in_place in ((name, False), (f"{name}_", True)):
            operator = getattr(_aten, called)
            calls = (getattr(torch, called), getattr(Tensor, called), operator, operator.default)
            found.update(dict.fromkeys(calls, Meeting(name, in_place)))
    return found


_ACTIVATIONS = _activations()
_MODULE_CALLS = {kind.forward.__code__ for kind in (nn.ReLU, nn.Sigmoid, nn.Tanh)}
_FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class RescaleRules(RuleSet):
    """The Rescale rule (Shrikumar et al. 2017, eq. 13) for ReLU, Sigmoid and Tanh.

    Args:
        as_pyhealth: whether to use PyHealth 2.1's arithmetic, and only for calls by `nn.ReLU`, `nn.Sigmoid` and
            `nn.Tanh`.
    """

    complete = False

    def __init__(self, as_pyhealth: bool = False) -> None:
        self._variant = "pyhealth" if as_pyhealth else "rescale"
        self._modules_only = as_pyhealth

    @override
    def meet(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meeting | None:
        meeting = _ACTIVATIONS.get(func)
        if meeting is None:
            name = shared_name(func)
            return draw(name, func, args, kwargs) if name in DRAWS and not self._modules_only else None
        x: Any = args[0] if args else kwargs.get("input", kwargs.get("self"))
        if getattr(x, "dtype", None) not in _FLOATING:
            return None
        if self._modules_only and not _called_by_module(sys._getframe(2)):
            return None
        in_place = meeting.in_place or (func is F.relu and bool(kwargs.get("inplace") or (len(args) > 1 and args[1])))
        return Meeting(meeting.name, in_place, Arguments((x,), {}, [x], []), getattr(Tensor, meeting.name))

    @override
    def apply(self, call: Call, note: Note) -> tuple[Any, str]:
        return secant(call.actual.floats[0], call.baseline.floats[0], call.name, self._variant), "secant"


def _called_by_module(frame: FrameType | None) -> bool:
    """Whether the `forward` of an activation module made the call in `frame`."""
    for _ in range(3):  # F.relu and PyTorch's own dispatch may be between
        if frame is None or frame.f_code in _MODULE_CALLS:
            break
        frame = frame.f_back
    return frame is not None and frame.f_code in _MODULE_CALLS
