"""Tensors of samples as Arrow columns: numbers, ragged steps, and ragged tokens in ragged steps.

A column takes one of three forms:

- `single`: a number per sample, from tensors without dimensions;
- `dense`: a list of steps per sample, each of the same shape;
- `trimmed`: integers of two dimensions or more. PyHealth pads each step (a visit) to the widest of the data set. Rows
  are stored without the zeros at their end, and are padded again in a batch.

Integers are stored in the smallest type that holds a block's numbers, and get their own type back.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, override

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from deeplift_fast.cohort.padding import ranges
from deeplift_fast.cohort.samples import Ragged

_NARROW = (np.uint8, np.uint16, np.int32)
_MOST_OFFSET = 2**31 - 1


class Trimmed(Ragged):
    """A ragged column of integers whose rows are kept without the zeros at their end.

    Args:
        values: the integers of one row after another, `[sum of row_lengths]`, maybe of a narrower type.
        row_lengths: int64 `[rows]`.
        lengths: int64 `[samples]`, the first dimension of each sample; a step has `prod(inner[:-1])` rows.
        inner: the shape of a step.
        dtype: the integers' own type.
    """

    def __init__(
        self, values: np.ndarray, row_lengths: np.ndarray, lengths: np.ndarray, inner: tuple[int, ...], dtype: np.dtype
    ) -> None:
        for name, given in (("values", values), ("row_lengths", row_lengths), ("lengths", lengths)):
            object.__setattr__(self, name, given)  # the dataclass is frozen
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "dtype", dtype)

    values: np.ndarray
    row_lengths: np.ndarray
    inner: tuple[int, ...]
    dtype: np.dtype

    @cached_property
    def flat(self) -> np.ndarray:  # type: ignore[override]
        """The values of one sample after another with all zeros, `[sum of lengths, …]`."""
        assert self.lengths is not None
        found = np.zeros((int(self.lengths.sum()), *self.inner), self.dtype)
        rows = np.arange(len(self.row_lengths))
        found.reshape(-1)[ranges(rows * self.inner[-1], self.row_lengths)] = self.values
        return found

    @override
    def padded(self, which: np.ndarray) -> Tensor:
        assert self.lengths is not None
        per_step = math.prod(self.inner[:-1])
        chosen = self.lengths[which]
        longest = int(chosen.max(initial=0))
        shape = (len(which), longest, *self.inner)
        found = torch.zeros(shape, dtype=torch.from_numpy(np.empty(0, self.dtype)).dtype, device="cpu")
        counts = chosen * per_step
        rows = ranges((np.cumsum(self.lengths)[which] - chosen) * per_step, counts)
        targets = ranges(np.arange(len(which)) * (longest * per_step), counts)
        held = self.row_lengths[rows]
        source = ranges(self._row_begins[rows], held)
        found.numpy().reshape(-1)[ranges(targets * self.inner[-1], held)] = self.values[source]
        return found

    @cached_property
    def _row_begins(self) -> np.ndarray:
        return np.cumsum(self.row_lengths) - self.row_lengths


def form_of(values: Ragged) -> str:
    """The form of a column; it depends on dtype and dimensions alone."""
    if values.lengths is None:
        return "single"
    is_whole = values.flat.dtype.kind in "iu" and values.flat.ndim > 1
    return "trimmed" if is_whole and math.prod(values.flat.shape[1:]) else "dense"


def column_of(values: Ragged, missing: pa.Array | None = None) -> tuple[pa.Array, dict[str, Any]]:
    """The Arrow column of a field's tensors, and its description for :func:`read_column`.

    Args:
        values: the tensors.
        missing: the samples, bool, that have none; `None` if all have one.
    """
    if isinstance(values, Trimmed):  # its zeros may take thousands of times its room
        inner = listed(pa.array(_narrow(values.values)), values.row_lengths)
        about = {"form": "trimmed", "dtype": values.dtype.str, "inner": list(values.inner)}
        assert values.lengths is not None
        return listed(inner, values.lengths * math.prod(values.inner[:-1]), missing), about
    flat, form = values.flat, form_of(values)
    about = {"form": form, "dtype": flat.dtype.str, "inner": list(flat.shape[1:])}
    if form == "trimmed":
        rows = flat.reshape(-1, flat.shape[-1])
        real = rows != 0
        held = np.where(real.any(1), rows.shape[1] - real[:, ::-1].argmax(1), 0)
        whole = np.arange(rows.shape[1]) < held[:, None]
        inner = listed(pa.array(_narrow(rows[whole])), held)
        assert values.lengths is not None
        return listed(inner, values.lengths * math.prod(flat.shape[1:-1]), missing), about
    width = math.prod(flat.shape[1:])
    stored = pa.array(_stored(flat).reshape(-1))
    if width == 0:
        stored = pa.nulls(len(flat))  # steps without numbers
    elif flat.ndim > 1:
        stored = pa.FixedSizeListArray.from_arrays(stored, width)
    return stored if values.lengths is None else listed(stored, values.lengths, missing), about


def read_column(column: pa.Array, about: Mapping[str, Any]) -> Ragged:
    """The tensors in a column, or in a slice of one; values that keep their type are not copied."""
    dtype, inner = np.dtype(about["dtype"]), tuple(about["inner"])
    if about["form"] == "single":
        return Ragged(_typed(column.to_numpy(), dtype), None)
    lengths, steps = unlisted(column)
    if about["form"] == "trimmed":
        held, values = unlisted(steps)
        return Trimmed(values.to_numpy(), held, lengths // max(1, math.prod(inner[:-1])), inner, dtype)
    if math.prod(inner) == 0:
        return Ragged(np.empty((len(steps), *inner), dtype), lengths)
    numbers = (steps.flatten() if inner else steps).to_numpy()
    return Ragged(_typed(numbers, dtype).reshape(len(steps), *inner), lengths)


def joined(pieces: list[Ragged]) -> Ragged:
    """Columns of one kind, one after another."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    if first.lengths is None:
        return Ragged(np.concatenate([each.flat for each in pieces]), None)
    lengths = np.concatenate([each.lengths for each in pieces if each.lengths is not None])
    if isinstance(first, Trimmed):
        trimmed = [each for each in pieces if isinstance(each, Trimmed)]
        values = np.concatenate([each.values for each in trimmed])
        rows = np.concatenate([each.row_lengths for each in trimmed])
        return Trimmed(values, rows, lengths, first.inner, first.dtype)
    return Ragged(np.concatenate([each.flat for each in pieces]), lengths)


