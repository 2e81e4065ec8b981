"""The columns of a timeline: stays, days, times or steps, as many as fit."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deeplift_fast.support.numbers import short


@dataclass(frozen=True)
class Columns:
    """Columns of a timeline, oldest first.

    Attributes:
        of: the column of each row, int64 `[rows]`.
        heads: the text above each column.
        label: what the columns are.
    """

    of: np.ndarray
    heads: tuple[str, ...]
    label: str


def columns_of(table: pd.DataFrame, room: int) -> Columns:
    """The columns of a patient's rows.

    A column is a stay where rows name stays, else a day where they have days, else a time where all features of several
    steps have times, else a step. Of more stays than fit, the newest have a column each and the others share one;
    neighbouring days, times and steps are put together.

    Args:
        table: the rows, as `deeplift_fast.plot.rows` gives them.
        room: the most columns, at least 2.
    """
    if table["stay"].notna().any():
        return _stays(table, room)
    if table["day"].notna().any():
        return _grouped(np.floor(table["day"].to_numpy(float)), room, "days from the first record")
    if _all_timed(table):
        return _grouped(table["time"].to_numpy(float), room, "time, as the model is given it")
    return _grouped(table["step"].to_numpy(float), room, "steps: places in the sequence")


def _all_timed(table: pd.DataFrame) -> bool:
    """Whether every feature of several steps has times, and any has."""
    several = table.groupby("feature")["step"].transform("nunique") > 1
    return bool(table["time"].notna().any() and table.loc[several, "time"].notna().all())


def _stays(table: pd.DataFrame, room: int) -> Columns:
    known = table[table["stay"].notna()]
    begins = known.groupby("stay", sort=False)["day"].min()
    order = begins.sort_values(kind="stable").index.tolist() if begins.notna().any() else begins.index.tolist()
    undated = bool(table["stay"].isna().any())
    own = room - undated
    folded = max(0, len(order) - own + 1) if len(order) > own else 0
    place = {stay: max(0, number - folded + 1) if folded else number for number, stay in enumerate(order)}
    heads = [_stay(stay, begins[stay]) for stay in order[folded:]]
    last = _stay(order[folded - 1], begins[order[folded - 1]])
    heads = ([f"≤ {last}"] if folded else []) + heads
    of = table["stay"].map(place).fillna(len(heads)).astype(np.int64).to_numpy()
    label = "days on which stays began" if begins.notna().any() else "stays"
    label += f" (≤: {folded} stays)" if folded else ""
    return Columns(of, (*heads, "no date") if undated else tuple(heads), label)


def _stay(stay: object, begin: float) -> str:
    return str(stay) if math.isnan(begin) else str(math.floor(begin))


def _grouped(places: np.ndarray, room: int, label: str) -> Columns:
    """One column per place, or per run of neighbouring places where there are more than fit."""
    missing = np.isnan(places)
    known = np.unique(places[~missing])
    runs = np.array_split(known, min(len(known), room - bool(missing.any()))) if len(known) else []
    heads = [_run(run) for run in runs]
    firsts = np.array([run[0] for run in runs])
    of = np.where(missing, len(runs), np.searchsorted(firsts, np.where(missing, 0, places), side="right") - 1)
    return Columns(of.astype(np.int64), (*heads, "no date") if missing.any() else tuple(heads), label)


def _run(run: np.ndarray) -> str:
    if len(run) == 1:
        return short(run[0])
    return f"{_end(run[0])}–{_end(run[-1])}"


def _end(place: float) -> str:
    """An end of a run: from 10 on without decimals, for which a head has no room."""
    return short(round(place) if abs(place) >= 10 else place)
