"""The two tables of a part, made from the columns of its batches.

Rows are ordered by sample in the dataset's order, by feature in the model's order, by step and by slot. They do not
depend on how the part was cut into batches.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from deeplift_fast.cohort.columns import (
    FeatureColumns,
    check_names,
    check_shape,
    feature_columns,
    floats,
    labels_of,
    names_of,
    numbers,
)
from deeplift_fast.cohort.metadata_columns import BatchMetadata, metadata_of_batch
from deeplift_fast.cohort.metadata_entries import UNKNOWN
from deeplift_fast.cohort.part_interactions import PairColumns
from deeplift_fast.cohort.splits import Splits
from deeplift_fast.cohort.tables import ATTRIBUTIONS, SAMPLES, STAYS
from deeplift_fast.core.attribution import Attribution
from deeplift_fast.pyhealth.features import Feature, measured, read_features

_NO_TEXT = -1


class Texts:
    """The texts of the column `code` for all features of a model; made once for a run.

    Args:
        model: the PyHealth model.
        dimensions: by feature key, the names of a continuous feature's dimensions.
    """

    def __init__(self, model: Any, dimensions: Mapping[str, Sequence[str]] | None = None) -> None:
        self.model = model
        self.dimensions = dimensions or {}
        self._adding = threading.Lock()
        self._texts: list[str] = []
        self._array = pa.array([], pa.string())
        self._number: dict[str, int] = {}
        self._by_index: dict[str, np.ndarray] = {}
        for key in model.feature_keys:
            processor = model.dataset.input_processors[key]
            if processor.is_token():
                vocabulary = {int(index): str(text) for text, index in getattr(processor, "code_vocab", {}).items()}
                size = 1 + max(vocabulary, default=-1)
                self._add(key, [vocabulary.get(index, str(index)) for index in range(size)])
            elif (names := names_of(processor, self.dimensions.get(key))) is not None:
                self._add(key, list(names))

    def numbers(self, key: str, rows: FeatureColumns) -> np.ndarray:
        """The text of each row as a number for :meth:`dictionary`, int32; -1 for no text."""
        which = rows.slot if rows.token is None else rows.token
        known = self._by_index.get(key)
        if known is None and rows.token is None:
            return np.full(len(which), _NO_TEXT, np.int32)
        return self.of_tokens(key, which)

    def of_tokens(self, key: str, which: np.ndarray) -> np.ndarray:
        """The text of each token index, or dimension, of a feature, as :meth:`numbers` gives it."""
        highest = int(which.max(initial=-1))
        with self._adding:  # parts may be attributed side by side
            known = self._by_index.get(key)
            have = 0 if known is None else len(known)
            if highest >= have:  # tokens outside the vocabulary are written as numbers
                self._add(key, [str(index) for index in range(have, highest + 1)])
            return self._by_index[key][which]

    def text(self, number: int) -> str:
        """The text of a number of :meth:`numbers`."""
        return self._texts[number]

    def dictionary(self, which: np.ndarray) -> pa.DictionaryArray:
        """Dictionary-encoded strings for numbers of :meth:`numbers`; the dictionary holds only the used ones."""
        with self._adding:
            if len(self._array) < len(self._texts):
                self._array = pa.array(self._texts, pa.string())
            texts = self._array
        counts = np.bincount(which + 1, minlength=len(texts) + 1)  # -1 comes first
        used = counts[1:] > 0
        place = np.cumsum(used, dtype=np.int32) - 1
        if not used.any():
            return pa.nulls(len(which), pa.dictionary(pa.int32(), pa.string()))
        mask = which == _NO_TEXT if counts[0] else None
        indices = pa.array(place.take(which, mode="clip"), pa.int32(), mask=mask)
        return pa.DictionaryArray.from_arrays(indices, texts.take(pa.array(np.flatnonzero(used))), safe=False)

    def _add(self, key: str, texts: list[str]) -> None:
        for text in texts:
            if text not in self._number:
                self._number[text] = len(self._texts)
                self._texts.append(text)
        before = self._by_index.get(key, np.empty(0, np.int32))
        found = np.array([self._number[text] for text in texts], np.int32)
        self._by_index[key] = np.concatenate([before, found])


@dataclass(frozen=True)
class BatchColumns:
    """The columns that a batch adds to the tables of its part.

    Attributes:
        numbers: numbers of the samples, int64 `[batch]`.
        columns: `target` and the float32 columns of `samples`, `[batch]` each; `None` for a missing one.
        features: by feature key, the columns of `attributions`; their `sample` is a place in `numbers`.
        codes: by feature key, the result of :meth:`Texts.numbers`.
        splits: the split of each sample, or `None`; `None` if none says it.
        stays: the stays of each sample, of the type of the column `stays`; `None` if none says them.
        labels: the labels that the column `stay` of the features counts.
        pairs: the rows of `interactions`; `None` for a run without that table.
    """

    numbers: np.ndarray
    columns: dict[str, np.ndarray | None]
    features: dict[str, FeatureColumns]
    codes: dict[str, np.ndarray]
    splits: list[str | None] | None = None
    stays: pa.Array | None = None
    labels: list[str] = field(default_factory=list)
    pairs: PairColumns | None = None


def columns_of(
    texts: Texts,
    batch: Mapping[str, Any],
    found: Attribution,
    which: np.ndarray,
    probability: Tensor | None,
    metadata: BatchMetadata | None = None,
) -> BatchColumns:
    """The columns that a batch adds to the tables of its part.

    Args:
        texts: the texts of the explained model.
        batch: the batch, on the model's device.
        found: the result of `DeepLift.explain` for it.
        which: numbers of its samples, int64 `[batch]`.
        probability: predicted probability of the target, floating point `[batch]`; `None` for regression.
        metadata: the metadata of these samples; `None` to read them from the batch.

    Raises:
        ValueError: if contributions have another shape than their feature's value, a feature has another number of
            dimensions than of names, or the batch does not fit the model, or its metadata do not fit it.
    """
    model, features = texts.model, {}
    if metadata is None:
        metadata = metadata_of_batch(batch, len(which), model)
        for _, fault in sorted(metadata.group.faults.items()):
            raise fault
    for key, feature in read_features(model, batch, use_embeddings=True).items():
        processor = model.dataset.input_processors[key]
        check_shape(f"contributions[{key!r}]", found.contributions[key], feature)
        check_names(feature, processor, texts.dimensions.get(key))
        features[key] = feature_columns(feature, found.contributions[key], _recorded(feature, processor), metadata)
    codes = {key: texts.numbers(key, rows) for key, rows in features.items()}
    columns = {
        "target": numbers(found.target),
        "output": numbers(found.output),
        "baseline_output": numbers(found.baseline_output),
        "probability": None if probability is None else numbers(probability),
        "label": labels_of(model, batch, found.target),
        "convergence_delta": numbers(found.convergence_delta),
    }
    return BatchColumns(which, columns, features, codes, metadata.splits(), metadata.stays(), metadata.group.labels)


def part_tables(
    batches: Sequence[BatchColumns],
    begin: int,
    identifiers: Mapping[str, Sequence[str | None]],
    keys: Sequence[str],
    texts: Texts,
    splits: Splits | None = None,
) -> tuple[pa.Table, pa.Table]:
    """The tables `samples` and `attributions` of a part.

    Args:
        batches: the columns of its batches, in any order; each sample is in at most one.
        begin: number of the part's first sample.
        identifiers: by name, one text or `None` per sample of the part, attributed or not.
        keys: the model's features, in order.
        texts: as for `columns_of`.
        splits: the split of samples that do not say their own.
    """
    every = np.concatenate([np.empty(0, np.int64), *(each.numbers for each in batches)])
    order = _order(every - begin)
    names = {name: pa.array(given, pa.string()).dictionary_encode() for name, given in identifiers.items()}
    columns: dict[str, Any] = {"sample": every[order]}
    columns |= {name: _chosen(column, every[order] - begin) for name, column in names.items()}
    for name in ("target", "output", "baseline_output", "probability", "label", "convergence_delta"):
        known = [
            np.full(len(batch.numbers), np.nan, np.float32) if (column := batch.columns[name]) is None else column
            for batch in batches
        ]
        found = np.concatenate([np.empty(0, np.int64 if name == "target" else np.float32), *known])[order]
        columns[name] = found if name == "target" else floats(found, len(order))
    columns["split"] = pa.array(_splits(batches, order, every, splits or Splits()), pa.string()).dictionary_encode()
    columns["stays"] = _stays(batches, order)
    count = max((len(given) for given in identifiers.values()), default=int(every.max(initial=begin)) - begin + 1)
    samples = pa.table({name: columns[name] for name in SAMPLES.names}, schema=SAMPLES)
    return samples, _attributions(batches, begin, count, names, keys, texts)


def _order(places: np.ndarray) -> np.ndarray:
    """The order that sorts numbers from 0 on, each given once; many times as fast as a sort of them."""
    row = np.full(int(places.max(initial=-1)) + 1, -1)
    row[places] = np.arange(len(places))
    return row[row >= 0]


def _attributions(
    batches: Sequence[BatchColumns],
    begin: int,
    samples: int,
    names: Mapping[str, pa.DictionaryArray],
    keys: Sequence[str],
    texts: Texts,
) -> pa.Table:
    counts = np.zeros((len(keys), samples), np.int64)
    for batch in batches:
        of = batch.numbers - begin
        for place, key in enumerate(keys):
            counts[place, of] = _rows_per_sample(batch, key)
    by_row = counts.T.ravel()
    begins = (np.cumsum(by_row) - by_row).reshape(samples, len(keys))
    total = int(by_row.sum())
    columns = {
        "step": np.zeros(total, np.int32),
        "slot": np.zeros(total, np.int32),
        "code": np.full(total, _NO_TEXT, np.int32),
        "attribution": np.zeros(total, np.float32),
    }
    columns |= {name: np.full(total, np.nan, np.float32) for name in ("time", "value", "day") if _any(batches, name)}
    stays = _StayLabels(batches) if _any(batches, "stay") else None
    columns |= {} if stays is None else {"stay": np.full(total, UNKNOWN, np.int32)}
    columns |= {"measured": np.full(total, UNKNOWN, np.int8)} if _any(batches, "measured") else {}
    for batch in batches:
        of = batch.numbers - begin
        for place, key in enumerate(keys):
            _scatter(columns, _rows(batch, key, stays), begins[of, place], counts[place, of])
    per_sample = counts.sum(0)
    feature = np.repeat(np.tile(np.arange(len(keys), dtype=np.int32), samples), by_row)
    return pa.table(
        {
            "sample": np.repeat(np.arange(begin, begin + samples), per_sample),
            **{name: _repeated(column, per_sample) for name, column in names.items()},
            "feature": _encoded(feature, pa.array(list(keys), pa.string())),
            "step": columns["step"],
            "slot": columns["slot"],
            "code": texts.dictionary(columns["code"]),
            "time": floats(columns.get("time"), total),
            "day": floats(columns.get("day"), total),
            "stay": _nothing(total) if stays is None else stays.column(columns["stay"]),
            "measured": _flags(columns.get("measured"), total),
            "value": floats(columns.get("value"), total),
            "attribution": columns["attribution"],
        },
        schema=ATTRIBUTIONS,
    )


def _any(batches: Sequence[BatchColumns], name: str) -> bool:
    """Whether a feature of any batch has this column."""
    return any(getattr(rows, name) is not None for batch in batches for rows in batch.features.values())


def _splits(batches: Sequence[BatchColumns], order: np.ndarray, every: np.ndarray, splits: Splits) -> Any:
    """The split of each sample of a part, in order."""
    if all(batch.splits is None for batch in batches) and not splits.numbers:
        return pa.nulls(len(order), pa.string())
    said = [each for batch in batches for each in batch.splits or [None] * len(batch.numbers)]
    return splits.merged(every[order], [said[place] for place in order])


def _stays(batches: Sequence[BatchColumns], order: np.ndarray) -> pa.Array:
    """The column `stays`."""
    if all(batch.stays is None for batch in batches):
        return pa.nulls(len(order), STAYS)
    each = [pa.nulls(len(batch.numbers), STAYS) if batch.stays is None else batch.stays for batch in batches]
    return pa.concat_arrays(each).take(pa.array(order))


class _StayLabels:
    """The labels of a part's stays, each once.

    Args:
        batches: the part's batches.
    """

    def __init__(self, batches: Sequence[BatchColumns]) -> None:
        self._begin: dict[int, int] = {}
        texts: list[str] = []
        for batch in batches:
            if id(batch.labels) not in self._begin:  # the batches of a group share their labels
                self._begin[id(batch.labels)] = len(texts)
                texts += batch.labels
        encoded = pa.array(texts, pa.string()).dictionary_encode()
        self._texts, self._number = encoded.dictionary, encoded.indices.to_numpy()

    def numbers(self, batch: BatchColumns, stay: np.ndarray) -> np.ndarray:
        """The labels of a batch's stays as numbers for the part, int32; :data:`UNKNOWN` stays."""
        numbers = np.append(self._number[self._begin[id(batch.labels)] :][: len(batch.labels)], UNKNOWN)
        return numbers.astype(np.int32)[stay]  # UNKNOWN is the last

    def column(self, numbers: np.ndarray) -> pa.DictionaryArray:
        """The column `stay`; its dictionary has the order in which labels first appear."""
        encoded = pa.array(numbers, mask=numbers == UNKNOWN).dictionary_encode()
        return pa.DictionaryArray.from_arrays(encoded.indices, self._texts.take(encoded.dictionary))