def listed(values: pa.Array, lengths: np.ndarray, missing: pa.Array | None = None) -> pa.Array:
    """A list column: `lengths` of the values per entry; offsets have 64 bits only where 32 are too few."""
    is_large = int(lengths.sum()) > _MOST_OFFSET
    offsets = np.zeros(len(lengths) + 1, np.int64 if is_large else np.int32)
    np.cumsum(lengths, out=offsets[1:])
    kind = pa.LargeListArray if is_large else pa.ListArray
    return kind.from_arrays(pa.array(offsets), values, mask=missing)


def unlisted(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Lengths of the entries of a list column or a slice of one, int64, and their values, not copied."""
    offsets = column.offsets.to_numpy()
    values = column.values
    return np.diff(offsets).astype(np.int64), values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _stored(values: np.ndarray) -> np.ndarray:
    """Values in the type that is stored."""
    if values.dtype == np.bool_:
        return np.ascontiguousarray(values).view(np.uint8)  # Arrow packs bits, which would have to be unpacked
    return _narrow(values) if values.dtype.kind in "iu" else values


def _narrow(values: np.ndarray) -> np.ndarray:
    """Integers in the smallest type that holds them, of those that their own type can hold: blocks are joined later."""
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    for narrow in _NARROW:
        about = np.iinfo(narrow)
        is_part = about.bits < 8 * values.itemsize and np.can_cast(narrow, values.dtype)
        if is_part and about.min <= least and most <= about.max:
            return values.astype(narrow)
    return values


def _typed(stored: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Stored values in their own type."""
    return stored.view(dtype) if dtype == np.bool_ else stored.astype(dtype, copy=False)
