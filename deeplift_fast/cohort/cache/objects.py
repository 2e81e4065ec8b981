"""Fields of samples other than tensors, such as identifiers and metadata, as Arrow columns.

Each value comes back equal and of the same type. A column takes one of these forms, and any but the first may hold
`None` as well:

- `none`: nothing but `None`;
- `text`, `int`, `float`, `bool`;
- `array`: NumPy arrays of one dtype that differ in their first dimension only;
- `list`, `tuple`, `dict`: lists, tuples of one length, or dicts of the same keys, whose content is a column again;
- `json`: lists, tuples, dicts, arrays, numbers and texts of any mixture, as text.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deeplift_fast.cohort.cache.tensors import column_of as tensors_column
from deeplift_fast.cohort.cache.tensors import listed, unlisted
from deeplift_fast.cohort.cache.tensors import read_column as read_tensors
from deeplift_fast.cohort.samples import Ragged

Description = dict[str, Any]

_SCALARS = {str: ("text", pa.string()), int: ("int", pa.int64()), float: ("float", pa.float64()), bool: ("bool", None)}
_AS_THEY_ARE = (type(None), bool, int, float, str)
_MOST_LEVELS = 8


class Texts(Sequence[str | None]):
    """Texts in an Arrow column; they become Python's only where they are asked for one by one.

    Args:
        column: strings.
    """

    def __init__(self, column: pa.Array) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, place: Any) -> Any:
        return self._column[place].to_pylist() if isinstance(place, slice) else self._column[place].as_py()

    def __iter__(self) -> Iterator[str | None]:
        return iter(self._column.to_pylist())

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        return self._column if type is None else self._column.cast(type)


class Unknown(ValueError):
    """A value that cannot be stored; the message names its kind and quotes nothing of it."""


def column_of(values: Sequence[Any], level: int = 0) -> tuple[pa.Array, Description]:
    """The Arrow column of some values, and its description for :func:`read_column`.

    Args:
        values: one per sample.
        level: number of lists, tuples and dicts around them.

    Raises:
        Unknown: if one is of another kind than the module's docstring says.
    """
    given = {type(each) for each in values} - {type(None)}
    if not given:
        return pa.nulls(len(values)), {"form": "none"}
    made = _MAKERS.get(given.pop()) if len(given) == 1 and level < _MOST_LEVELS else None
    found = made(values, level) if made is not None else None
    if found is not None:
        return found
    texts, is_tagged = _texts(values)
    return _array(texts, pa.string()), {"form": "json", "tagged": is_tagged}


def read_column(column: pa.Array, about: Mapping[str, Any]) -> list[Any]:
    """The values in a column, or in a slice of one."""
    form = about["form"]
    if form == "none":
        return [None] * len(column)
    if form == "text":
        return column.to_numpy(zero_copy_only=False).tolist()
    if form == "json":
        found = json.loads(f"[{','.join(column.to_pylist())}]")
        return [_untagged(each) for each in found] if about["tagged"] else found
    if form in _READERS:
        return _with_none(_READERS[form](column, about), column)
    return column.to_pylist() if column.null_count else column.to_numpy(zero_copy_only=False).tolist()


def is_text(given: str) -> bool:
    """Whether a text has a UTF-8 form, which lone surrogates have not."""
    try:
        given.encode()
    except UnicodeError:
        return False
    return True


def read_texts(column: pa.Array, about: Mapping[str, Any]) -> Sequence[str | None]:
    """As :func:`read_column`, for a column of texts and `None`."""
    if about["form"] in ("text", "none") and column.type != pa.large_string():
        return Texts(column.cast(pa.string()))
    return read_column(column, about)


def _array(values: Sequence[Any], arrow: pa.DataType) -> pa.Array:
    """An Arrow array; texts of more than 2 GiB have offsets of 64 bits, where Arrow would cut them into several."""
    found = pa.array(values, arrow, from_pandas=False)
    return pa.array(values, pa.large_string()) if isinstance(found, pa.ChunkedArray) else found


def _scalars(values: Sequence[Any], level: int) -> tuple[pa.Array, Description] | None:
    """A column of texts, numbers or flags; `None` if Arrow cannot hold one of them."""
    form, arrow = _SCALARS[next(type(each) for each in values if each is not None)]
    try:
        return _array(values, arrow or pa.bool_()), {"form": form}
    except (OverflowError, UnicodeError, pa.ArrowException):  # more than 64 bits, lone surrogates
        return None


def _arrays(values: Sequence[Any], level: int) -> tuple[pa.Array, Description] | None:
    """A column of NumPy arrays; `None` if they differ in dtype or step, or have no dimensions or no plain numbers."""
    held = [each for each in values if each is not None]
    dtype = held[0].dtype
    is_alike = all(each.ndim and (each.dtype, each.shape[1:]) == (dtype, held[0].shape[1:]) for each in held)
    if not is_alike or not _is_plain(dtype):
        return None
    lengths = np.array([0 if each is None else len(each) for each in values], np.int64)
    column, about = tensors_column(Ragged(np.concatenate(held), lengths), _missing(values))
    return column, {"form": "array", "tensor": about}


def _read_arrays(column: pa.Array, about: Mapping[str, Any]) -> list[Any]:
    values = read_tensors(column, about["tensor"])
    assert values.lengths is not None
    flat, ends = values.flat.copy(), np.cumsum(values.lengths).tolist()
    return [flat[begin:end] for begin, end in itertools.pairwise([0, *ends])]


def _lists(values: Sequence[Any], level: int) -> tuple[pa.Array, Description]:
    lengths = np.array([0 if each is None else len(each) for each in values], np.int64)
    inner, about = column_of([one for each in values if each is not None for one in each], level + 1)
    return listed(inner, lengths, _missing(values)), {"form": "list", "of": about}


def _read_lists(column: pa.Array, about: Mapping[str, Any]) -> list[Any]:
    lengths, inner = unlisted(column)
    content, ends = read_column(inner, about["of"]), np.cumsum(lengths).tolist()
    return [content[begin:end] for begin, end in itertools.pairwise([0, *ends])]


def _tuples(values: Sequence[Any], level: int) -> tuple[pa.Array, Description] | None:
    """A column of tuples; `None` if they differ in length, or are empty."""
    held = [each for each in values if each is not None]
    size = len(held[0])
    if not size or any(len(each) != size for each in held):
        return None
    missing = (None,) * size
    inner = [
        column_of(each, level + 1) for each in zip(*(missing if row is None else row for row in values), strict=True)
    ]
    names = [str(place) for place in range(size)]
    column = pa.StructArray.from_arrays([each for each, _ in inner], names, mask=_missing(values))
    return column, {"form": "tuple", "of": [about for _, about in inner]}


def _read_tuples(column: pa.Array, about: Mapping[str, Any]) -> list[Any]:
    inner = (read_column(column.field(place), each) for place, each in enumerate(about["of"]))
    return list(zip(*inner, strict=True))


def _dicts(values: Sequence[Any], level: int) -> tuple[pa.Array, Description] | None:
    """A column of dicts; `None` if they differ in their keys or the keys' order, or keys are no plain texts."""
    held = [each for each in values if each is not None]
    keys = list(held[0])
    if any(type(key) is not str or not is_text(key) for key in keys) or any(list(each) != keys for each in held):
        return None
    found = _tuples([None if each is None else tuple(each.values()) for each in values], level)
    return None if found is None else (found[0], {**found[1], "form": "dict", "keys": keys})


