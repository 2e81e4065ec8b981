"""Models that change nothing but their result, so that a call has nothing to save, to watch and to put back.

These are PyTorch's own layers, alone or in `nn.Sequential`, without hooks, and without functions and tensors of the
user's. For a small model, saving and watching cost as much as both of its forward passes.
"""

import collections
from typing import Any

import torch
from torch import nn
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
_FORWARDS: dict[type, Any] = {kind: kind.forward for kind in (*_IN_EVALUATION, *_ALWAYS)}
_PLAIN = frozenset((bool, int, float, str, tuple, type(None), dict, collections.OrderedDict, set))
_TENSORS = (nn.Parameter, torch.Tensor)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_stateless(model: Any) -> bool:
    """Whether a call of the model surely writes to no tensor and attribute of its own, and draws no random number."""
    return (
        isinstance(model, nn.Module)
        and not nn_module._has_any_global_hook()
        and not torch._C._len_torch_function_stack()  # code of the user's that meets every call
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._is_any_autocast_enabled()  # it keeps copies of weights
        and all(map(_is_as_made, modules_in(model)))
    )


def _is_as_made(module: nn.Module) -> bool:
    """Whether a module is one of those above, and holds no hook, no function and no tensor but its own plain ones."""
    kind, values = type(module), module.__dict__
    if (
        kind not in _FORWARDS
        or kind.forward is not _FORWARDS[kind]  # somebody has replaced its code
        or (module.training and kind in _IN_EVALUATION)
        or not _PLAIN.issuperset(map(type, values.values()))
        or any(map(values.get, _HOOKS))
    ):
        return False
    for tensor in (*values["_parameters"].values(), *values["_buffers"].values()):
        if tensor is not None and (type(tensor) not in _TENSORS or tensor.is_inference()):
            return False
    return True
