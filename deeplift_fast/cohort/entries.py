"""Checks the entries of a loader's batch and brings them into a regular form that can be cut by sample.

An entry of a regular batch is one of these:

- a tensor or array whose first dimension is the samples;
- a list with one item per sample;
- a tuple, such as (time, value), of such tensors and `None`;
- a dict of such;
- anything else, such as a number or a text; it belongs to all samples.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.cohort.identifiers import FIELDS
from deeplift_fast.cohort.metadata import names_of
from deeplift_fast.cohort.odd_tensors import Unusable, has_plain_memory, usable
from deeplift_fast.errors import CohortError

_ACCEPTED = "accepted: a tensor, array, list or tuple with one entry per sample"


def regular(batch: Mapping[str, Any], model: Any, where: str) -> tuple[int, dict[str, Any]]:
    """A batch's number of samples, and its entries in regular form.

    Args:
        batch: a batch of a loader.
        model: the PyHealth model that it is for.
        where: the batch's name in error messages.

    Raises:
        CohortError: if an entry has another length than the batch; the message names the entry and quotes no value.
    """
    features = {*model.feature_keys, *getattr(model.dataset, "input_processors", {})}
    lists = {*names_of(model), *FIELDS}
    per_sample = {*features, *lists, *getattr(model, "label_keys", ())}
    found, of_features, of_all = {}, Counter[int](), dict[str, int]()
    for name, value in batch.items():
        found[name] = _regular(value, name in features, name in lists)
        lengths = _lengths(name, found[name])
        is_none = not lengths or (name in lists and isinstance(value, Mapping))
        if is_none and name in per_sample and value is not None:
            shape = " of shape ()" if isinstance(value, Tensor) else ""
            raise CohortError(f"{where}: {name!r} is a {type(value).__name__}{shape}; {_ACCEPTED}")
        if name in model.feature_keys:
            of_features.update(lengths.values())
        of_all |= lengths
    if not of_features:
        raise CohortError(
            f"{where} is without the model's features; accepted: batches as PyHealth's loader gives them, dicts with "
            f"{list(model.feature_keys)}"
        )
    size = (of_features + Counter(of_all.values())).most_common(1)[0][0]
    odd = [f"{name} has {length}" for name, length in of_all.items() if length != size]
    if odd:
        raise CohortError(f"{where} has {size} samples by most of its entries, but {', '.join(odd)}; {_ACCEPTED}")
    dtypes = {parameter.dtype for parameter in model.parameters()}
    return size, {name: _usable(value, size, dtypes) for name, value in found.items()}


def _usable(value: Any, size: int, dtypes: set[torch.dtype]) -> Any:
    """The entry, or one `Unusable` per sample if it holds odd tensors; the model's dtypes are not odd."""
    parts = value if isinstance(value, tuple) else (value,)
    if all(isinstance(part, Tensor) and has_plain_memory(part) and part.dtype in dtypes for part in parts):
        return value
    found = usable(value)
    return [found] * size if isinstance(found, Unusable) else value


def taken(value: Any, which: np.ndarray) -> Any:
    """Some samples of an entry of a regular batch.

    Args:
        value: the entry.
        which: places of the samples, int64 `[samples]`.
    """
    if isinstance(value, Tensor):
        return value[torch.from_numpy(which).to(value.device)] if value.dim() else value
    if isinstance(value, np.ndarray):
        return value[which] if value.ndim else value
    if isinstance(value, tuple):
        return tuple(taken(part, which) for part in value)
    if isinstance(value, dict):
        return {name: taken(part, which) for name, part in value.items()}
    return [value[place] for place in which] if isinstance(value, list) else value


def _regular(value: Any, is_feature: bool, is_listed: bool) -> Any:
    """An entry in regular form.

    Args:
        value: the entry.
        is_feature: whether a list of tensors holds parts of a feature, such as time and value.
        is_listed: whether a sequence, also of tensors, holds one item per sample.
    """
    if isinstance(value, Tensor | np.ndarray | str | bytes | bytearray):
        return value
    if isinstance(value, Mapping):
        return {name: _regular(part, False, False) for name, part in value.items()}
    if isinstance(value, Sequence):
        parts = list(value)
        tensors = [part for part in parts if isinstance(part, Tensor)]
        of_tensors = bool(tensors) and all(part is None or isinstance(part, Tensor) for part in parts)
        if not is_listed and of_tensors and (is_feature or isinstance(value, tuple)):
            return tuple(parts)
        return parts
    array = np.asarray(value) if hasattr(value, "__array__") else None
    return value if array is None or array.ndim == 0 else array


def _lengths(name: str, value: Any, inside: str = "") -> dict[str, int]:
    """The lengths of a regular entry, or of its parts, by name."""
    shown = f"{name!r}{inside}"
    if isinstance(value, Tensor) and value.is_nested:
        return {shown: value.size(0)}  # it has no len
    if isinstance(value, Tensor | np.ndarray):
        return {shown: len(value)} if value.ndim else {}
    if isinstance(value, list):
        return {shown: len(value)}
    if isinstance(value, tuple | dict):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: n for place, part in parts for key, n in _lengths(name, part, f"{inside}[{place!r}]").items()}
    return {}
