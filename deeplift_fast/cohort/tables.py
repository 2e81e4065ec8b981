"""A batch and its attributions as Arrow tables, and as Parquet files that grow batch by batch.

`samples`, one row per sample:

    sample             int64       number of the sample, counted from 0 through all batches
    patient_id         dictionary  as the batch names it
    visit_id           dictionary  as the batch names it; null where samples have none
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
    code               dictionary  text of the token, or name of the dimension; null where neither is known
    time               float32     time of the step as the model is given it; null for a feature without times
    value              float32     the value; null for tokens, and where nothing was measured
    attribution        float32     contribution to the target logit, in units of the logit

Dictionaries hold strings.

What is real is what `deeplift_fast.features.Feature.real` says: tokens other than 0, and steps that are not all 0. A
gap that a processor filled (forward, or with a constant) counts as real, since the model is given it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from deeplift_fast.attribution import Attribution
from deeplift_fast.features import Feature, read_features

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
        ValueError: if the model is multiclass and `probability` is `None`.
    """
    target = _numpy(found.target)
    rows = np.arange(len(target))
    if probability is None:
        probability = _probability(model, found.output)
    return pa.table(
        {
            "sample": first_sample + rows,
            "patient_id": _identifiers(batch, "patient_id", rows),
            "visit_id": _identifiers(batch, "visit_id", rows),
            "target": target,
            "output": _numpy(found.output),
            "baseline_output": _numpy(found.baseline_output),
            "probability": _floats(None if probability is None else _numpy(probability), len(rows)),
            "label": _floats(_labels(model, batch, found.target), len(rows)),
            "convergence_delta": _numpy(found.convergence_delta),
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
        _check_shape(f"contributions[{key!r}]", contributions[key], feature)
        _check_shape(f"values[{key!r}]", recorded, feature)
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
        self._pending: dict[str, list[pa.Table]] = {"samples": [], "attributions": []}
        self._files = {
            "samples": pq.ParquetWriter(folder / "samples.parquet", SAMPLES, compression="zstd"),
            "attributions": pq.ParquetWriter(folder / "attributions.parquet", ATTRIBUTIONS, compression="zstd"),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        for file in self._files.values():
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
    schema = tuple(processor.schema())
    times = feature.parts[schema.index("time")] if "time" in schema else None
    grid = _grid(feature, timed=times is not None)
    real = _numpy(feature.real()).reshape(grid)
    sample, step, slot = (axis.astype(np.int32) for axis in real.nonzero())
    if names is not None and len(names) != grid[2]:
        raise ValueError(
            f"dimensions[{feature.key!r}] has {len(names)} name(s); the feature has {grid[2]} dimension(s)"
        )
    if feature.is_token:
        code = _tokens(_numpy(feature.value).reshape(grid)[real], getattr(processor, "code_vocab", {}))
        value = _floats(None, len(sample))
    else:
        code = pa.nulls(len(sample), _TEXT) if names is None else _dictionary(slot, list(names))
        value = _floats(_numpy(recorded).reshape(grid)[real], len(sample))
    return pa.table(
        {
            "sample": first_sample + sample.astype(np.int64),
            "patient_id": _identifiers(batch, "patient_id", sample),
            "visit_id": _identifiers(batch, "visit_id", sample),
            "feature": _dictionary(np.zeros(len(sample), np.int32), [feature.key]),
            "step": step,
            "slot": slot,
            "code": code,
            "time": _times(times, grid, sample, step),
            "value": value,
            "attribution": _numpy(contributions).reshape(grid)[real].astype(np.float32),
        },
        schema=ATTRIBUTIONS,
    )


def _grid(feature: Feature, timed: bool) -> tuple[int, int, int]:
    """Batch size, steps and slots: the value's shape with every axis but the first and the last merged."""
    shape = tuple(feature.value.shape)
    if len(shape) == 1:
        return shape[0], 1, 1
    if len(shape) == 2:
        return (*shape, 1) if feature.is_token or timed else (shape[0], 1, shape[1])
    return shape[0], int(np.prod(shape[1:-1])), shape[-1]


def _times(times: Tensor | None, grid: tuple[int, int, int], sample: np.ndarray, step: np.ndarray) -> pa.Array:
    """The time of each row; where steps are merged axes, `read_features` has seen one time per first of them."""
    if times is None:
        return _floats(None, len(sample))
    by_step = _numpy(times).reshape(grid[0], -1)
    merged = max(1, grid[1] // by_step.shape[1])
    return _floats(by_step[sample, step // merged], len(sample))


def _tokens(tokens: np.ndarray, vocabulary: Mapping[Any, int]) -> pa.DictionaryArray:
    """Texts of token indices; an index that the vocabulary lacks is written as a number."""
    used, which = np.unique(tokens, return_inverse=True)
    texts = {index: str(text) for text, index in vocabulary.items()}
    return _dictionary(which, [texts.get(int(token), str(token)) for token in used])


def _identifiers(batch: Mapping[str, Any], key: str, rows: np.ndarray) -> pa.Array:
    if key not in batch:
        return pa.nulls(len(rows), _TEXT)
    # Several samples may share a patient.
    names, which = np.unique(np.array([str(name) for name in batch[key]], dtype=object), return_inverse=True)
    return _dictionary(which[rows], names.tolist())


def _dictionary(indices: np.ndarray, texts: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(texts, pa.string()))


def _floats(numbers: np.ndarray | None, rows: int) -> pa.Array:
    if numbers is None:
        return pa.nulls(rows, pa.float32())
    return pa.array(numbers, pa.float32(), from_pandas=True)


def _numpy(tensor: Any) -> np.ndarray:
    wide = tensor.detach().cpu()
    return (wide.float() if wide.dtype in (torch.bfloat16, torch.float16, torch.float64) else wide).numpy()


def _probability(model: Any, output: Tensor) -> Tensor | None:
    if model.mode == "multiclass":
        raise ValueError("the model is multiclass: pass probability=, the softmax of its logits at the target")
    return output.sigmoid() if model.mode in ("binary", "multilabel") else None


def _labels(model: Any, batch: Mapping[str, Any], target: Any) -> np.ndarray | None:
    (key,) = model.label_keys
    if key not in batch:
        return None
    labels = torch.as_tensor(batch[key]).detach().cpu()
    if model.mode == "multilabel":
        labels = labels.gather(1, target.detach().cpu().reshape(-1, 1))
    return _numpy(labels.reshape(len(labels)).float())


def _check_shape(name: str, tensor: Tensor, feature: Feature) -> None:
    if tensor.shape != feature.value.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; accepted: the value's, {tuple(feature.value.shape)}")
