"""A batch and its attributions as Arrow tables, and as Parquet files that grow batch by batch.

`samples`, one row per sample:

    sample             int64       number of the sample, counted from 0 through all batches
    patient_id         dictionary  as the batch names it
    visit_id           dictionary  the batch's visit_id, or else its hadm_id, admission_id or record_id; null where
                                   samples have none
    target             int64       index of the logit explained
    output             float32     that logit at the input
    baseline_output    float32     that logit at the baseline
    probability        float32     predicted probability of the target; null for regression
    label              float32     true label (multilabel: whether the target applies); null where there is none
    convergence_delta  float32     sum of the contributions minus (output − baseline_output), before any rescaling

`attributions`, one row per real token or value; padding never appears. The rows of a batch come feature by feature,
and within a feature sample by sample:

    sample             int64       as in `samples`
    patient_id         dictionary  as in `samples`
    visit_id           dictionary  as in `samples`
    feature            dictionary  key of the feature
    step               int32       place on the sequence axis: visit, event or time step; 0 for a feature without one;
                                   where values are nested deeper, row-major over all axes but the last
    slot               int32       place within the step: in the visit's list of codes, or the dimension of the
                                   vector; 0 where a step holds a single value
    code               dictionary  text of the token, or name of the dimension (of a multi-hot feature the category's);
                                   null where neither is known
    time               float32     time of the step as the model is given it; null for a feature without times
    value              float32     the value; null for tokens, and in a cohort's tables where nothing was measured
    attribution        float32     contribution to the target logit, in units of the logit

Dictionaries hold strings.

What is real is what `deeplift_fast.features.Feature.real` says: tokens other than 0, and steps that are not all 0; and
what was measured (`deeplift_fast.features.measured`), be it 0. A gap that a processor filled (forward, or with a
constant) counts as real, since the model is given it.

Files carry the baseline, what contributions are relative to, as metadata of the key `deeplift_fast.baseline`; parts of
a cohort carry `deeplift_fast.rules` too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from deeplift_fast.attribution import Attribution
from deeplift_fast.cohort.identifiers import of_batch
from deeplift_fast.features import Feature, kind_of, measured, read_features

BASELINE, RULES = "deeplift_fast.baseline", "deeplift_fast.rules"
"""Keys of the files' metadata."""

_TEXT = pa.dictionary(pa.int32(), pa.string())

SAMPLES = pa.schema(
    {
        "sample": pa.int64(),
        "patient_id": _TEXT,
        "visit_id": _TEXT,
        "target": pa.int64(),
        "output": pa.float32(),
        "baseline_output": pa.float32(),
        "probability": pa.float32(),
        "label": pa.float32(),
        "convergence_delta": pa.float32(),
    }
)
ATTRIBUTIONS = pa.schema(
    {
        "sample": pa.int64(),
        "patient_id": _TEXT,
        "visit_id": _TEXT,
        "feature": _TEXT,
        "step": pa.int32(),
        "slot": pa.int32(),
        "code": _TEXT,
        "time": pa.float32(),
        "value": pa.float32(),
        "attribution": pa.float32(),
    }
)


def samples_table(
    model: Any,
    batch: Mapping[str, Any],
    found: Attribution,
    first_sample: int = 0,
    probability: Tensor | None = None,
) -> pa.Table:
    """One row per sample of a batch.

    Args:
        model: the PyHealth model explained.
        batch: what PyHealth's loader yields.
        found: what `DeepLift.explain` gave for the batch.
        first_sample: number of the batch's first sample.
        probability: predicted probability of the target, floating point `[batch]`; needed for a multiclass model,
            where it does not follow from the target logit alone.

    Returns:
        A table with the schema `SAMPLES`.

    Raises:
        ValueError: if the model is multiclass and `probability` is `None`, or identifiers are not one per sample.
    """
    target = numbers(found.target)
    rows = np.arange(len(target))
    if probability is None:
        probability = probabilities(model, found.output)
    return pa.table(
        {
            "sample": first_sample + rows,
            **_identifiers(batch, len(target), rows),
            "target": target,
            "output": numbers(found.output),
            "baseline_output": numbers(found.baseline_output),
            "probability": floats(None if probability is None else numbers(probability), len(rows)),
            "label": floats(labels_of(model, batch, found.target), len(rows)),
            "convergence_delta": numbers(found.convergence_delta),
        },
    ).cast(SAMPLES)


