"""Contributions as rows of a pandas data frame.

Rows with PyHealth's names come from `deeplift_fast.cohort`, asked for through the package's lazy names: this folder
serves models without PyHealth.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

    from deeplift_fast.core.result import Attribution

ALWAYS = ("sample", "feature", "step", "slot", "code", "attribution")
"""Columns that :func:`top` keeps if they are empty. Without the others, a terminal has room for the codes."""

NEEDS_PANDAS = 'tables of contributions need pandas: pip install "deeplift_fast[cohort]"'


def named(
    found: "Attribution", model: Any, batch: Mapping[str, Any], dimensions: Mapping[str, Sequence[str]] | None = None
) -> "pd.DataFrame":
    """The rows of a PyHealth batch; see :meth:`deeplift_fast.Attribution.to_dataframe`."""
    import deeplift_fast

    frame: pd.DataFrame = deeplift_fast.cohort.frame(found, model, batch, dimensions)
    return frame


def plain(found: "Attribution", sample: int | None = None) -> "pd.DataFrame":
    """One row per element of each tensor of contributions, sample by sample, or of one sample alone."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(NEEDS_PANDAS) from error
    first, kept = (0, slice(None)) if sample is None else (sample, slice(sample, sample + 1))
    pieces = []
    for place, (name, values) in enumerate(by_name(found.contributions).items()):
        numbers = values[kept].detach().float().cpu().numpy()
        shape = numbers.shape[1:]
        size, last = math.prod(shape), shape[-1] if shape else 1
        inside = np.arange(size)
        codes = pd.Categorical.from_codes(np.tile(inside, len(numbers)), [_place(name, int(i), shape) for i in inside])
        piece = pd.DataFrame({"sample": first + np.repeat(np.arange(len(numbers)), size), "order": place})
        piece["patient_id"] = piece["visit_id"] = None
        piece["feature"] = str(name)
        piece["step"] = np.tile(inside // max(last, 1), len(numbers)).astype(np.int32)
        piece["slot"] = np.tile(inside % max(last, 1), len(numbers)).astype(np.int32)
        piece["code"] = np.asarray(codes, dtype=object)
        piece["time"] = piece["day"] = np.full(len(piece), np.nan, np.float32)
        piece["stay"] = piece["measured"] = None
        piece["value"] = np.full(len(piece), np.nan, np.float32)
        piece["attribution"] = numbers.reshape(-1)
        pieces.append(piece)
    table = pd.concat(pieces, ignore_index=True).sort_values(["sample", "order"], kind="stable")
    return table.drop(columns="order").reset_index(drop=True)


def top(
    found: "Attribution", count: int, sample: int, dimensions: Mapping[str, Sequence[str]] | None = None
) -> "pd.DataFrame":
    """The largest contributions of a sample; see :meth:`deeplift_fast.Attribution.top`."""
    table = largest(found, count, sample, dimensions)
    empty = [name for name in table.columns if name not in ALWAYS and table[name].isna().all()]
    return table.drop(columns=empty)


def largest(
    found: "Attribution", count: int, sample: int, dimensions: Mapping[str, Sequence[str]] | None = None
) -> "pd.DataFrame":
    """The rows of a sample with the largest contributions, with every column."""
    if count < 1:
        raise ValueError(f"count is {count}; accepted: 1 or more")
    size = len(found.output)
    if not 0 <= sample < size:
        raise ValueError(f"sample is {sample}; accepted: 0 to {size - 1}, the places in the batch")
    table = plain(found, sample) if found.source is None else named(found, *found.source, dimensions)
    table = table[table["sample"] == sample]
    order = np.argsort(-table["attribution"].abs().to_numpy(), kind="stable")
    return table.iloc[order[:count]].reset_index(drop=True)


def by_name(values: Any) -> dict[Any, Tensor]:
    """Tensors in the structure of the inputs, by name: "x" for a single one, "x0", "x1", … for a sequence."""
    if isinstance(values, Tensor):
        return {"x": values}
    return dict(values) if isinstance(values, Mapping) else {f"x{place}": each for place, each in enumerate(values)}


def base_of(found: "Attribution") -> Tensor:
    """The output at the baseline, `[batch]`: of several baselines the mean, as of the contributions."""
    base = found.baseline_output
    return base.mean(0) if base.dim() > 1 else base


def _place(name: Any, number: int, shape: tuple[int, ...]) -> str:
    if not shape:
        return str(name)
    return f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(number, shape))}]"
