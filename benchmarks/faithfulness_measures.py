"""The measures of contributions in the faithfulness study."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from faithfulness_reference import Game
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from torch import Tensor

SIZES, SETS = 8, 32  # sizes of removed sets, and sets of each size


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 if `a` or `b` is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; equal values share their mean rank; 0 if `a` or `b` is constant."""
    return pearson(rankdata(a), rankdata(b))


def planted_auroc(tokens: Tensor, contributions: Tensor, planted: Tensor) -> float:
    """AUROC of contributions as scores of planted codes against all others, over the real tokens of a batch."""
    real = tokens != 0
    return float(roc_auc_score(torch.isin(tokens, planted)[real], contributions[real]))


@dataclass(frozen=True)
class Removals:
    """Sets of a patient's codes, and the drop of the logit without each set.

    Attributes:
        sets: bool `[sizes, sets, players]`, the removed codes; all sets of one row have the same size.
        lost: float64 `[sizes, sets]`, the logit of the whole record minus the logit without the set.
    """

    sets: np.ndarray
    lost: np.ndarray


def removals(game: Game, seed: int) -> Removals:
    """Random sets of up to 8 sizes, evenly spaced from 1 to all codes but one; 32 of each size."""
    draw = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(1, game.players - 1, SIZES).round().astype(int))
    places = draw.random((len(sizes), SETS, game.players)).argsort(-1).argsort(-1)
    sets = places < sizes[:, None, None]
    everyone = torch.ones(1, game.players, dtype=torch.bool)
    values = game.values(torch.cat([everyone, ~torch.from_numpy(sets).flatten(0, 1)])).numpy()
    return Removals(sets, (values[0] - values[1:]).reshape(sets.shape[:2]))


def sensitivity_n(contributions: np.ndarray, removed: Removals) -> float:
    """Correlation of a set's contributions with the drop of the logit, over sets of one size; the mean over sizes.

    Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods for deep neural networks".
    """
    claimed = removed.sets @ contributions
    return float(np.mean([pearson(*pair) for pair in zip(claimed, removed.lost, strict=True)]))


def infidelity(contributions: Sequence[np.ndarray], removed: Sequence[Removals]) -> float:
    """Mean squared difference of a set's contributions and the drop of the logit, divided by the drop's variance.

    Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations", with the removal of codes as perturbation.
    Both are summed over patients before the division. 0 is perfect; 1 is as good as the mean drop for every set of a
    patient.
    """
    pairs = zip(contributions, removed, strict=True)
    off = sum(((each.sets @ given - each.lost) ** 2).mean() for given, each in pairs)
    return float(off / sum(each.lost.var() for each in removed))


def flipped(draws: Sequence[Sequence[np.ndarray]]) -> float:
    """The share of codes whose contribution changes its sign between draws.

    Args:
        draws: contributions by draw and patient.

    Returns:
        The mean over pairs of draws and over all codes.
    """
    together = np.sign([np.concatenate(draw) for draw in draws])
    return float(np.mean([(a != b).mean() for a, b in combinations(together, 2)]))


def agreement(draws: Sequence[Sequence[np.ndarray]]) -> float:
    """Spearman's correlation between draws, as mean over pairs of draws and patients; 1 for equal contributions."""
    pairs = [pair for one, other in combinations(draws, 2) for pair in zip(one, other, strict=True)]
    return float(np.mean([1.0 if np.array_equal(a, b) else spearman(a, b) for a, b in pairs]))
