"""Samples of one group as an Arrow IPC stream, and back, whole or in slices.

The stream holds one record batch with a row per sample. The schema's metadata says, as JSON, how fields and columns
belong together:

    numbers      the column of the samples' numbers; `null` where they are consecutive, from the first of the block on
    identifiers  by the tables' columns, the column of the texts
    fields       in the samples' order: key, kind ("tensor", "pair" or "object"), and per part its column and form
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from deeplift_fast.cohort.cache import objects, tensors
from deeplift_fast.cohort.odd_tensors import Unusable
from deeplift_fast.cohort.samples import Field, Ragged, RaggedGroup, Stretch

_KEY = b"deeplift_fast"


class UnknownField(ValueError):
    """A field that cannot be stored; the message names it and the reason."""


@dataclass(frozen=True)
class Block:
    """A group of samples in memory, or a slice of one.

    Attributes:
        columns: the Arrow columns.
        about: the description in the schema.
        numbers: numbers of the samples in the dataset, int64, ascending.
    """

    columns: Sequence[pa.Array]
    about: Mapping[str, Any]
    numbers: np.ndarray

    def between(self, begin: int, end: int) -> "Block":
        """The samples with numbers from `begin` to `end - 1`; nothing is copied."""
        first, last = (int(place) for place in np.searchsorted(self.numbers, (begin, end)))
        if (first, last) == (0, len(self.numbers)):
            return self
        columns = [column.slice(first, last - first) for column in self.columns]
        return Block(columns, self.about, self.numbers[first:last])

    @property
    def kinds(self) -> str:
        """What blocks must share to be joined into one group: keys, kinds, dtypes and shapes, in order."""
        return str(self.about["kinds"])

    def tensor(self, field: int, part: int) -> Ragged | None:
        """The tensors of a field; `None` for times that are missing."""
        described = self.about["fields"][field]["parts"][part]
        return None if described is None else tensors.read_column(self.columns[described["column"]], described)

    def objects(self, field: int) -> list[Any]:
        """The values of a field that holds no tensors, one per sample."""
        described = self.about["fields"][field]["parts"][0]
        return objects.read_column(self.columns[described["column"]], described)

    def identifiers(self, column: str) -> Sequence[str | None]:
        """Identifiers, one per sample."""
        described = self.about["identifiers"][column]
        return objects.read_texts(self.columns[described["column"]], described)


def written(group: RaggedGroup, stretch: Stretch) -> pa.Buffer:
    """The Arrow IPC stream of a group of a stretch.

    Raises:
        UnknownField: if a field is of a kind that cannot be stored.
    """
    columns: list[pa.Array] = []
    is_whole = len(group.numbers) == stretch.end - stretch.begin
    about: dict[str, Any] = {"numbers": None, "identifiers": {}, "fields": [], "kinds": ""}
    if not is_whole:
        about["numbers"] = _added(pa.array(group.numbers), columns)
    for key, field in group.fields.items():
        about["fields"].append(_field(key, field, columns))
    places = (group.numbers - stretch.begin).tolist()
    for name, texts in stretch.identifiers.items():
        mine = list(texts) if is_whole else [texts[place] for place in places]
        about["identifiers"][name] = _same(group, about["fields"], mine) or _objects(name, mine, columns)
    about["kinds"] = json.dumps([_kind(field) for field in about["fields"]])
    schema = pa.schema(
        [pa.field(f"{place}", column.type) for place, column in enumerate(columns)], {_KEY: json.dumps(about)}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return sink.getvalue()


def read(content: pa.Buffer, begin: int) -> Block:
    """The block in an Arrow IPC stream, whose memory it shares.

    Args:
        content: the stream.
        begin: number of the first sample of its stretch.

    Raises:
        ValueError: if it is none.
    """
    try:
        with pa.ipc.open_stream(content) as stream:
            batch = stream.read_next_batch()
        about = _described(batch.schema.metadata[_KEY])
    except (pa.ArrowException, OSError, KeyError, TypeError, StopIteration) as error:
        raise ValueError("it is no Arrow IPC stream of samples") from error
    columns = batch.columns
    if about["numbers"] is None:
        return Block(columns, about, np.arange(begin, begin + len(batch)))
    return Block(columns, about, columns[about["numbers"]].to_numpy())


@lru_cache(maxsize=64)
def _described(metadata: bytes) -> dict[str, Any]:
    return json.loads(metadata)


def _field(key: Any, field: Field, columns: list[pa.Array]) -> dict[str, Any]:
    """Adds the columns of a field; returns its description."""
    if type(key) is not str or not objects.is_text(key):
        raise UnknownField(f"a field's name is a {type(key).__name__} that is no plain text")
    if isinstance(field, Ragged):
        return {"key": key, "kind": "tensor", "parts": [_tensor(field, columns)]}
    if isinstance(field, tuple):
        return {"key": key, "kind": "pair", "parts": [part and _tensor(part, columns) for part in field]}
    return {"key": key, "kind": "object", "parts": [_objects(key, list(field), columns)]}


def _tensor(values: Ragged, columns: list[pa.Array]) -> dict[str, Any]:
    column, about = tensors.column_of(values)
    return {"column": _added(column, columns), **about}


def _objects(key: str, values: Sequence[Any], columns: list[pa.Array]) -> dict[str, Any]:
    if (odd := next((each for each in values if isinstance(each, Unusable)), None)) is not None:
        raise UnknownField(f"field {key!r} is {odd.reason}")
    try:
        column, about = objects.column_of(values)
    except objects.Unknown as error:
        raise UnknownField(f"field {key!r} holds {error}") from None
    return {"column": _added(column, columns), **about}


def _same(group: RaggedGroup, fields: Sequence[Mapping[str, Any]], texts: list[str | None]) -> dict[str, Any] | None:
    """The description of a field that already holds these texts; `None` without one."""
    for each in fields:
        is_text = each["kind"] == "object" and each["parts"][0]["form"] in ("text", "none")
        if is_text and group.field(each["key"]) == texts:
            return dict(each["parts"][0])
    return None


def _added(column: pa.Array, columns: list[pa.Array]) -> int:
    """Adds a column; returns its place."""
    columns.append(column)
    return len(columns) - 1


def _kind(field: Mapping[str, Any]) -> list[Any]:
    """What a field must share with that of another block, to be joined with it."""
    if field["kind"] == "object":
        return [field["key"], "object"]
    return [
        field["key"],
        field["kind"],
        *(part and [part["form"], part["dtype"], part["inner"]] for part in field["parts"]),
    ]
