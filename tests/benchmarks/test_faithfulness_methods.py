"""Every method of the faithfulness study on every model."""

import faithfulness_cell
import pytest
import torch
from faithfulness_hospital import KEY, MODELS, collate, hospital, interpretable
from faithfulness_methods import DEFAULT, METHODS, OURS, Subject
from faithfulness_reference import Game

CHEFER = "PyHealth's Chefer relevance"


@pytest.fixture(params=MODELS)
def subject(request):
    """Each model untrained."""
    kind = MODELS[request.param]
    data = hospital(1, kind.flat)
    torch.manual_seed(0)
    model = kind.make(data.dataset).eval()
    return Subject(model, interpretable(model), data, seed=1)


@pytest.mark.filterwarnings("ignore")
def test_each_method_gives_one_number_per_code_or_does_not_take_the_model(subject):
    batch = collate(subject.data.held_out[:3])
    made = {name: make(subject) for name, make in METHODS.items()}
    not_taken = {name for name, contribute in made.items() if contribute is None}
    has_attention = type(subject.model).__name__ in ("Transformer", "StageAttentionNet")
    assert not_taken == (set() if has_attention else {CHEFER})
    for name in made.keys() - not_taken:
        found = made[name](batch)
        assert found.shape == batch[KEY].shape, name
        assert found.isfinite().all(), name
        if name in OURS:
            assert not found[batch[KEY] == 0].any(), name


@pytest.mark.filterwarnings("ignore")
def test_the_default_adds_up_to_the_game_with_every_code_less_that_with_none(subject):
    samples = subject.data.held_out[:3]
    found = METHODS[DEFAULT](subject)(collate(samples)).flatten(1).sum(1)
    for sample, total in zip(samples, found, strict=True):
        game = Game(subject.entered, sample[KEY])
        nothing, everything = game.values(torch.tensor([[False] * game.players, [True] * game.players]))
        torch.testing.assert_close(float(total), float(everything - nothing), rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_redrawing_the_unknown_code_changes_no_prediction_and_is_undone(subject):
    batch = collate(subject.data.held_out[:3])
    weight = subject.model.embedding_model.embedding_layers[KEY].weight
    before = weight.detach().clone()
    with torch.no_grad():
        logits = subject.model(**batch)["logit"]
        rows = []
        for _ in faithfulness_cell.redrawn(subject.model, 1):
            rows.append(weight[1].clone())
            assert torch.equal(subject.model(**batch)["logit"], logits)
    assert len({tuple(row.tolist()) for row in rows}) == faithfulness_cell.DRAWS
    assert torch.equal(weight, before)
