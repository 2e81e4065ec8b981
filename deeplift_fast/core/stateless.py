"""Models that change nothing but their result, so that a call has nothing to save, to watch and to put back.

These are PyTorch's own layers, alone or in `nn.Sequential`, without hooks, and without functions and tensors of the
user's. For a small model, saving and watching cost as much as both of its forward passes.
"""

import collections
from collections.abc import Iterable
from operator import attrgetter
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as nn_module

from deeplift_fast.core.isolation import modules_in

_IN_EVALUATION = (  # in training they draw, or update their statistics
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
)  # fmt: skip
_ALWAYS = (
    nn.Sequential, nn.Identity, nn.Flatten, nn.Unflatten, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.ReLU,
    nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Softmax, nn.LogSoftmax, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
_RUN = (  # the methods that a call of a module runs
    "forward", "__call__", "_call_impl", "_wrapped_call_impl", "__getattr__", "__getattribute__", "__iter__",
    "_conv_forward", "_output_padding", "_check_input_dim",
)  # fmt: skip


def _found(owner: Any, names: Iterable[str]) -> tuple[attrgetter, Any]:
    """What reads these attributes of an owner, and their values now."""
    read = attrgetter(*[name for name in names if hasattr(owner, name)])
    return read, read(owner)


def _functions(space: ModuleType) -> tuple[attrgetter, Any]:
    """As :func:`_found`, for the functions of a library's module that the layers above name."""
    methods = [getattr(kind, name, None) for kind in _CODE for name in ("forward", "_conv_forward")]
    codes = [method.__code__ for method in methods if isinstance(method, FunctionType)]
    named = {name for code in codes for name in code.co_names}
    return _found(space, sorted(name for name in named if callable(getattr(space, name, None))))


_CODE = {kind: _found(kind, _RUN) for kind in (*_IN_EVALUATION, *_ALWAYS)}
_FUNCTIONS = [(space, *_functions(space)) for space in (functional, torch)]
_PLAIN = frozenset((bool, int, float, str, tuple, type(None), dict, collections.OrderedDict, set))
_TENSORS = (nn.Parameter, torch.Tensor)  # no subclass, whose code is the user's
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_stateless(model: Any, inputs: Iterable[Any] = ()) -> bool:
    """Whether a call of the model surely writes to no tensor and attribute of its own, and draws no random number."""
    return (
        isinstance(model, nn.Module)
        and not nn_module._has_any_global_hook()
        and not torch._C._len_torch_function_stack()  # code of the user's that meets every call
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._is_any_autocast_enabled()  # it keeps copies of weights
        and all(read(space) == found for space, read, found in _FUNCTIONS)
        and all(type(x) in _TENSORS for x in inputs)
        and all(map(_is_as_made, modules_in(model)))
    )


def _is_as_made(module: nn.Module) -> bool:
    """Whether a module is one of those above, and holds no hook, no function and no tensor but its own plain ones."""
    kind, values = type(module), module.__dict__
    if kind not in _CODE:
        return False
    read, code = _CODE[kind]
    if (
        read(kind) != code  # somebody has replaced it
        or (module.training and kind in _IN_EVALUATION)
        or not _PLAIN.issuperset(map(type, values.values()))
        or any(map(values.get, _HOOKS))
    ):
        return False
    for tensor in (*values["_parameters"].values(), *values["_buffers"].values()):
        if tensor is not None and (type(tensor) not in _TENSORS or tensor.is_inference()):
            return False
    return True
