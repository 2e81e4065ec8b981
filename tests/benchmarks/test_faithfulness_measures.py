"""The measures of the faithfulness study on games whose answer is known."""

import numpy as np
import pytest
import torch
from faithfulness_measures import (
    SETS,
    agreement,
    flipped,
    infidelity,
    planted_auroc,
    removals,
    sensitivity_n,
    spearman,
)

WEIGHTS = np.array([3.0, -2.0, 0.5, 1.0, -0.25, 4.0])


class Linear:
    """A game in which each player adds its weight."""

    players = len(WEIGHTS)

    def values(self, kept):
        return 7 + kept.double() @ torch.from_numpy(WEIGHTS)


@pytest.fixture
def removed():
    return removals(Linear(), seed=1)


def test_sets_have_every_size_up_to_all_but_one(removed):
    assert removed.sets.shape == (5, SETS, 6)
    assert (removed.sets.sum(-1) == np.arange(1, 6)[:, None]).all()
    np.testing.assert_allclose(removed.lost, removed.sets @ WEIGHTS)


def test_the_weights_of_a_linear_model_are_perfect(removed):
    assert sensitivity_n(WEIGHTS, removed) == pytest.approx(1)
    assert infidelity([WEIGHTS], [removed]) == pytest.approx(0, abs=1e-20)


def test_sensitivity_does_not_see_the_scale_and_infidelity_does(removed):
    assert sensitivity_n(2 * WEIGHTS, removed) == pytest.approx(1)
    assert sensitivity_n(-WEIGHTS, removed) == pytest.approx(-1)
    lost = removed.lost
    assert infidelity([2 * WEIGHTS], [removed]) == pytest.approx((lost**2).mean() / lost.var())
    assert infidelity([0 * WEIGHTS], [removed]) == pytest.approx((lost**2).mean() / lost.var())


def test_infidelity_is_summed_over_patients_first(removed):
    lost = removed.lost
    expected = (lost**2).mean() / (2 * lost.var())
    assert infidelity([WEIGHTS, 0 * WEIGHTS], [removed, removed]) == pytest.approx(expected)


def test_contributions_that_say_nothing_correlate_with_nothing(removed):
    assert sensitivity_n(0 * WEIGHTS, removed) == 0
    assert spearman(np.ones(6), WEIGHTS) == 0


def test_spearman_shares_ranks():
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 8, 9])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 2, 5]), np.array([4.0, 3, 2, 1])) == pytest.approx(-3 / np.sqrt(10))


def test_planted_auroc_counts_real_tokens():
    tokens = torch.tensor([[[4, 5], [6, 0]], [[4, 7], [0, 0]]])
    contributions = torch.tensor([[[0.9, 0.1], [0.2, 5.0]], [[0.15, 0.0], [5.0, 5.0]]])
    # code 4 has 0.9 and 0.15, the others 0.1, 0.2 and 0.0: of six pairs five are in order
    assert planted_auroc(tokens, contributions, torch.tensor([4])) == pytest.approx(5 / 6)


def test_signs_that_flip_are_counted_over_pairs_of_draws_and_codes():
    draws = [[np.array([1.0, -1.0]), np.array([2.0])], [np.array([1.0, 1.0]), np.array([-2.0])]]
    assert flipped(draws) == pytest.approx(2 / 3)
    assert flipped([*draws, draws[0]]) == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)


def test_draws_agree_by_rank_and_wholly_if_they_are_equal():
    up, down, flat = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0]), np.ones(3)
    assert agreement([[up, up], [down, 2 * up]]) == pytest.approx(0)
    assert agreement([[flat], [flat]]) == 1
