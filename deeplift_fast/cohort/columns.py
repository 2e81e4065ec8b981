"""The features, labels and numbers of a batch as columns: arrays with one entry per row of a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from deeplift_fast.cohort.metadata_columns import BatchMetadata
from deeplift_fast.pyhealth.features import Feature, kind_of, measured


@dataclass(frozen=True)
class FeatureColumns:
    """The columns of one feature of a batch in `attributions`, ordered by sample.

    Attributes:
        sample: place of the sample in the batch, int32, ascending.
        step: int32.
        slot: int32.
        token: token index; `None` for a feature of values.
        time: NaN for null; `None` for a feature without times.
        value: NaN for null; `None` for tokens.
        attribution: float32.
        day: float32, NaN for null; `None` if the samples do not have it, as for the next two.
        stay: places in the labels of the batch, int32; `UNKNOWN` for null.
        measured: int8, 0 or 1; `UNKNOWN` for null.
    """

    sample: np.ndarray
    step: np.ndarray
    slot: np.ndarray
    token: np.ndarray | None
    time: np.ndarray | None
    value: np.ndarray | None
    attribution: np.ndarray
    day: np.ndarray | None = None
    stay: np.ndarray | None = None
    measured: np.ndarray | None = None


def feature_columns(
    feature: Feature, contributions: Tensor, recorded: Tensor, metadata: BatchMetadata
) -> FeatureColumns:
    """The columns of one feature of a batch.

    Args:
        feature: the feature, from `read_features`.
        contributions: floating point, of the value's shape.
        recorded: the numbers to record for continuous values, of the value's shape.
        metadata: the metadata of the batch.
    """
    times = feature.times
    grid = _grid(feature, timed=times is not None)
    real = feature.real() if feature.is_token else feature.real() | measured(feature)
    place = np.flatnonzero(numbers(real))
    sample, step, slot = _axes(place, grid)
    token = numbers(feature.value).reshape(-1).take(place) if feature.is_token else None
    value = None if feature.is_token else numbers(recorded).reshape(-1).take(place)
    attribution = numbers(contributions).reshape(-1).take(place).astype(np.float32, copy=False)
    flags = metadata.measured(feature)
    outer = step // (grid[1] // feature.value.shape[1]) if has_steps(feature) else step
    return FeatureColumns(
        sample,
        step,
        slot,
        token,
        _times(times, grid, sample, step),
        value,
        attribution,
        metadata.day(feature.key, sample, outer),
        metadata.stay(feature.key, sample, outer),
        None if flags is None else flags.reshape(-1).take(place),
    )


def _axes(place: np.ndarray, grid: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample, step and slot, int32, of places in a flattened grid: ten times as fast as `nonzero` of three axes."""
    _, steps, slots = grid
    place = place.astype(np.int32 if math.prod(grid) < 1 << 31 else np.int64)
    sample = place // max(1, steps * slots)
    within = place - sample * (steps * slots)
    step = within if slots == 1 else within // max(1, slots)
    slot = np.zeros_like(within) if slots == 1 else within - step * slots
    return sample.astype(np.int32, copy=False), step.astype(np.int32, copy=False), slot.astype(np.int32, copy=False)


def has_steps(feature: Feature) -> bool:
    """Whether the value has an axis of steps."""
    return feature.value.dim() > (1 if feature.is_token or feature.times is not None else 2)


def names_of(processor: Any, given: Sequence[str] | None) -> Sequence[str] | None:
    """Names of a feature's dimensions: the given ones, the categories of a multi-hot feature, or `None`."""
    if given is not None:
        return [str(name) for name in given]
    if kind_of(type(processor)) != "multi_hot":
        return None
    vocabulary = getattr(processor, "label_vocab", None) or getattr(processor, "code_vocab", {})
    texts = {int(index): str(text) for text, index in vocabulary.items()}
    return [texts.get(index, str(index)) for index in range(1 + max(texts, default=-1))]


def check_names(feature: Feature, processor: Any, names: Sequence[str] | None) -> None:
    """Raise `ValueError` unless there is one name per dimension of a feature of values."""
    size = _grid(feature, timed="time" in processor.schema())[2]
    if names is not None and len(names) != size:
        raise ValueError(f"dimensions[{feature.key!r}] has {len(names)} name(s); the feature has {size} dimension(s)")


def _grid(feature: Feature, timed: bool) -> tuple[int, int, int]:
    """Batch size, steps and slots: the value's shape with every axis but the first and the last merged."""
    shape = tuple(feature.value.shape)
    if len(shape) == 1:
        return shape[0], 1, 1
    if len(shape) == 2:
        return (*shape, 1) if feature.is_token or timed else (shape[0], 1, shape[1])
    return shape[0], int(np.prod(shape[1:-1])), shape[-1]


def _times(times: Tensor | None, grid: tuple[int, int, int], sample: np.ndarray, step: np.ndarray) -> np.ndarray | None:
    """The time of each row; if axes are merged into steps, times belong to the first of these axes."""
    if times is None:
        return None
    by_step = numbers(times).reshape(grid[0], math.prod(times.shape[1:]))  # -1 is no size of an empty batch
    merged = max(1, grid[1] // by_step.shape[1])
    return by_step[sample, step // merged]


def floats(values: np.ndarray | None, rows: int) -> pa.Array:
    """A float32 array with null for NaN; all null for `None`."""
    if values is None:
        return pa.nulls(rows, pa.float32())
    missing = np.isnan(values)
    count = int(np.count_nonzero(missing))
    given = pa.py_buffer(np.ascontiguousarray(values, np.float32))
    valid = (
        pa.py_buffer(np.packbits(~missing, bitorder="little")) if count else None
    )  # ten times as fast as from_pandas
    return pa.Array.from_buffers(pa.float32(), rows, [valid, given], count)


def numbers(tensor: Any) -> np.ndarray:
    """A tensor as an array; other floats become float32."""
    wide = tensor.detach().cpu()
    return (wide.float() if wide.dtype in (torch.bfloat16, torch.float16, torch.float64) else wide).numpy()


def labels_of(model: Any, batch: Mapping[str, Any], target: Any) -> np.ndarray | None:
    """True labels, float32 `[batch]` (multilabel: whether the target applies); `None` if the batch has none."""
    (key,) = model.label_keys
    if key not in batch or _holds_none(batch[key]):
        return None
    labels = torch.as_tensor(batch[key], device="cpu").detach()
    if model.mode == "multilabel":
        labels = labels.gather(1, target.detach().cpu().reshape(-1, 1))
    return numbers(labels.reshape(len(labels)).float())


def _holds_none(labels: Any) -> bool:
    return labels is None or (isinstance(labels, list | tuple) and all(label is None for label in labels))


def check_shape(name: str, tensor: Tensor, feature: Feature) -> None:
    """Raise `ValueError`, with the tensor's name, unless it has the shape of the feature's value."""
    if tensor.shape != feature.value.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; accepted: the value's, {tuple(feature.value.shape)}")