def attributions_table(
    model: Any,
    batch: Mapping[str, Any],
    contributions: Mapping[str, Tensor],
    first_sample: int = 0,
    dimensions: Mapping[str, Sequence[str]] | None = None,
    values: Mapping[str, Tensor] | None = None,
) -> pa.Table:
    """One row per real token or value of a batch.

    Args:
        model: the PyHealth model explained.
        batch: what PyHealth's loader yields.
        contributions: by feature key, a floating-point tensor of the value's shape, as `DeepLift.attribute` gives.
        first_sample: number of the batch's first sample.
        dimensions: by feature key, the names of a continuous feature's dimensions.
        values: by feature key, what to record in place of the batch's values (say, in the units of the source):
            floating point, of the value's shape; NaN is recorded as null.

    Returns:
        A table with the schema `ATTRIBUTIONS`.

    Raises:
        ValueError: if a tensor's shape is not that of the feature's value, the number of names is not that of its
            dimensions, or the batch does not fit the model.
    """
    features = read_features(model, batch, use_embeddings=True)
    parts = []
    for key, feature in features.items():
        recorded = (values or {}).get(key, feature.value)
        check_shape(f"contributions[{key!r}]", contributions[key], feature)
        check_shape(f"values[{key!r}]", recorded, feature)
        processor = model.dataset.input_processors[key]
        names = (dimensions or {}).get(key)
        parts.append(_feature_table(feature, processor, contributions[key], recorded, names, batch, first_sample))
    return pa.concat_tables(parts).unify_dictionaries()


