"""The table `interactions` of a part, made from the columns of its batches.

Rows are ordered by sample in the dataset's order, then by the first and by the second code: by feature in the model's
order, then by text. So a pair of codes is written in the same way in every sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from deeplift_fast.cohort.columns import numbers
from deeplift_fast.cohort.tables import INTERACTIONS

if TYPE_CHECKING:
    from deeplift_fast.cohort.part_tables import Texts
    from deeplift_fast.pyhealth.interactions import Interactions


@dataclass(frozen=True)
class PairColumns:
    """The rows that a batch adds to `interactions`, `[rows]` each; the rows of a sample are together, in order.

    Attributes:
        sample: number of the sample, int64.
        first_feature: place of the first code's feature in the model's keys, int32.
        first_code: its text as a number of :class:`deeplift_fast.cohort.part_tables.Texts`, int32.
        second_feature: likewise of the second code.
        second_code: likewise.
        interaction: float32, as are all below.
        first_contribution: contribution of the first code.
        second_contribution: contribution of the second code.
        output_without_first: output with the first code at the baseline.
        output_without_second: output with the second code at the baseline.
    """

    sample: np.ndarray
    first_feature: np.ndarray
    first_code: np.ndarray
    second_feature: np.ndarray
    second_code: np.ndarray
    interaction: np.ndarray
    first_contribution: np.ndarray
    second_contribution: np.ndarray
    output_without_first: np.ndarray
    output_without_second: np.ndarray

    def not_finite(self) -> np.ndarray:
        """Numbers of the samples with a number that is not finite."""
        finite = np.all([np.isfinite(vars(self)[name]) for name in _NAMES[5:]], axis=0)
        return np.unique(self.sample[~finite])

    def of(self, samples: np.ndarray) -> "PairColumns":
        """The rows of these samples, by their numbers."""
        kept = np.isin(self.sample, samples)
        return PairColumns(**{name: column[kept] for name, column in vars(self).items()})


_NAMES = tuple(each.name for each in fields(PairColumns))
_WHOLE = {"sample": np.int64, **dict.fromkeys(_NAMES[1:5], np.int32)}


def pair_columns(texts: "Texts", keys: Sequence[str], found: "Interactions", which: np.ndarray) -> PairColumns:
    """The rows that a batch adds to `interactions`.

    Args:
        texts: the texts of the explained model.
        keys: the model's features, in order.
        found: the interactions of the batch.
        which: numbers of its samples, int64 `[batch]`.
    """
    feature, code, order = _players(texts, keys, found)
    first, second = np.triu_indices(order.shape[1], 1)
    row, pair = np.nonzero(order[:, second] >= 0)
    i, j = order[row, first[pair]], order[row, second[pair]]
    values, contributions, without = (
        numbers(each).astype(np.float32, copy=False) for each in (found.values, found.contributions, found.without)
    )
    return PairColumns(
        sample=which[row],
        first_feature=feature[row, i],
        first_code=code[row, i],
        second_feature=feature[row, j],
        second_code=code[row, j],
        interaction=values[row, i, j],
        first_contribution=contributions[row, i],
        second_contribution=contributions[row, j],
        output_without_first=without[row, i],
        output_without_second=without[row, j],
    )


def joined(pairs: Sequence[PairColumns]) -> PairColumns:
    """The rows of several batches, ordered by sample."""
    empty = {name: np.empty(0, _WHOLE.get(name, np.float32)) for name in _NAMES}
    each = {name: np.concatenate([empty[name], *(getattr(part, name) for part in pairs)]) for name in _NAMES}
    order = np.argsort(each["sample"], kind="stable")
    return PairColumns(**{name: column[order] for name, column in each.items()})


def interactions_table(
    pairs: Sequence[PairColumns],
    begin: int,
    identifiers: Mapping[str, Sequence[str | None]],
    keys: Sequence[str],
    texts: "Texts",
) -> pa.Table:
    """The table `interactions` of a part; arguments as for :func:`deeplift_fast.cohort.part_tables.part_tables`."""
    rows = joined(pairs)
    of_sample = pa.array(rows.sample - begin)
    columns: dict[str, Any] = dict(vars(rows))
    for name, given in identifiers.items():
        columns[name] = pa.array(given, pa.string()).dictionary_encode().take(of_sample)
    named = pa.array(list(keys), pa.string())
    for name in ("first", "second"):
        columns[f"{name}_feature"] = pa.DictionaryArray.from_arrays(pa.array(columns[f"{name}_feature"]), named)
        columns[f"{name}_code"] = texts.dictionary(columns[f"{name}_code"])
    return pa.table({name: columns[name] for name in INTERACTIONS.names}, schema=INTERACTIONS)


def _players(texts: "Texts", keys: Sequence[str], found: "Interactions") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Feature and text of each player, and the places of each sample's players in the order of the table.

    Each is int32 `[batch, players]`; where a sample has fewer players, it is -1.
    """
    shape = len(found.players), found.values.shape[-1]
    counts = np.array([len(players) for players in found.players], np.int64)
    row = np.repeat(np.arange(shape[0]), counts)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    number = {key: n for n, key in enumerate(keys)}
    every = [player for players in found.players for player in players]
    feature = np.array([number[player.feature] for player in every], np.int32)
    token = np.array([player.token for player in every], np.int64)
    code = np.zeros(len(every), np.int32)
    for n, key in enumerate(keys):
        if (mine := feature == n).any():
            code[mine] = texts.of_tokens(key, token[mine])
    known, which = np.unique(code, return_inverse=True)
    by_text = np.argsort(np.argsort(np.array([texts.text(n) for n in known.tolist()], object)))
    ordered = place[np.lexsort((place, by_text[which], feature, row))]
    columns = np.full((3, *shape), -1, np.int32)
    columns[:, row, place] = feature, code, ordered
    return columns[0], columns[1], columns[2]
