"""The game of removal and its Shapley values, against the records written out by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from faithfulness_hospital import KEY, MODELS, hospital, interpretable
from faithfulness_reference import Game, antithetic, shapley

pytestmark = pytest.mark.filterwarnings("ignore:Feature 'codes' does not have")

RECORD = {"visits": [[5], [2, 9]], "flat": [5, 2, 9]}
PADDED = {"visits": [[5, 0, 0], [0, 0, 0], [2, 9, 0]], "flat": [5, 2, 9, 0, 0]}


@pytest.fixture(params=MODELS)
def model(request):
    """Each model untrained, with the form of its records."""
    kind = MODELS[request.param]
    torch.manual_seed(0)
    made = interpretable(kind.make(hospital(1, kind.flat).dataset)).eval()
    return made, "flat" if kind.flat else "visits"


def _without(form, kept):
    """The record of the kept codes: without the others, and without visits that they leave empty."""
    if form == "flat":
        return [code for code in RECORD[form] if code in kept]
    visits = [[code for code in visit if code in kept] for visit in RECORD[form]]
    return [visit for visit in visits if visit]


def _logit(model, form, kept):
    """Straight from the model, for a record with at least one code."""
    record = _without(form, kept)
    width = max(map(len, record)) if form == "visits" else None
    rows = [visit + [0] * (width - len(visit)) for visit in record] if form == "visits" else record
    with torch.no_grad():
        return float(model(**{KEY: torch.tensor([rows])})["logit"])


def _nothing(model, form):
    """No code, but the mask of all of them."""
    codes = torch.tensor([RECORD[form]] if form == "flat" else [[[5, 0], [2, 9]]])
    with torch.no_grad():
        embedded = torch.zeros(*codes.shape, 32)
        return float(model.forward_from_embedding(**{KEY: (embedded, (codes != 0).int())})["logit"])


def test_a_coalition_is_the_record_without_the_other_codes(model):
    made, form = model
    kept = list(itertools.product((False, True), repeat=3))
    found = Game(made, torch.tensor(PADDED[form])).values(torch.tensor(kept))
    codes = [[code for code, there in zip((5, 2, 9), row, strict=True) if there] for row in kept]
    expected = [_logit(made, form, each) if each else _nothing(made, form) for each in codes]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    assert len(set(found.tolist())) == len(kept)


def test_all_permutations_give_the_shapley_values(model):
    made, form = model
    found = shapley(Game(made, torch.tensor(PADDED[form])), [np.array(p) for p in itertools.permutations(range(3))])

    def value(kept):
        return _logit(made, form, kept) if kept else _nothing(made, form)

    for player, code in enumerate((5, 2, 9)):
        others = [each for each in (5, 2, 9) if each != code]
        exact = 0.0
        for size in range(3):
            weight = math.factorial(size) * math.factorial(2 - size) / math.factorial(3)
            exact += weight * sum(value([*s, code]) - value([*s]) for s in itertools.combinations(others, size))
        assert float(found[:, player].mean()) == pytest.approx(exact, rel=1e-4, abs=1e-6)


def test_every_permutation_shares_out_the_whole(model):
    made, form = model
    game = Game(made, torch.tensor(PADDED[form]))
    ends = game.values(torch.tensor([[False] * 3, [True] * 3]))
    added = shapley(game, antithetic(game.players, 8, seed=1))
    torch.testing.assert_close(added.sum(1), (ends[1] - ends[0]).expand(8), rtol=1e-4, atol=1e-6)


def test_permutations_come_in_pairs_the_second_the_reverse_of_the_first():
    found = antithetic(5, 4, seed=1)
    assert [sorted(each.tolist()) for each in found] == [list(range(5))] * 4
    assert found[1].tolist() == found[0].tolist()[::-1]
    assert found[3].tolist() == found[2].tolist()[::-1]
    assert found[0].tolist() != found[2].tolist()
    with pytest.raises(ValueError, match="permutations is 3; accepted: an even number"):
        antithetic(5, 3, seed=1)
