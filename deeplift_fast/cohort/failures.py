"""Samples that cannot be attributed, with the reasons.

A reason names the feature and its fault, never a patient's value.
"""

import io
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor, nn

from deeplift_fast.cohort.metadata_checks import GroupMetadata, metadata_of
from deeplift_fast.cohort.odd_tensors import Unusable
from deeplift_fast.cohort.samples import FlatTensor, Group
from deeplift_fast.cohort.store import Store, whole_version
from deeplift_fast.errors import CohortError
from deeplift_fast.pyhealth.features import PAD

NAME = "failures.parquet"
MOST_BYTES = 1 << 30
FAILURES = pa.schema({"sample": pa.int64(), "part": pa.int32(), "reason": pa.string()})


@dataclass(frozen=True)
class Failure:
    """A sample that could not be attributed.

    Attributes:
        sample: its number in the dataset.
        reason: the reason, without any patient's value.
    """

    sample: int
    reason: str


def check(group: Group, model: Any) -> tuple[np.ndarray, list[Failure], GroupMetadata]:
    """Finds samples that cannot be attributed before any batch is made.

    Args:
        group: samples.
        model: the PyHealth model.

    Returns:
        Places of the sound samples in the group, int64, the failures of the others, and the metadata of all.
    """
    reasons: dict[int, str] = {}
    for key in model.feature_keys:
        tokens = bool(model.dataset.input_processors[key].is_token())
        for place, reason in group.unusable(key):
            reasons.setdefault(place, f"feature {key!r} is {reason}")
        for part in group.tensors(key):
            for place, reason in _wrong(key, part, model, tokens, len(group.numbers)):
                reasons.setdefault(place, reason)
    metadata = metadata_of(group, model)
    reasons = {place: fault.reason for place, fault in metadata.faults.items()} | reasons
    failures = [Failure(int(group.numbers[place]), reason) for place, reason in sorted(reasons.items())]
    sound = np.ones(len(group.numbers), bool)
    sound[list(reasons)] = False
    return np.flatnonzero(sound), failures, metadata


def describe(error: Exception, given: dict[str, Any], model: Any) -> str:
    """The reason for a sample at which the interpreter raised: the error's class and the kinds of the features."""
    kinds = ", ".join(f"{key!r} {_kind(given.get(key))}" for key in model.feature_keys)
    return f"the interpreter raised {type(error).__name__}; features: {kinds}"


def read(store: Store) -> pa.Table:
    """The failures in the folder; empty if the file is missing or damaged, so that their parts are done again."""
    try:
        table = whole_version(store, NAME, MOST_BYTES, parsed, repair=True)
    except CohortError:
        raise
    except ValueError:
        table = None
    return FAILURES.empty_table() if table is None else table


def parsed(content: bytes) -> pa.Table:
    """The table in a file's content, checked by the checksums of its pages.

    Raises:
        ValueError: if it is no such table, or is damaged.
    """
    try:
        return pq.read_table(io.BytesIO(content), schema=FAILURES, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{NAME} is damaged") from error


def of_parts(table: pa.Table, parts: Iterable[int]) -> pa.Table:
    """The failures of some parts."""
    return table.filter(pa.compute.is_in(table["part"], pa.array(list(parts), pa.int32())))


def counted(table: pa.Table) -> Counter[int]:
    """Number of failures by part."""
    return Counter(table["part"].to_pylist())


def table_of(failures: Iterable[Failure], part: int) -> pa.Table:
    """A part's failures as a table with the schema :data:`FAILURES`, by sample."""
    ordered = sorted(failures, key=lambda failure: failure.sample)
    columns = [[each.sample for each in ordered], [part] * len(ordered), [each.reason for each in ordered]]
    return pa.table(columns, schema=FAILURES)


def write(store: Store, table: pa.Table, require: Callable[[], None]) -> None:
    """Replaces the file by a table of all failures, sorted by sample; `require` as for `Store.write`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.sort_by("sample"), sink, compression="zstd", write_page_checksum=True)
    store.replace(NAME, memoryview(sink.getvalue()), require=require)


def _wrong(key: str, part: FlatTensor, model: Any, tokens: bool, count: int) -> list[tuple[int, str]]:
    """Places and faults of samples; a sample may have several."""
    # NumPy's -1 fails for a shape without entries.
    values = part.entries.reshape(len(part.entries), math.prod(part.entries.shape[1:]))
    if tokens and _all_real(part, _vocabulary(model, key)):
        return []
    faults = []
    if part.lengths is not None:
        faults.append(("is an empty sequence", np.flatnonzero(part.lengths == 0)))
    if np.issubdtype(values.dtype, np.floating):
        faults.append(("holds NaN or inf", part.owner[~np.isfinite(values).all(1)]))
        width = _width(model, key)
        if width is not None and part.lengths is not None and part.entries.ndim == 1:
            # In a batch with longer vectors it would be padded with zeros that were never measured.
            places = np.flatnonzero(part.lengths != width)
            faults.append(("has another number of values than the model takes", places))
    elif tokens and np.issubdtype(values.dtype, np.integer):
        size = _vocabulary(model, key)
        outside = (values < 0).any(1) | ((values >= size).any(1) if size is not None else False)
        faults.append(("holds a token outside the model's vocabulary", part.owner[outside]))
        if part.entries.ndim <= 2 and (part.lengths is None or part.entries.ndim == 1):
            real = np.bincount(part.owner, (values != PAD).any(1), minlength=count)
            faults.append(("is an empty sequence", np.flatnonzero(real == 0)))
    return [(int(place), f"feature {key!r} {fault}") for fault, places in faults for place in np.unique(places)]


def _all_real(part: FlatTensor, size: int | None) -> bool:
    """Whether these are samples of one step or more, all of them tokens in the vocabulary: then nothing is wrong."""
    values = part.entries
    if part.lengths is None or not part.lengths.all() or values.dtype.kind not in "iu" or not values.size:
        return False
    return bool(values.min() > PAD and (size is None or values.max() < size))


def _vocabulary(model: Any, key: str) -> int | None:
    """Number of tokens in PyHealth's own embedding of a feature; `None` if the model has another embedding."""
    layer = _layer(model, key)
    return layer.num_embeddings if isinstance(layer, nn.Embedding) else None


def _width(model: Any, key: str) -> int | None:
    """Number of values that PyHealth's own embedding takes of a feature with one vector; `None` for others."""
    layer, processor = _layer(model, key), model.dataset.input_processors[key]
    return layer.in_features if isinstance(layer, nn.Linear) and tuple(processor.schema()) == ("value",) else None


def _layer(model: Any, key: str) -> nn.Module | None:
    """The layer of PyHealth's own embedding for a feature; `None` if there is none."""
    layers = getattr(getattr(model, "embedding_model", None), "embedding_layers", None)
    return layers[key] if isinstance(layers, nn.ModuleDict) and key in layers else None


def _kind(value: Any) -> str:
    if isinstance(value, Unusable):
        return value.reason
    if isinstance(value, Tensor):
        last = f", {value.shape[-1]} per step" if value.dim() > 2 else ""
        return f"{value.dim() - 1}-d {str(value.dtype).removeprefix('torch.')}{last}"
    if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
        return "(" + ", ".join(_kind(part) for part in value) + ")"
    return "missing" if value is None else type(value).__name__
