"""Identifiers of patients and visits in the tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

IDENTIFIERS: dict[str, tuple[str, ...]] = {
    "patient_id": ("patient_id",),
    "visit_id": ("visit_id", "hadm_id", "admission_id", "record_id"),
}
"""Columns of the tables; each takes the first of its fields that a sample has."""

FIELDS = tuple(field for fields in IDENTIFIERS.values() for field in fields)
"""All fields that may identify a visit or a patient."""

_MISSING = ("NAType", "NaTType")  # of pandas


def of_samples(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """The identifiers of samples, by column."""
    return {column: _column(samples, column) for column in IDENTIFIERS}


def of_sample(sample: Mapping[str, Any]) -> dict[str, str | None]:
    """The identifiers of one sample, by column."""
    return {column: _text(_first([sample.get(field) for field in IDENTIFIERS[column]])) for column in IDENTIFIERS}


def _column(samples: Sequence[Mapping[str, Any]], column: str) -> list[str | None]:
    for field in IDENTIFIERS[column]:
        given: list[Any] = [sample.get(field) for sample in samples]
        kinds = {*map(type, given)}
        if kinds <= {str} and all(text.isascii() for text in given):
            return given
        if kinds != {type(None)}:
            return [of_sample(sample)[column] for sample in samples]
    return [None] * len(samples)


def of_batch(batch: Mapping[str, Any], size: int) -> dict[str, list[str | None]]:
    """The identifiers of a batch's samples, by column.

    Args:
        batch: a batch of PyHealth's loader.
        size: number of its samples.

    Raises:
        ValueError: if an identifier field is no sequence, or has another length than the batch.
    """
    given = {field: listed(field, batch[field], size) for field in FIELDS if batch.get(field) is not None}
    found: dict[str, list[str | None]] = {}
    for column, fields in IDENTIFIERS.items():
        known = [given[field] for field in fields if field in given]
        found[column] = [_text(_first(each)) for each in zip(*known, strict=True)] if known else [None] * size
    return found


def listed(field: str, given: Any, size: int) -> Sequence[Any]:
    """A batch's identifiers as a list with one per sample.

    Raises:
        ValueError: if they are no sequence, or of another length.
    """
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        found: Any = given
    else:
        found = given if isinstance(given, Tensor) else np.asarray(given) if hasattr(given, "__array__") else None
        if found is None or found.ndim == 0:
            raise ValueError(f"{field!r} is a {type(given).__name__}; accepted: a sequence of one per sample")
    if len(found) != size:
        raise ValueError(f"{field!r} has {len(found)} entries for {size} samples; accepted: one per sample")
    return list(found)


def _first(given: Sequence[Any]) -> Any:
    return next((each for each in map(single, given) if each is not None), None)


def single(name: Any) -> Any:
    """An identifier taken out of a list, array or tensor of length 1; `None` for NaN and pandas' missing values."""
    if isinstance(name, np.ndarray | Tensor) and np.prod(name.shape) == 1:
        name = name.item()
    if isinstance(name, list | tuple) and len(name) == 1:
        return single(name[0])
    is_missing = isinstance(name, float | np.floating) and name != name
    return None if is_missing or type(name).__name__ in _MISSING else name


def _text(name: Any) -> str | None:
    return None if name is None else as_text(name)


def as_text(name: Any) -> str:
    """A name as text that Parquet can hold: UTF-8 cannot encode lone surrogates."""
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
