"""Fields of samples other than tensors, such as identifiers and metadata, as Arrow columns.

Each value comes back equal and of the same type. A column takes one of these forms:

- `none`: nothing but `None`;
- `text`, `int`, `float`, `bool`: these, or `None`;
- `array`: NumPy arrays of one dtype that differ in their first dimension only, or `None`;
- `json`: lists, tuples, dicts and NumPy numbers, nested, as text.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deeplift_fast.cohort.cache.tensors import column_of as tensors_column
from deeplift_fast.cohort.cache.tensors import read_column as read_tensors
from deeplift_fast.cohort.samples import Ragged

_SCALARS = {str: ("text", pa.string()), int: ("int", pa.int64()), float: ("float", pa.float64()), bool: ("bool", None)}
_AS_THEY_ARE = (type(None), bool, int, float, str)


class Unknown(ValueError):
    """A value that cannot be stored; the message names its kind and quotes nothing of it."""


def columns_of(values: Sequence[Any]) -> tuple[list[pa.Array], dict[str, Any]]:
    """The Arrow columns of a field, one or two, and their description for :func:`read_columns`.

    Raises:
        Unknown: if a value is of another kind than the module's docstring says.
    """
    kinds = {type(each) for each in values}
    given = kinds - {type(None)}
    if not given:
        return [pa.nulls(len(values))], {"form": "none"}
    if len(given) == 1:
        (kind,) = given
        if kind in _SCALARS:
            found = _scalars(values, kind)
            if found is not None:
                return found
        if kind is np.ndarray:
            return _arrays(values)
    texts, is_tagged = _texts(values)
    return [pa.array(texts, pa.string())], {"form": "json", "tagged": is_tagged}


def read_columns(columns: Sequence[pa.Array], about: Mapping[str, Any]) -> np.ndarray:
    """The values of a field, or of a slice of its columns, as an array of objects, `[samples]`."""
    form, first = about["form"], columns[0]
    if form == "none":
        return np.full(len(first), None, object)
    if form == "text":
        return first.to_numpy(zero_copy_only=False)
    if form == "array":
        return _read_arrays(columns, about)
    if form == "json":
        found = json.loads(f"[{','.join(first.to_pylist())}]")
        return _objects([_untagged(each) for each in found] if about["tagged"] else found)
    if first.null_count:
        return _objects(first.to_pylist())
    return first.to_numpy(zero_copy_only=False).astype(object)


def _scalars(values: Sequence[Any], kind: type) -> tuple[list[pa.Array], dict[str, Any]] | None:
    """Texts, numbers or flags; `None` if Arrow cannot hold one of them."""
    form, arrow = _SCALARS[kind]
    try:
        return [pa.array(values, arrow or pa.bool_(), from_pandas=False)], {"form": form}
    except (OverflowError, UnicodeError, pa.ArrowException):  # more than 64 bits, lone surrogates
        return None


def _arrays(values: Sequence[Any]) -> tuple[list[pa.Array], dict[str, Any]]:
    held = [each for each in values if each is not None]
    kinds = {(each.dtype, each.shape[1:]) for each in held if each.ndim}
    dtype = held[0].dtype
    if len(kinds) != 1 or any(not each.ndim for each in held) or dtype.kind not in "biuf" or not dtype.isnative:
        raise Unknown("NumPy arrays of different dtypes or shapes, or of objects")
    if dtype.itemsize > 8:
        raise Unknown(f"NumPy arrays of {dtype}")
    lengths = np.array([0 if each is None else len(each) for each in values], np.int64)
    column, about = tensors_column(Ragged(np.concatenate(held), lengths))
    is_there = pa.array(np.array([each is not None for each in values]).view(np.uint8))
    return [column, is_there], {"form": "array", "tensor": about}


def _read_arrays(columns: Sequence[pa.Array], about: Mapping[str, Any]) -> np.ndarray:
    values = read_tensors(columns[0], about["tensor"])
    assert values.lengths is not None
    flat, ends = values.flat.copy(), np.cumsum(values.lengths)
    found = _objects(np.split(flat, ends[:-1]) if len(ends) else [])
    found[columns[1].to_numpy() == 0] = None
    return found


def _texts(values: Sequence[Any]) -> tuple[list[str], bool]:
    """JSON of each value, and whether any holds tags."""
    tags: list[str] = []
    try:
        return [json.dumps(_tagged(each, tags), separators=(",", ":")) for each in values], bool(tags)
    except RecursionError:
        raise Unknown("a list in itself, or nested too deeply") from None
    except ValueError as error:
        if isinstance(error, Unknown):
            raise
        raise Unknown("an int of thousands of digits") from None


def _tagged(value: Any, tags: list[str]) -> Any:
    """A value as JSON can hold it: tuples, dicts and NumPy's numbers become dicts with their kind."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is list:
        return [_tagged(each, tags) for each in value]
    if kind is tuple:
        tags.append("tuple")
        return {"tuple": [_tagged(each, tags) for each in value]}
    if kind is dict:
        tags.append("dict")
        return {"dict": [[_tagged(key, tags), _tagged(each, tags)] for key, each in value.items()]}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        tags.append("numpy")
        return {"numpy": [value.dtype.str, value.item()]}
    raise Unknown(f"a {kind.__module__}.{kind.__qualname__}".replace("builtins.", ""))


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tuple":
        return tuple(_untagged(each) for each in content)
    if kind == "dict":
        return {_untagged(key): _untagged(each) for key, each in content}
    return np.dtype(content[0]).type(content[1])


def _objects(values: Sequence[Any]) -> np.ndarray:
    """An array that holds the values themselves, even if they are lists of one length."""
    return np.fromiter(values, object, len(values))
