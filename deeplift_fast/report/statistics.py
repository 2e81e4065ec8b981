"""Sums of attributions per group and code or dimension. Their size does not depend on samples or patients.

Each group and code or dimension in it has five sums, and a weighted sum and count for each replicate of the bootstrap
(1.6 kB for 200 replicates). Sums of one part are float64. Replicates are added in float32, whose rounding error is far
below the bootstrap's own.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.bootstrap import REPLICATES, hash_texts, interval, weights
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouping import MOST_GROUPS, Cut

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

_READ = ("sample", "feature", "slot", "code", "value", "attribution")
_SUMS = ("count", "samples", "sum", "abs", "positive")
_MIDDLE = 1 << 39
_BLOCK = 4096  # samples whose bootstrap weights are held at a time: 3 MB for 200 replicates


class Statistics:
    """Sums, added up part by part.

    Args:
        groupings: ways to divide samples into groups; a sample is in at most one group of each.
        replicates: replicates of the bootstrap.
        seed: seed of the bootstrap.
    """

    def __init__(self, groupings: Sequence[Cut], replicates: int = REPLICATES, seed: int = 0) -> None:
        self._groupings = tuple(groupings)
        self._replicates = replicates
        self._seed = seed
        self._names: dict[tuple[str, str, bool], int] = {}  # feature, code or dimension, whether rows have a value
        self._has_values: dict[str, bool] = {}
        self._targets: dict[int, int] = {}
        self._rows: dict[tuple[int, ...], int] = {}  # grouping, group, target, name → row of the arrays
        self._sums = np.zeros((0, len(_SUMS)))
        self._replicate_sums = np.zeros((0, replicates), dtype=np.float32)
        self._replicate_counts = np.zeros((0, replicates), dtype=np.float32)

    def columns(self) -> set[str]:
        """Columns of `samples` that :meth:`add` reads."""
        return {"sample", "patient_id", "target"}.union(*(grouping.columns for grouping in self._groupings))

    def add(self, folder: CohortFolder, part: int, samples: pa.Table) -> np.ndarray:
        """Adds a finished part.

        Args:
            folder: the cohort.
            part: the part's number.
            samples: its samples, in the order of their numbers, with :meth:`columns`.

        Returns:
            `Σ|attribution|` of each of its samples, float64 `[samples]`.

        Raises:
            SummaryError: if its attributions are missing or damaged, or name other samples.
        """
        cells = self._read_cells(folder, part, samples["sample"].to_numpy())
        hashes, target = _patient_hashes(samples), self._target_of(samples)[cells["sample"]]
        for number, grouping in enumerate(self._groupings):
            self._add_grouping(number, grouping.assign(samples)[cells["sample"]], target, cells, hashes)
        return np.bincount(cells["sample"], cells["abs"], len(samples))

    def table(self) -> pd.DataFrame:
        """One row per group, target and code or dimension: the columns `COLUMNS` and `target`, in no particular order.

        `count` is the number of attributions; in a feature with values, only measured values count. `samples` is the
        number of samples that have such an attribution. `mean`, `mean_abs` and `share_positive` are over the same
        attributions. `low` and `high` are the ends of the mean's 95 % interval over patients, NaN for too few patients.
        `kind` is `"code"` or `"value"`.
        """
        low, high = interval(self._replicate_sums[: len(self._rows)], self._replicate_counts[: len(self._rows)])
        sums = dict(zip(_SUMS, self._sums[: len(self._rows)].T, strict=True))
        names = list(self._names)
        keys = list(self._rows)
        targets = list(self._targets)
        found = {
            "grouping": [self._groupings[g].name for g, _, _, _ in keys],
            "group": [self._groupings[g].groups[i] for g, i, _, _ in keys],
            "target": [targets[t] for _, _, t, _ in keys],
            "feature": [names[n][0] for *_, n in keys],
            "code": [names[n][1] for *_, n in keys],
            "kind": ["value" if self._has_values[names[n][0]] else "code" for *_, n in keys],
            "count": sums["count"].astype(np.int64),
            "samples": sums["samples"].astype(np.int64),
            "mean": sums["sum"] / sums["count"],
            "mean_abs": sums["abs"] / sums["count"],
            "share_positive": sums["positive"] / sums["count"],
            "low": low,
            "high": high,
        }
        # In a feature with values, rows without a value were not measured.
        kept = np.array([names[n][2] == self._has_values[names[n][0]] for *_, n in keys], bool)
        return pd.DataFrame(found, columns=[*COLUMNS, "target"])[kept].reset_index(drop=True)

    def _read_cells(self, folder: CohortFolder, part: int, known: np.ndarray) -> dict[str, np.ndarray]:
        """Sums per name and sample: `name` and `sample` (place in `known`), int64 `[cells]`, and the `_SUMS`."""
        pieces = [self._cells_of(batch, known, part) for batch in folder.attributions(part, _READ)]
        if not pieces:
            return {key: np.zeros(0, np.int64) for key in ("name", "sample", *_SUMS)}
        joined = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        # The rows of one sample may lie in two batches.
        cells, place = np.unique(joined["name"] * len(known) + joined["sample"], return_inverse=True)
        found = {key: np.bincount(place, joined[key], len(cells)) for key in ("count", "sum", "abs", "positive")}
        return {"name": cells // len(known), "sample": cells % len(known), "samples": np.ones(len(cells)), **found}

    def _cells_of(self, batch: pa.RecordBatch, known: np.ndarray, part: int) -> dict[str, np.ndarray]:
        number = batch["sample"].to_numpy()
        place = np.searchsorted(known, number)
        if len(known) == 0 or (known[np.minimum(place, len(known) - 1)] != number).any():
            raise SummaryError(
                f"part {part}: its attributions name samples that its samples table lacks; start the cohort over with "
                "--force"
            )
        name = self._name_rows(batch)
        attribution = batch["attribution"].to_numpy().astype(np.float64)
        cells, row = np.unique(name * len(known) + place, return_inverse=True)
        return {
            "name": cells // len(known),
            "sample": cells % len(known),
            "count": np.bincount(row, minlength=len(cells)).astype(np.float64),
            "sum": np.bincount(row, attribution, len(cells)),
            "abs": np.bincount(row, np.abs(attribution), len(cells)),
            "positive": np.bincount(row, attribution > 0, len(cells)),
        }

    def _name_rows(self, batch: pa.RecordBatch) -> np.ndarray:
        """The number of each row's name in `_names`, int64 `[rows]`."""
        feature, features = _encoded(batch["feature"])
        code, codes = _encoded(batch["code"])
        slot = batch["slot"].to_numpy().astype(np.int64)
        # One number per code; unnamed dimensions are negative.
        inner = np.where(code < 0, -1 - slot, code)
        measured = batch["value"].is_valid().to_numpy(zero_copy_only=False)
        packed, row = np.unique(((feature << 40) + inner + _MIDDLE) * 2 + measured, return_inverse=True)
        pairs = zip(packed >> 41, ((packed >> 1) & ((1 << 40) - 1)) - _MIDDLE, packed & 1, strict=True)
        texts = [(features[f], codes[i] if i >= 0 else f"dimension {-1 - i}", bool(valid)) for f, i, valid in pairs]
        valued = np.bincount(feature, measured, len(features))
        for name, count in zip(features, valued, strict=True):
            self._has_values[name] = self._has_values.get(name, False) or bool(count)
        numbers = [self._names.setdefault(text, len(self._names)) for text in texts]
        return np.array(numbers, dtype=np.int64)[row]

    def _target_of(self, samples: pa.Table) -> np.ndarray:
        """The place of each sample's target in `_targets`, int64 `[samples]`; −1 beyond `MOST_GROUPS` + 1 targets."""
        known, place = np.unique(samples["target"].fill_null(0).to_numpy(), return_inverse=True)
        for target in known.tolist():
            if len(self._targets) <= MOST_GROUPS:
                self._targets.setdefault(target, len(self._targets))
        return np.array([self._targets.get(target, -1) for target in known.tolist()], np.int64)[place]

    @property
    def targets(self) -> int:
        """The number of targets; `MOST_GROUPS` + 1 stands for more too."""
        return len(self._targets)

    def _add_grouping(
        self, number: int, group: np.ndarray, target: np.ndarray, cells: dict[str, np.ndarray], hashes: np.ndarray
    ) -> None:
        """Adds a part's cells to the sums of one grouping; `group` and `target` are int64 `[cells]`."""
        inside = (group >= 0) & (target >= 0)
        shape = (int(group.max(initial=0)) + 1, len(self._targets), len(self._names))
        packed = np.ravel_multi_index((group[inside], target[inside], cells["name"][inside]), shape)
        keys, row = np.unique(packed, return_inverse=True)
        rows = self._rows_of((number, *map(int, key)) for key in zip(*np.unravel_index(keys, shape), strict=True))
        for column, name in enumerate(_SUMS):
            self._sums[rows, column] += np.bincount(row, cells[name][inside], len(keys))
        for first in range(0, len(hashes), _BLOCK):
            drawn = weights(hashes[first : first + _BLOCK], self._replicates, self._seed).astype(np.float64)
            here = cells["sample"][inside] // _BLOCK == first // _BLOCK
            place = row[here], cells["sample"][inside][here] - first
            for name, total in (("sum", self._replicate_sums), ("count", self._replicate_counts)):
                matrix = sparse.csr_array((cells[name][inside][here], place), shape=(len(keys), len(drawn)))
                total[rows] += (matrix @ drawn).astype(np.float32)

    def _rows_of(self, keys: Iterable[tuple[int, ...]]) -> np.ndarray:
        """The row of each key in the arrays, int64; arrays grow for new keys."""
        rows = np.array([self._rows.setdefault(key, len(self._rows)) for key in keys], dtype=np.int64)
        missing = len(self._rows) - len(self._sums)
        if missing > 0:
            more = max(missing, len(self._sums) // 2)
            self._sums, self._replicate_sums, self._replicate_counts = (
                np.concatenate([array, np.zeros((more, array.shape[1]), array.dtype)])
                for array in (self._sums, self._replicate_sums, self._replicate_counts)
            )
        return rows


def _encoded(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """A text column as int64 places in a list of texts, −1 for null, and that list."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    places = column.indices.fill_null(-1).to_numpy().astype(np.int64)
    return places, column.dictionary.cast(pa.string()).to_pylist()


def _patient_hashes(samples: pa.Table) -> np.ndarray:
    """A hash of each sample's patient, uint64 `[samples]`; a sample without `patient_id` is its own patient."""
    patients = samples["patient_id"].cast(pa.string()).to_numpy(zero_copy_only=False)
    lone = np.array([f"sample {number}" for number in samples["sample"].to_pylist()], dtype=object)
    return hash_texts(np.where(pd.isna(patients), lone, patients))
