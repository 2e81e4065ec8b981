"""Compares a model, module by module, with the PyHealth code that the fused layers stand for."""

from collections.abc import Callable
from typing import Any

import torch
from pyhealth.models import MLP, RNN, EmbeddingModel, StageAttentionNet, StageNet, Transformer
from pyhealth.models.rnn import RNNLayer
from pyhealth.models.stagenet import StageNetLayer
from pyhealth.models.stagenet_mha import StageNetAttentionLayer
from pyhealth.models.transformer import (
    Attention,
    MultiHeadedAttention,
    PositionwiseFeedForward,
    SublayerConnection,
    TransformerBlock,
    TransformerLayer,
)
from torch import nn
from torch.nn.modules import module as nn_module

_LAYERS: dict[type, tuple[type, ...]] = {
    StageNet: (StageNetLayer,),
    StageAttentionNet: (StageNetAttentionLayer, MultiHeadedAttention, Attention, nn.LayerNorm),
    Transformer: (
        TransformerLayer, TransformerBlock, SublayerConnection, PositionwiseFeedForward, MultiHeadedAttention,
        Attention, nn.LayerNorm, nn.GELU,
    ),
    MLP: (nn.Sequential, nn.LeakyReLU, nn.ELU),
    RNN: (RNNLayer, nn.GRU, nn.LSTM, nn.RNN),
}  # fmt: skip
_COMMON = (
    EmbeddingModel, nn.Embedding, nn.Linear, nn.Conv1d, nn.ModuleDict, nn.ModuleList, nn.Dropout, nn.ReLU, nn.Sigmoid,
    nn.Tanh, nn.Softmax,
)  # fmt: skip
_ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU)
_IN_SEQUENCE = (nn.Linear, *_ACTIVATIONS)
_NAMED = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "softmax": nn.Softmax, "softmax_dim1": nn.Softmax}
_WEIGHTS = ("weight", "bias")
_GLOBAL_HOOKS = tuple(
    f"_global_{hooks}" for hooks in ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
)


def _functions(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if callable(value) or isinstance(value, staticmethod)}


_KINDS = {kind for kinds in _LAYERS.values() for kind in kinds} | set(_COMMON) | set(_LAYERS)
_AS_IMPORTED = {kind: _functions(kind) for kind in _KINDS}
_ALL_AS_IMPORTED = {kind: dict(vars(kind)) for kind in _KINDS}


def is_changed(kind: type) -> bool:
    """Whether a class of PyHealth's or PyTorch's has other functions than when this package was imported."""
    # The first comparison is fast. A copy of an instance may add attributes to a class, so functions decide.
    return bool(vars(kind) != _ALL_AS_IMPORTED[kind]) and _functions(kind) != _AS_IMPORTED[kind]


def family(model: Any) -> type | None:
    """The PyHealth class of `model`, also under `torch.compile`; `None` if the class has no fused layers."""
    wrapped = model._modules.get("_orig_mod", model)
    own: type = type(wrapped)
    return own if own in _LAYERS else next((kind for kind in _LAYERS if isinstance(wrapped, kind)), None)


def modules_of(model: Any) -> list[nn.Module]:
    """The model and all modules in it, each once; faster than `modules()`."""
    found = {id(model): model}
    waiting = [model]
    while waiting:
        for module in waiting.pop()._modules.values():
            if module is not None and id(module) not in found:
                found[id(module)] = module
                waiting.append(module)
    return list(found.values())


def parameters_of(modules: list[nn.Module]) -> list[Any]:
    """The parameters of all modules; a shared one appears once per module."""
    return [p for module in modules for p in module._parameters.values() if p is not None]


def obstacle(model: Any, modules: list[nn.Module]) -> str | None:
    """The first difference between the model and PyHealth's own code, in words; `None` if there is none.

    Args:
        model: the model.
        modules: all of its modules, from :func:`modules_of`.
    """
    kind = family(model)
    own: type = type(model)
    if kind is None or own is not kind:
        return f"{own.__name__} is not PyHealth's own class"
    if has_global_hooks():
        return "hooks are registered for all modules"
    known: set[type] = {kind, *_COMMON, *_LAYERS[kind]}
    changed = {each for each in {type(module) for module in modules} & known if is_changed(each)}
    for module in modules:
        found = difference(module, known, changed)
        if found:
            return f"{_name(model, module)} {found}"
    dtypes = {p.dtype for p in parameters_of(modules)}
    if dtypes not in ({torch.float32}, {torch.float64}):
        return f"its parameters are {', '.join(sorted(map(str, dtypes)))}, not all float32 or all float64"
    return None


