"""Kinds of batches that share a CUDA graph: their shapes after padding to a bucket, and a graph's own tensors."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from pyhealth.models import MLP, RNN, StageAttentionNet, Transformer
from torch import Tensor, nn

from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.model import embeddings
from deeplift_fast.pyhealth.fused.run import Baselines, Call, Features

BUCKET = 16  # steps are padded to a multiple of this
Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(features: Features) -> Shapes:
    """Each value's shape."""
    return {key: tuple(feature.value.shape) for key, feature in features.items()}


def not_embedded(call: Call, features: Features) -> set[str]:
    """The token features without an `nn.Embedding`, which are not padded."""
    layers = embeddings(call.model)
    return {key for key, each in features.items() if each.is_token and not isinstance(layers[key], nn.Embedding)}


def padded_shapes(call: Call, features: Features, loud: set[str]) -> Shapes:
    """Each value's shape in its bucket: more steps, and more slots in a step, if these change no number.

    Args:
        call: the request.
        features: the batch.
        loud: the token features whose embedding of padding is not 0; they keep their shape.
    """
    return {key: _padded_shape(call, feature, key not in loud) for key, feature in features.items()}


def assumptions(call: Call, features: Features, loud: set[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """What padding to a bucket takes for granted, as it turns out.

    Args:
        call: the request.
        features: the padded batch.
        loud: see :func:`padded_shapes`.

    Returns:
        Whether a masked step comes before a real one where such a step attends to all positions equally, and so to
        padding. By token feature, whether the embedding of padding is not 0.
    """
    layers, tokens = embeddings(call.model), [key for key, each in features.items() if each.is_token]
    rows = {key: layers[key].weight[0].any() for key in tokens if key not in loud}
    gaps = _gaps(features) if isinstance(call.model, Transformer | StageAttentionNet) else []
    device = next(iter(features.values())).value.device
    return torch.stack(gaps).any() if gaps else torch.zeros((), dtype=torch.bool, device=device), rows


def _gaps(features: Features) -> list[Tensor]:
    """By feature, whether a sample begins with a masked step or has one before a real step."""
    found = []
    for feature in features.values():
        real = feature.real() if feature.value.dim() > 1 else None
        if real is None or (not feature.is_token and feature.value.dim() == 2):
            continue
        steps = real.flatten(2).any(-1) if real.dim() > 2 else real
        found += [~steps[:, 0].all(), (steps[:, 1:] > steps[:, :-1]).any()]
    return found


def _padded_shape(call: Call, feature: Feature, silent: bool) -> tuple[int, ...]:
    shape = list(feature.value.shape)
    masked = not isinstance(call.model, MLP | RNN)  # these two find padding by its embedding
    axes = [1] if len(shape) > 1 + (not feature.is_token) and (masked or (feature.is_token and silent)) else []
    if feature.is_token and silent and len(shape) > 2:
        axes.append(2)  # padding adds 0 to the sum over slots
    longest = call.model.max_seq_len if isinstance(call.model, Transformer) else None
    for axis in axes:
        size = -(-shape[axis] // BUCKET) * BUCKET
        shape[axis] = size if axis != 1 or longest is None else max(shape[axis], min(size, longest))
    return tuple(shape)


def key_of(call: Call, features: Features, baselines: Baselines, shapes: Shapes) -> str:
    """A name for all batches that a graph serves: their shapes, dtypes and forms of baselines, and the request."""
    parts = [
        [(_sizes(part, each, shapes[key]), part.dtype) if isinstance(part, Tensor) else part for part in each.parts]
        for key, each in features.items()
    ]
    kinds = [
        (each.value.dtype, each.keeps_mask, None if each.embedding is None else each.embedding.dim())
        for each in baselines.values()
    ]
    return repr((parts, kinds, call.target, call.options))


def _sizes(part: Tensor, feature: Feature, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a part if the value is padded to `shape`: times and masks follow the value's steps."""
    sizes = list(part.shape)
    for axis, (old, new) in enumerate(zip(feature.value.shape, shape, strict=True)):
        if axis >= len(sizes) or sizes[axis] != old:
            break
        sizes[axis] = new
    return tuple(sizes)


def own_feature(feature: Feature, shape: tuple[int, ...]) -> Feature:
    """A feature of zeros, in the padded shape."""
    parts = tuple(
        part.new_zeros(_sizes(part, feature, shape)) if isinstance(part, Tensor) else part for part in feature.parts
    )
    mask = next((new for new, old in zip(parts, feature.parts, strict=True) if old is feature.mask), None)
    return replace(feature, parts=parts, mask=None if feature.mask is None else mask, survey=None)


def bytes_of(features: Features, baselines: Baselines) -> int:
    """The size of a graph's own tensors."""
    parts = [part for each in features.values() for part in each.parts]
    parts += [part for each in baselines.values() for part in (each.value, each.embedding, each.embedded)]
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))


def own_baseline(baseline: BaselineValue, shape: tuple[int, ...]) -> BaselineValue:
    """A baseline of zeros, in the padded shape; fused layers do not use `removed`."""
    return replace(
        baseline,
        value=baseline.value.new_zeros(shape),
        removed=None,
        embedding=None if baseline.embedding is None else torch.zeros_like(baseline.embedding),
        embedded=None if baseline.embedded is None else baseline.embedded.new_zeros(shape),
    )


def fill(own: Features, own0: Baselines, features: Features, baselines: Baselines) -> None:
    """Copy a batch and its baselines into a graph's own tensors; what is left of these becomes 0."""
    for key, feature in features.items():
        ours0, given0 = own0[key], baselines[key]
        pairs = [
            *zip(own[key].parts, feature.parts, strict=True),
            (ours0.value, given0.value),
            (ours0.embedding, given0.embedding),
            (ours0.embedded, given0.embedded),
        ]
        for ours, given in pairs:
            if not isinstance(given, Tensor) or not isinstance(ours, Tensor):
                continue
            if ours.shape != given.shape:
                ours.zero_()
            ours[corner(given)].copy_(given)


def corner(tensor: Tensor) -> tuple[slice, ...]:
    """The part of a padded tensor that a tensor fills."""
    return tuple(slice(0, size) for size in tensor.shape)
