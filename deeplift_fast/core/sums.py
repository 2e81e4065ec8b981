"""Sums of contributions by feature, step or stay, as rows of a pandas data frame."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplift_fast.core import frames

if TYPE_CHECKING:
    import pandas as pd

    from deeplift_fast.core.result import Attribution

_SAMPLE = ["sample", "patient_id", "visit_id"]
_KEYS = {
    "feature": ["sample", "feature"],
    "step": ["sample", "feature", "step"],
    "stay": ["sample", "stay"],
}
COLUMNS = {
    "feature": [*_SAMPLE, "feature", "attribution"],
    "step": [*_SAMPLE, "feature", "step", "time", "day", "stay", "attribution"],
    "stay": [*_SAMPLE, "stay", "day", "attribution"],
}


def by(found: "Attribution", what: str, given: tuple[Any, Mapping[str, Any]] | None) -> "pd.DataFrame":
    """The sums; see :meth:`deeplift_fast.Attribution.by`.

    Args:
        found: the attribution.
        what: "feature", "step" or "stay".
        given: the PyHealth model and batch explained; `None` for plain tensors.

    Returns:
        The rows.

    Raises:
        ImportError: if pandas is missing.
        ValueError: for an unknown name, a batch without stays, or inputs without a sequence axis.
    """
    if what not in tuple(COLUMNS):
        raise ValueError(f"what is {what!r}; accepted: {', '.join(map(repr, COLUMNS))}")
    return _plain(found, what) if given is None else _named(frames.named(found, *given), what)


def _named(table: "pd.DataFrame", what: str) -> "pd.DataFrame":
    if what == "stay" and len(table) and table["stay"].isna().all():
        raise ValueError(
            "what is 'stay', and no step of the batch has a known stay; accepted: a batch with the metadata K_stay "
            'beside a feature K and its days K_days (docs/cohorts.md), or "feature" or "step"'
        )
    table = table.assign(attribution=table["attribution"].astype(np.float64))
    if what == "stay":  # the rows of a sample in the order of time; unknown days last
        table = table.sort_values(["sample", "day"], kind="stable", na_position="last")
    groups = table.groupby(_KEYS[what], sort=False, dropna=False, observed=True)
    kept = [name for name in COLUMNS[what] if name not in (*_KEYS[what], "attribution")]
    sums = groups[kept].first().assign(attribution=groups["attribution"].sum()).reset_index()
    sums = sums.sort_values("sample", kind="stable")
    if what == "stay":  # a sample's unknown stay comes last
        sums = sums.iloc[np.lexsort([sums["stay"].isna().to_numpy(), sums["sample"].to_numpy()])]
    texts = [name for name in ("patient_id", "visit_id", "stay") if name in COLUMNS[what]]
    sums = sums.astype(dict.fromkeys(texts, object))
    sums[texts] = sums[texts].where(sums[texts].notna(), None)
    return sums[COLUMNS[what]].reset_index(drop=True)


def _plain(found: "Attribution", what: str) -> "pd.DataFrame":
    """Sums over each tensor of contributions, `[batch, …]`; the last dimension of three or more is no step."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(frames.NEEDS_PANDAS) from error
    tensors = frames.by_name(found.contributions)
    shapes = {str(name): tuple(values.shape) for name, values in tensors.items()}
    if what == "stay":
        raise ValueError(
            "what is 'stay', and contributions of plain tensors have no stays; accepted: 'feature', 'step'"
        )
    if what == "step" and all(len(shape) < 3 for shape in shapes.values()):
        raise ValueError(
            f"what is 'step', and no input has a sequence axis: contributions have the shapes {shapes}; accepted: "
            "[batch, steps, …, values] for at least one of them, or 'feature'"
        )
    pieces = []
    for place, (name, values) in enumerate(tensors.items()):
        numbers = values.detach().double().cpu().numpy()
        batch, *shape = numbers.shape
        kept = math.prod(shape[:-1]) if what == "step" and len(shape) > 1 else 1
        sums = numbers.reshape(batch, kept, math.prod(shape) // max(kept, 1)).sum(-1)
        piece = pd.DataFrame({"sample": np.repeat(np.arange(batch), kept), "order": place})
        piece["patient_id"] = piece["visit_id"] = piece["stay"] = None
        piece["feature"] = str(name)
        piece["step"] = np.tile(np.arange(kept, dtype=np.int32), batch)
        piece["time"] = piece["day"] = np.full(len(piece), np.nan, np.float32)
        piece["attribution"] = sums.reshape(-1)
        pieces.append(piece)
    table = pd.concat(pieces, ignore_index=True).sort_values(["sample", "order"], kind="stable")
    return table[COLUMNS[what]].reset_index(drop=True)