class CohortWriter:
    """Writes `samples.parquet` and `attributions.parquet`, batch by batch; a context manager.

    Row groups hold whole batches, so a sample's rows are never split between two. Memory holds one row group.

    Args:
        folder: where the two files go; it must exist.
        dimensions: by feature key, the names of a continuous feature's dimensions.
        group_rows: number of attribution rows after which a row group is written.
    """

    def __init__(
        self, folder: Path, dimensions: Mapping[str, Sequence[str]] | None = None, group_rows: int = 1 << 18
    ) -> None:
        self.samples = 0
        """Number of samples written."""
        self._dimensions = dimensions
        self._group_rows = group_rows
        self._baselines: dict[str, None] = {}  # a set, in the order in which they came
        self._pending: dict[str, list[pa.Table]] = {"samples": [], "attributions": []}
        written: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
        self._files = {
            "samples": pq.ParquetWriter(folder / "samples.parquet", SAMPLES, **written),
            "attributions": pq.ParquetWriter(folder / "attributions.parquet", ATTRIBUTIONS, **written),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        for file in self._files.values():
            if self._baselines:
                file.add_key_value_metadata({BASELINE: "; ".join(self._baselines)})
            file.close()

    def write(
        self,
        model: Any,
        batch: Mapping[str, Any],
        found: Attribution,
        probability: Tensor | None = None,
        values: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Appends a batch.

        Args:
            model: the PyHealth model explained.
            batch: what PyHealth's loader yields.
            found: what `DeepLift.explain` gave for the batch.
            probability: as in `samples_table`.
            values: as in `attributions_table`.

        Raises:
            ValueError: as `samples_table` and `attributions_table` do.
        """
        samples = samples_table(model, batch, found, self.samples, probability)
        attributions = attributions_table(model, batch, found.contributions, self.samples, self._dimensions, values)
        if found.baseline:
            self._baselines[found.baseline] = None
        self._pending["samples"].append(samples)
        self._pending["attributions"].append(attributions)
        self.samples += len(samples)
        if sum(map(len, self._pending["attributions"])) >= self._group_rows:
            self._flush()

    def _flush(self) -> None:
        for name, tables in self._pending.items():
            if tables:
                table = pa.concat_tables(tables).unify_dictionaries()
                self._files[name].write_table(table, row_group_size=max(1, len(table)))
                tables.clear()


def _feature_table(
    feature: Feature,
    processor: Any,
    contributions: Tensor,
    recorded: Tensor,
    names: Sequence[str] | None,
    batch: Mapping[str, Any],
    first_sample: int,
) -> pa.Table:
    rows = feature_rows(feature, processor, contributions, recorded)
    check_names(feature, processor, names)
    names = names_of(processor, names)
    if rows.token is not None:
        code = _tokens(rows.token, getattr(processor, "code_vocab", {}))
    else:
        code = pa.nulls(len(rows.sample), _TEXT) if names is None else dictionary(rows.slot, list(names))
    return pa.table(
        {
            "sample": first_sample + rows.sample.astype(np.int64),
            **_identifiers(batch, len(feature.value), rows.sample),
            "feature": dictionary(np.zeros(len(rows.sample), np.int32), [feature.key]),
            "step": rows.step,
            "slot": rows.slot,
            "code": code,
            "time": floats(rows.time, len(rows.sample)),
            "value": floats(rows.value, len(rows.sample)),
            "attribution": rows.attribution,
        },
        schema=ATTRIBUTIONS,
    )


@dataclass(frozen=True)
class FeatureRows:
    """The rows of one feature of a batch, sample by sample; one number per row.

    Attributes:
        sample: place of the sample in the batch, int32, ascending.
        step: as in the table, int32.
        slot: as in the table, int32.
        token: token index; `None` for a feature of values.
        time: as in the table, NaN for null; `None` for a feature without times.
        value: as in the table, NaN for null; `None` for tokens.
        attribution: as in the table, float32.
    """

    sample: np.ndarray
    step: np.ndarray
    slot: np.ndarray
    token: np.ndarray | None
    time: np.ndarray | None
    value: np.ndarray | None
    attribution: np.ndarray


def feature_rows(feature: Feature, processor: Any, contributions: Tensor, recorded: Tensor) -> FeatureRows:
    """The rows of one feature of a batch.

    Args:
        feature: the feature as `read_features` gives it.
        processor: its processor.
        contributions: floating point, of the value's shape.
        recorded: what to record in place of a continuous value, of its shape.
    """
    schema = tuple(processor.schema())
    times = feature.parts[schema.index("time")] if "time" in schema else None
    grid = _grid(feature, timed=times is not None)
    real = numbers(feature.real() | measured(feature)).reshape(grid)
    sample, step, slot = (axis.astype(np.int32) for axis in real.nonzero())
    token = numbers(feature.value).reshape(grid)[real] if feature.is_token else None
    value = None if feature.is_token else numbers(recorded).reshape(grid)[real]
    attribution = numbers(contributions).reshape(grid)[real].astype(np.float32, copy=False)
    return FeatureRows(sample, step, slot, token, _times(times, grid, sample, step), value, attribution)


def names_of(processor: Any, given: Sequence[str] | None) -> Sequence[str] | None:
    """Names of a feature's dimensions: those given, or the categories of a multi-hot feature, or `None`."""
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
    """The time of each row; where steps are merged axes, `read_features` has seen one time per first of them."""
    if times is None:
        return None
    by_step = numbers(times).reshape(grid[0], -1)
    merged = max(1, grid[1] // by_step.shape[1])
    return by_step[sample, step // merged]


def _tokens(tokens: np.ndarray, vocabulary: Mapping[Any, int]) -> pa.DictionaryArray:
    """Texts of token indices; an index that the vocabulary lacks is written as a number."""
    used, which = np.unique(tokens, return_inverse=True)
    texts = {index: str(text) for text, index in vocabulary.items()}
    return dictionary(which, [texts.get(int(token), str(token)) for token in used])


def _identifiers(batch: Mapping[str, Any], size: int, rows: np.ndarray) -> dict[str, pa.Array]:
    """The columns of identifiers, for rows of the batch's samples, int64 `[rows]`."""
    found = {}
    for column, texts in of_batch(batch, size).items():
        known = pa.array(texts, pa.string()).dictionary_encode()  # several samples may share a patient
        found[column] = pa.DictionaryArray.from_arrays(known.indices.take(pa.array(rows)), known.dictionary)
    return found


def dictionary(indices: np.ndarray, texts: list[str]) -> pa.DictionaryArray:
    """Dictionary-encoded strings."""
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(texts, pa.string()))


def floats(values: np.ndarray | None, rows: int) -> pa.Array:
    """float32, with null for NaN; nulls alone for `None`."""
    if values is None:
        return pa.nulls(rows, pa.float32())
    missing = np.isnan(values)
    count = int(np.count_nonzero(missing))
    given = pa.py_buffer(np.ascontiguousarray(values, np.float32))
    valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if count else None  # a tenth of from_pandas' time
    return pa.Array.from_buffers(pa.float32(), rows, [valid, given], count)


def numbers(tensor: Any) -> np.ndarray:
    """A tensor as an array of at most 32 bits per float."""
    wide = tensor.detach().cpu()
    return (wide.float() if wide.dtype in (torch.bfloat16, torch.float16, torch.float64) else wide).numpy()


def probabilities(model: Any, output: Tensor) -> Tensor | None:
    """Predicted probabilities of the target, from its logit `[batch]`; `None` for regression.

    Raises:
        ValueError: if the model is multiclass, where the logit alone does not tell.
    """
    if model.mode == "multiclass":
        raise ValueError("the model is multiclass: pass probability=, the softmax of its logits at the target")
    return output.sigmoid() if model.mode in ("binary", "multilabel") else None


def labels_of(model: Any, batch: Mapping[str, Any], target: Any) -> np.ndarray | None:
    """True labels, float32 `[batch]` (multilabel: whether the target applies); `None` where the batch has none."""
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
