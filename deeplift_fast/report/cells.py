"""Reads a part's attributions as cells: the sums of one sample's attributions to one code or dimension."""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.has_values import HasValues

_READ = ("sample", "feature", "slot", "code", "measured", "value", "attribution")
_MIDDLE = 1 << 39


@dataclass(frozen=True)
class Cells:
    """Sums per sample and name, `[cells]` each; a name is a number of the :class:`CellReader`.

    Attributes:
        name: int64.
        sample: place among the part's samples, int64.
        count: number of attributions, float64.
        sum: their sum, float64.
        abs: sum of |attribution|, float64.
        positive: number of positive attributions, float64.
        newest: the newest measured value, float64; NaN without one.
    """

    name: np.ndarray
    sample: np.ndarray
    count: np.ndarray
    sum: np.ndarray
    abs: np.ndarray
    positive: np.ndarray
    newest: np.ndarray

    def merged(self, names: np.ndarray, samples: int) -> "Cells":
        """The cells with other names; cells of one sample that get the same name become one.

        Args:
            names: the new name of each cell, int64 `[cells]`.
            samples: number of the part's samples.
        """
        keys, place = np.unique(names * samples + self.sample, return_inverse=True)
        sums = [np.bincount(place, each, len(keys)) for each in (self.count, self.sum, self.abs, self.positive)]
        newest = np.full(len(keys), np.nan)
        known = ~np.isnan(self.newest)
        newest[place[known]] = self.newest[known]  # the last one stays
        of = max(samples, 1)
        return Cells(keys // of, keys % of, sums[0], sums[1], sums[2], sums[3], newest)


_COLUMNS = tuple(each.name for each in fields(Cells))


class CellReader:
    """Reads parts, and numbers the codes and dimensions that they name."""

    def __init__(self) -> None:
        self.codes: dict[tuple[str, str], int] = {}
        """The number of each feature and code or dimension."""
        self.names: dict[tuple[str, str, bool], int] = {}
        """The number of each feature, code or dimension, and whether its rows have a value."""
        self.features: dict[str, HasValues] = {}
        """The signs of values in a feature's rows."""
        self._code_of: list[int] = []

    def read(self, folder: CohortFolder, part: int, samples: np.ndarray) -> Cells:
        """The cells of a finished part, by :attr:`names`; rows with and without a value are in separate cells.

        Args:
            folder: the cohort.
            part: the part's number.
            samples: numbers of its samples, int64, ascending.

        Raises:
            SummaryError: if its attributions are missing or damaged, or name other samples.
        """
        pieces = [self._cells_of(batch, samples, part) for batch in folder.attributions(part, _READ)]
        if not pieces:
            return Cells(**{name: np.zeros(0, np.int64 if name in ("name", "sample") else float) for name in _COLUMNS})
        joined = Cells(**{name: np.concatenate([vars(piece)[name] for piece in pieces]) for name in _COLUMNS})
        # The rows of one sample may lie in two batches.
        return joined.merged(joined.name, len(samples))

    def by_code(self, cells: Cells, samples: int) -> Cells:
        """The same cells by :attr:`codes`, whether rows have a value or not."""
        return cells.merged(np.array(self._code_of, np.int64)[cells.name], samples)

    def _cells_of(self, batch: pa.RecordBatch, known: np.ndarray, part: int) -> Cells:
        number = batch["sample"].to_numpy()
        place = np.searchsorted(known, number)
        if len(known) == 0 or (known[np.minimum(place, len(known) - 1)] != number).any():
            raise SummaryError(
                f"part {part}: its attributions name samples that its samples table lacks; start the cohort over with "
                "--force"
            )
        attribution = batch["attribution"].to_numpy().astype(np.float64)
        value = batch["value"].to_numpy(zero_copy_only=False).astype(np.float64)
        rows = Cells(
            self._name_rows(batch),
            place,
            np.ones(len(place)),
            attribution,
            np.abs(attribution),
            (attribution > 0).astype(np.float64),
            value,
        )
        return rows.merged(rows.name, len(known))

    def _name_rows(self, batch: pa.RecordBatch) -> np.ndarray:
        """The number of each row's name in `names`, int64 `[rows]`."""
        feature, features = encoded(batch["feature"])
        code, codes = encoded(batch["code"])
        slot = batch["slot"].to_numpy().astype(np.int64)
        # One number per code; unnamed dimensions are negative.
        inner = np.where(code < 0, -1 - slot, code)
        measured = batch["value"].is_valid().to_numpy(zero_copy_only=False)
        packed, row = np.unique(((feature << 40) + inner + _MIDDLE) * 2 + measured, return_inverse=True)
        pairs = zip(packed >> 41, ((packed >> 1) & ((1 << 40) - 1)) - _MIDDLE, packed & 1, strict=True)
        texts = [(features[f], codes[i] if i >= 0 else f"dimension {-1 - i}", bool(valid)) for f, i, valid in pairs]
        self._note_values(batch, feature, features, measured)
        return np.array([self._number(text) for text in texts], dtype=np.int64)[row]

    def _note_values(self, batch: pa.RecordBatch, feature: np.ndarray, names: list[str], known: np.ndarray) -> None:
        said = batch["measured"].fill_null(False).to_numpy(zero_copy_only=False)
        gap = batch["measured"].is_valid().to_numpy(zero_copy_only=False) & ~said
        counts = [np.bincount(feature, each, len(names)) > 0 for each in (known, gap, said & ~known)]
        for name, *signs in zip(names, *counts, strict=True):
            self.features[name] = self.features.get(name, HasValues()).merged(HasValues(*map(bool, signs)))

    def _number(self, name: tuple[str, str, bool]) -> int:
        if name not in self.names:
            self.names[name] = len(self.names)
            self._code_of.append(self.codes.setdefault(name[:2], len(self.codes)))
        return self.names[name]


def encoded(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """A text column as int64 places in a list of texts, −1 for null, and that list."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    places = column.indices.fill_null(-1).to_numpy().astype(np.int64)
    return places, column.dictionary.cast(pa.string()).to_pylist()
