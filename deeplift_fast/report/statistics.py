"""Means of attributions per group and code or dimension."""

from typing import Any

import numpy as np
import pandas as pd

from deeplift_fast.report.bootstrap import REPLICATES
from deeplift_fast.report.cells import CellReader, Cells
from deeplift_fast.report.grouped_sums import GroupedSums
from deeplift_fast.report.members import Assigner, Members

COLUMNS = (
    "grouping",
    "group",
    "feature",
    "code",
    "kind",
    "count",
    "samples",
    "mean",
    "mean_abs",
    "share_positive",
    "low",
    "high",
)


class Statistics:
    """Sums over attributions, added up part by part.

    Args:
        replicates: replicates of the bootstrap.
        seed: seed of the bootstrap.
    """

    def __init__(self, replicates: int = REPLICATES, seed: int = 0) -> None:
        self._sums = GroupedSums(("count", "samples", "sum", "abs", "positive"), ("sum", "count"), replicates, seed)

    def add(self, members: Members, cells: Cells) -> None:
        """Adds a part: its samples, and its cells by :attr:`CellReader.names`."""
        self._sums.add(members, cells.name, cells.sample, vars(cells) | {"samples": np.ones(len(cells.name))})

    def table(self, assigner: Assigner, reader: CellReader) -> pd.DataFrame:
        """One row per group, target and code or dimension: the columns `COLUMNS` and `target`, in no particular order.

        `count` is the number of attributions; in a feature with values, only measured values count. `samples` is the
        number of samples that have such an attribution. `mean`, `mean_abs` and `share_positive` are over the same
        attributions. `low` and `high` are the ends of the mean's 95 % interval over patients, NaN for too few patients.
        `kind` is `"code"` or `"value"`.
        """
        sums, names = self._sums.sums(), list(reader.names)
        found = keys_table(self._sums, assigner, [name[:2] for name in names], reader)
        numbers = {
            "count": sums["count"].astype(np.int64),
            "samples": sums["samples"].astype(np.int64),
            "mean": sums["sum"] / sums["count"],
            "mean_abs": sums["abs"] / sums["count"],
            "share_positive": sums["positive"] / sums["count"],
            "low": sums["low"],
            "high": sums["high"],
        }
        # In a feature with values, rows without a value were not measured.
        kept = np.array([names[n][2] == bool(reader.features[names[n][0]]) for *_, n in self._sums.keys], bool)
        return pd.DataFrame(found | numbers, columns=[*COLUMNS, "target"])[kept].reset_index(drop=True)


def keys_table(
    sums: GroupedSums, assigner: Assigner, codes: list[tuple[str, str]], reader: CellReader
) -> dict[str, Any]:
    """What the rows of sums are about: the columns `grouping`, `group`, `target`, `feature`, `code` and `kind`."""
    groupings, targets = assigner.groupings, list(assigner.targets)
    return {
        "grouping": [groupings[g].name for g, _, _, _ in sums.keys],
        "group": [groupings[g].groups[i] for g, i, _, _ in sums.keys],
        "target": np.array([targets[t] for _, _, t, _ in sums.keys], np.int64),
        "feature": np.array([codes[n][0] for *_, n in sums.keys], object),
        "code": np.array([codes[n][1] for *_, n in sums.keys], object),
        "kind": np.array(["value" if reader.features[codes[n][0]] else "code" for *_, n in sums.keys], object),
    }