def _rows(batch: BatchColumns, key: str, stays: _StayLabels | None) -> dict[str, np.ndarray | None]:
    """The columns of one feature of a batch by name, with codes and stays as numbers for the part."""
    found = {**vars(batch.features[key]), "code": batch.codes[key]}
    if stays is not None and found["stay"] is not None:
        found["stay"] = stays.numbers(batch, found["stay"])
    return found


def _nothing(rows: int) -> pa.DictionaryArray:
    return pa.nulls(rows, pa.dictionary(pa.int32(), pa.string()))


def _flags(measured: np.ndarray | None, rows: int) -> pa.Array:
    """The column `measured`."""
    return pa.nulls(rows, pa.bool_()) if measured is None else pa.array(measured == 1, mask=measured == UNKNOWN)


def _rows_per_sample(batch: BatchColumns, key: str) -> np.ndarray:
    """Number of rows of each sample of a batch for a feature, int64 `[batch]`."""
    ends = np.searchsorted(batch.features[key].sample, np.arange(len(batch.numbers) + 1, dtype=np.int32))
    return ends[1:] - ends[:-1]


def _scatter(
    columns: dict[str, np.ndarray], found: Mapping[str, np.ndarray | None], begins: np.ndarray, counts: np.ndarray
) -> None:
    """Writes the rows of one feature of a batch into the part's columns, each sample's from its place in `begins`."""
    first = np.cumsum(counts) - counts  # rows are ordered by sample
    target = np.arange(int(counts.sum())) + np.repeat(begins - first, counts)
    for name, column in columns.items():
        if (values := found[name]) is not None:
            column[target] = values


