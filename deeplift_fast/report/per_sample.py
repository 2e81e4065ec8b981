"""Contributions of codes and dimensions per sample: the sum of a sample's attributions to one of them."""

from types import TracebackType

import numpy as np
import pandas as pd

from deeplift_fast.report.bootstrap import REPLICATES
from deeplift_fast.report.cells import CellReader, Cells
from deeplift_fast.report.grouped_sums import GroupedSums
from deeplift_fast.report.members import Assigner, Members
from deeplift_fast.report.points import Points, PointTables
from deeplift_fast.report.spool import Spool, bits_of
from deeplift_fast.report.statistics import keys_table

QUANTILES = {f"q{percent:02}": percent / 100 for percent in (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)}
"""Names and positions of the quantiles."""

PATIENT_BITS = 40
"""Bits of a patient's hash: among a million patients, two have the same with a probability of about one half."""


class PerSample:
    """Sums per sample and code or dimension, added up part by part; a context manager.

    Temporary files hold 8 bytes per sample and code, and 8 bytes per grouping, part, patient and code.

    Args:
        replicates: replicates of the bootstrap.
        seed: seed of the bootstrap.
    """

    def __init__(self, replicates: int = REPLICATES, seed: int = 0) -> None:
        self._sums = GroupedSums(("samples", "count", "sum", "size"), ("sum", "samples"), replicates, seed)
        self._numbers, self._patients = Spool(), Spool(PATIENT_BITS)
        self._points = Points()

    def __enter__(self) -> "PerSample":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spool in (self._numbers, self._patients):
            spool.__exit__(kind, error, trace)

    def add(self, members: Members, cells: Cells) -> None:
        """Adds a part: its samples, and its cells by :attr:`CellReader.codes`. The first grouping has all samples."""
        columns = {
            "samples": np.ones(len(cells.name)),
            "rows": cells.count,
            "sum": cells.sum,
            "size": np.abs(cells.sum),
        }
        placed = self._sums.add(members, cells.name, cells.sample, vars(cells) | columns)
        for inside, rows in placed:
            self._patients.add(rows, members.patient[cells.sample[inside]], once=True)
        inside, rows = placed[0]
        self._numbers.add(rows, bits_of(cells.sum[inside]))
        self._points.add(rows, members.number[cells.sample[inside]], cells.sum[inside], cells.newest[inside])

    def table(self, assigner: Assigner, reader: CellReader) -> pd.DataFrame:
        """One row per group, target and code or dimension, in no particular order.

        The columns are `grouping`, `group`, `target`, `feature`, `code`, `kind` ("code" or "value"); the numbers of
        `samples`, `patients` and `rows` (attributions); `mean` and `mean_abs` of the samples' sums; `low` and `high`,
        the ends of the mean's 95 % interval over patients; and, for the first grouping alone, `QUANTILES` of the sums.
        """
        sums, size = self._sums.sums(), len(self._sums.keys)
        found = keys_table(self._sums, assigner, list(reader.codes), reader)
        numbers = {
            "samples": sums["samples"].astype(np.int64),
            "patients": self._patients.distinct(size),
            "rows": sums["count"].astype(np.int64),
            "mean": sums["sum"] / sums["samples"],
            "mean_abs": sums["size"] / sums["samples"],
            "low": sums["low"],
            "high": sums["high"],
        }
        shares = self._numbers.quantiles(size, np.array(list(QUANTILES.values())))
        return pd.DataFrame(found | numbers | dict(zip(QUANTILES, shares.T, strict=True)))

    def points(self, assigner: Assigner, reader: CellReader) -> PointTables:
        """Some samples' sums of each target, feature and code; see :class:`Points`."""
        targets, codes = list(assigner.targets), list(reader.codes)
        rows = {(targets[t], *codes[n]): row for (grouping, _, t, n), row in self._sums.keys.items() if grouping == 0}
        return self._points.tables(rows)