def keeps_apart(model: Any) -> bool:
    """Whether the model is known to keep the samples of a batch apart and to draw no random numbers."""
    modules = modules_of(model)
    return obstacle(model, modules) is None and not any(module.training for module in modules)


def _name(model: Any, module: nn.Module) -> str:
    names = (name for name, each in model.named_modules() if each is module)
    return next(names, "") or type(model).__name__


def has_global_hooks() -> bool:
    """Whether hooks are registered for all modules of the process."""
    return any(getattr(nn_module, name, None) for name in _GLOBAL_HOOKS)


def difference(module: nn.Module, known: set[type], changed: set[type]) -> str | None:
    """The first difference between a module and PyHealth's code, in words; `None` if there is none.

    Args:
        module: the module.
        known: the classes that it may have.
        changed: those of them whose functions were changed.
    """
    kind, own = type(module), vars(module)
    if kind not in known:
        return f"is a {kind.__name__}"
    if own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]:
        return "has hooks"
    if kind in changed:
        return f"has a class ({kind.__name__}) that was changed"
    if not own.keys().isdisjoint(_AS_IMPORTED[kind]):
        return f"has its own {', '.join(name for name in own if name in _AS_IMPORTED[kind])}"
    for name in _WEIGHTS:
        if isinstance(own.get(name), torch.Tensor):
            return f"has a {name} that is no parameter"
    for name, p in module._parameters.items():
        if p is not None and not _is_readable(p, kind):
            return f"has a {name} that is not contiguous in memory"
    unusual = _UNUSUAL.get(kind)
    return (unusual(module) if unusual else None) or (_misplaced(module) if module._modules else None)


def _is_readable(parameter: torch.Tensor, kind: type) -> bool:
    """Whether kernels can read it: products of matrices read strided memory, other kernels do not."""
    if parameter.layout != torch.strided:
        return False
    return parameter.is_contiguous() or (parameter.dim() > 1 and kind is not nn.Embedding)


def _misplaced(module: nn.Module) -> str | None:
    """Activations under another activation's name; the check of logits may miss them where their effect is small."""
    for name, part in module._modules.items():
        if part is not None and name in _NAMED and type(part) is not _NAMED[name]:
            return f"has a {type(part).__name__} as its {name}"
    return None


def _feed_forward(module: Any) -> str | None:
    if type(module.activation) is not nn.GELU:
        return f"has a {type(module.activation).__name__} as its activation"
    return None


def _sequential(module: Any) -> str | None:
    if any(type(part) not in _IN_SEQUENCE for part in module._modules.values()):
        return "holds other parts than linear layers and activations"
    return None


def _embedding(module: Any) -> str | None:
    return None if module.max_norm is None else "renormalises its embeddings"


def _recurrent(module: Any) -> str | None:
    if len(module._parameters) != len(module._flat_weights_names):
        return "has a weight that is no parameter"
    return "projects its states" if module.proj_size else None


def _layer_norm(module: Any) -> str | None:
    return None if len(module.normalized_shape) == 1 else "normalises several dimensions"


def _convolution(module: Any) -> str | None:
    usual = (module.stride, module.padding, module.dilation, module.groups) == ((1,), (0,), (1,), 1)
    return None if usual else "is a convolution of another kind"


def _attention(module: Any) -> str | None:
    layers = (*module.linear_layers, module.output_linear)
    return None if all(layer.bias is None for layer in layers) else "has biases"


def _softmax(module: Any) -> str | None:
    return None if module.dim in (-1, 1) else "is a softmax over another dimension"


_UNUSUAL: dict[type, Callable[[Any], str | None]] = {
    PositionwiseFeedForward: _feed_forward,
    nn.Sequential: _sequential,
    nn.Embedding: _embedding,
    nn.GRU: _recurrent,
    nn.LSTM: _recurrent,
    nn.RNN: _recurrent,
    nn.LayerNorm: _layer_norm,
    nn.Conv1d: _convolution,
    MultiHeadedAttention: _attention,
    nn.Softmax: _softmax,
}
