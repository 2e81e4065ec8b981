"""Whether a model is, part by part, the code that the fused layers were written for."""

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
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")


def _functions(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if callable(value) or isinstance(value, staticmethod)}


_KINDS = {kind for kinds in _LAYERS.values() for kind in kinds} | set(_COMMON) | set(_LAYERS)
_AS_IMPORTED = {kind: _functions(kind) for kind in _KINDS}


def family(model: Any) -> type | None:
    """The PyHealth class that `model` is of, if there are fused layers for it."""
    return next((kind for kind in _LAYERS if isinstance(model, kind)), None)


def obstacle(model: Any) -> str | None:
    """What differs from the code that the fused layers were written for, in words; `None` if nothing does."""
    kind = family(model)
    own: type = type(model)
    if kind is None or own is not kind:
        return f"{own.__name__} is not PyHealth's own class"
    known: set[type] = {kind, *_COMMON, *_LAYERS[kind]}
    if any(getattr(nn_module, name, None) for name in _GLOBAL_HOOKS):
        return "hooks are registered for all modules"
    for name, module in model.named_modules():
        found = _difference(module, known)
        if found:
            return f"{name or type(model).__name__} {found}"
    dtypes = {p.dtype for p in model.parameters()}
    if dtypes not in ({torch.float32}, {torch.float64}):
        return f"its parameters are {', '.join(sorted(map(str, dtypes)))}, not all float32 or all float64"
    return None


def _difference(module: nn.Module, known: set[type]) -> str | None:
    kind = type(module)
    if kind not in known:
        return f"is a {kind.__name__}"
    if any(getattr(module, hooks) for hooks in _HOOKS):
        return "has hooks"
    if _functions(kind) != _AS_IMPORTED[kind]:
        return f"has a class ({kind.__name__}) that was changed"
    replaced = [name for name in vars(module) if name in _AS_IMPORTED[kind]]
    if replaced:
        return f"has its own {', '.join(replaced)}"
    return _unusual(module)


def _unusual(module: nn.Module) -> str | None:
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "renormalises its embeddings"
    if isinstance(module, nn.RNNBase) and module.proj_size:
        return "projects its states"
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
        return "normalises several dimensions"
    if isinstance(module, nn.Conv1d) and (module.stride, module.padding, module.dilation, module.groups) != (
        (1,), (0,), (1,), 1,
    ):  # fmt: skip
        return "is a convolution of another kind"
    softmaxes = (nn.Softmax,)
    if isinstance(module, softmaxes) and module.dim not in (-1, 1):
        return "is a softmax over another dimension"
    return None