def _read_dicts(column: pa.Array, about: Mapping[str, Any]) -> list[Any]:
    return [dict(zip(about["keys"], each, strict=True)) for each in _read_tuples(column, about)]


_MAKERS: dict[type, Callable[[Sequence[Any], int], tuple[pa.Array, Description] | None]] = {
    **dict.fromkeys(_SCALARS, _scalars),
    np.ndarray: _arrays,
    list: _lists,
    tuple: _tuples,
    dict: _dicts,
}
_READERS = {"array": _read_arrays, "list": _read_lists, "tuple": _read_tuples, "dict": _read_dicts}


def _is_plain(dtype: np.dtype) -> bool:
    """Whether Arrow and JSON can hold the numbers of a dtype."""
    return dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.isnative


def _missing(values: Sequence[Any]) -> pa.Array | None:
    """Whether each value is `None`; `None` itself if none is."""
    missing = [each is None for each in values]
    return pa.array(missing, pa.bool_()) if any(missing) else None


def _with_none(found: list[Any], column: pa.Array) -> list[Any]:
    """Values with `None` where the column has null."""
    if column.null_count:
        for place in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
            found[place] = None
    return found


def _texts(values: Sequence[Any]) -> tuple[list[str], bool]:
    """JSON of each value, and whether any holds tags."""
    tags: list[str] = []
    try:
        return [json.dumps(_tagged(each, tags), separators=(",", ":")) for each in values], bool(tags)
    except RecursionError:
        raise Unknown("a list in itself, or nested too deeply") from None
    except Unknown:
        raise
    except ValueError:
        raise Unknown("an int of thousands of digits") from None


def _tagged(value: Any, tags: list[str]) -> Any:
    """A value as JSON can hold it: tuples, dicts, NumPy's values and surrogates become dicts with their kind."""
    kind = type(value)
    if kind is str and not is_text(value):  # JSON would join two surrogates into one character
        tags.append("points")
        return {"points": [ord(each) for each in value]}
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
    if kind is np.ndarray:
        if not _is_plain(value.dtype):
            raise Unknown(f"NumPy arrays of {value.dtype}")
        tags.append("array")
        return {"array": [value.dtype.str, list(value.shape), value.tobytes().hex()]}
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
    if kind == "points":
        return "".join(map(chr, content))
    if kind == "tuple":
        return tuple(_untagged(each) for each in content)
    if kind == "dict":
        return {_untagged(key): _untagged(each) for key, each in content}
    if kind == "array":
        return np.frombuffer(bytes.fromhex(content[2]), content[0]).reshape(content[1]).copy()
    return np.dtype(content[0]).type(content[1])