def _encoded(indices: np.ndarray, dictionary: pa.Array) -> pa.DictionaryArray:
    """A dictionary-encoded column from places in its dictionary; these are known to be right and not checked again."""
    return pa.DictionaryArray.from_arrays(pa.array(indices), dictionary, safe=False)


def _chosen(column: pa.DictionaryArray, which: np.ndarray) -> pa.DictionaryArray:
    """Rows of a dictionary-encoded column, with its whole dictionary."""
    return pa.DictionaryArray.from_arrays(column.indices.take(pa.array(which)), column.dictionary)


def _repeated(column: pa.DictionaryArray, counts: np.ndarray) -> pa.DictionaryArray:
    """The rows of a dictionary-encoded column, each repeated `counts` times."""
    if column.null_count == len(column):
        return pa.nulls(int(counts.sum()), column.type)
    if column.null_count:
        return _chosen(column, np.repeat(np.arange(len(column)), counts))
    return _encoded(np.repeat(column.indices.to_numpy(), counts), column.dictionary)


def _recorded(feature: Feature, processor: Any) -> Tensor:
    """The values to record, in the source's units if the processor knows them; NaN where nothing was measured."""
    if feature.is_token:
        return feature.value
    in_units = getattr(processor, "in_units", None)
    values: Tensor = in_units(feature.value) if callable(in_units) else feature.value
    return values.masked_fill(~measured(feature), float("nan"))
