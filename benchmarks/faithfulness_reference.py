"""The game of removal: each code of a patient's record is kept or deleted. And its Shapley values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from faithfulness_hospital import KEY
from torch import Tensor

ROWS = 4096  # coalitions per pass of the model


class Game:
    """A model's logit for a patient with some of the codes.

    A player is one code of the record; repeated codes are separate players. Codes outside a coalition are deleted, and
    so are visits without codes. If no code is left, the mask stays and the codes are embedded as zeros.

    Args:
        model: a model of PyHealth with `forward_from_embedding`, in eval mode.
        codes: a patient's codes, int64 `[codes]` or `[visits, codes]`, 0 for padding.
    """

    def __init__(self, model: Any, codes: Tensor) -> None:
        self._model = model
        self._codes = codes
        self._real = codes != 0
        self.players = int(self._real.sum())

    def values(self, kept: Tensor) -> Tensor:
        """The logits, float64 `[coalitions]`, of coalitions, bool `[coalitions, players]`."""
        records = torch.zeros(len(kept), *self._codes.shape, dtype=self._codes.dtype)
        records[:, self._real] = self._codes[self._real] * kept
        different, where = np.unique(_closed_up(records).flatten(1).numpy(), axis=0, return_inverse=True)
        found = self._logits(torch.from_numpy(different).unflatten(1, self._codes.shape))
        return found[torch.from_numpy(where).flatten()]

    def _logits(self, records: Tensor) -> Tensor:
        found = torch.empty(len(records), dtype=torch.float64)
        nothing = (records == 0).flatten(1).all(1)
        with torch.no_grad():
            for rows in torch.nonzero(~nothing).flatten().split(ROWS):
                found[rows] = self._model(**{KEY: records[rows]})["logit"][:, 0].double()
            if nothing.any():
                found[nothing] = self._empty().double()
        return found

    def _empty(self) -> Tensor:
        codes = _closed_up(self._codes[None])
        embedded = torch.zeros_like(self._model.get_embedding_model()({KEY: codes})[KEY])
        return self._model.forward_from_embedding(**{KEY: (embedded, (codes != 0).int())})["logit"][0, 0]


def _closed_up(records: Tensor) -> Tensor:
    """Moves padding to the end, within visits and among visits; the order of codes within a visit does not matter."""
    records = records.sort(dim=-1, descending=True).values
    if records.dim() == 2:
        return records
    order = (records[..., 0] == 0).int().argsort(dim=1, stable=True)
    return records.gather(1, order[..., None].expand_as(records))


def antithetic(players: int, count: int, seed: int) -> list[np.ndarray]:
    """`count` permutations of the players in pairs, the second the reverse of the first.

    Mitchell et al. 2022, "Sampling Permutations for Shapley Value Estimation".
    """
    if count < 2 or count % 2:
        raise ValueError(f"permutations is {count}; accepted: an even number of 2 or more (permutations form pairs)")
    draw = np.random.default_rng(seed)
    pairs = [draw.permutation(players) for _ in range(count // 2)]
    return [each for order in pairs for each in (order, order[::-1])]


def shapley(game: Game, permutations: Sequence[np.ndarray]) -> Tensor:
    """The gain of each player over the players before it, float64 `[permutations, players]`.

    Its mean over permutations estimates the Shapley values.
    """
    places = torch.from_numpy(np.stack([np.argsort(order) for order in permutations]))  # of each player
    sizes = torch.arange(game.players + 1)
    kept = places[:, None, :] < sizes[None, :, None]
    values = game.values(kept.flatten(0, 1)).unflatten(0, (len(permutations), game.players + 1))
    return values.diff(dim=1).gather(1, places)
