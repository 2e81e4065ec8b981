"""The first linear layer of an MLP taken into the embedding table, and the op for the first layers of few samples."""

import pytest
import torch
from fused_cases import SEQUENCE, batch_of, both_routes, dataset, distance, make, patients
from pyhealth.models import MLP

from deeplift_fast.pyhealth.fused.mlp import IN_ONE_OP, FirstLayers, Projected


@pytest.fixture
def tables(monkeypatch):
    """The tables that calls took."""
    taken, table = [], Projected.table

    def taking(self):
        taken.append(table(self))
        return taken[-1]

    monkeypatch.setattr(Projected, "table", taking)
    return taken


def case(hidden_dim=6, samples=40):
    data = dataset(SEQUENCE, patients(samples))
    return make(MLP, data, embedding_dim=8, hidden_dim=hidden_dim), batch_of(data)


@pytest.mark.parametrize("rules", ["rescale", "pyhealth", "complete"])
@pytest.mark.parametrize("bias", [True, False])
def test_same_numbers(tables, rules, bias):
    model, batch = case()
    if not bias:
        for layers in model.mlp.values():
            layers[0].register_parameter("bias", None)
    assert distance(*both_routes(model, batch, rules)) < 1e-9
    assert len(tables) == len(SEQUENCE)


def test_same_numbers_on_the_way(tables):
    model, batch = case()
    assert distance(*both_routes(model, batch, "complete", steps=3)) < 1e-9
    assert tables


@pytest.mark.parametrize("counted", [True, False])
def test_changed_weights_make_it_anew(tables, counted):
    model, batch = case()
    both_routes(model, batch, "complete")
    for weight in (model.embedding_model.embedding_layers["a"].weight, model.mlp["a"][0].weight):
        with torch.no_grad():
            (weight if counted else weight.data)[-1] *= 3
        assert distance(*both_routes(model, batch, "complete")) < 1e-9
    assert len({id(table) for table in tables}) >= 3


def test_the_table_is_kept(tables):
    model, batch = case()
    both_routes(model, batch, "complete")
    both_routes(model, batch, "complete")
    assert tables[0] is tables[2]


def test_few_tokens_are_not_worth_a_look_at_the_whole_table(tables):
    model, batch = case()
    assert distance(*both_routes(model, {key: value[:1] for key, value in batch.items()}, "complete")) < 1e-9
    assert not tables


def test_longer_rows_do_not_pay(tables):
    model, batch = case(hidden_dim=9)
    assert distance(*both_routes(model, batch, "complete")) < 1e-9
    assert not tables


@pytest.mark.parametrize(
    ("samples", "rules", "sizes"),
    [
        (5, "rescale", {"n_layers": 3}),
        (5, "pyhealth", {"activation": "sigmoid"}),
        (5, "complete", {"activation": "elu"}),
        (5, "complete", {"n_layers": 1}),
        (40, "complete", {"activation": "tanh", "n_layers": 3}),
    ],
)
def test_a_single_logit(samples, rules, sizes):
    """Its multipliers go back as one row for all samples; few samples have one tensor of both streams."""
    data = dataset(SEQUENCE, [{**each, "label": i % 2} for i, each in enumerate(patients(samples))], "binary")
    model = make(MLP, data, embedding_dim=8, hidden_dim=6, **sizes)
    fused, generic = both_routes(model, batch_of(data), rules)
    assert distance(fused, generic) < 1e-9
    assert torch.allclose(fused.output, generic.output, rtol=1e-12)
    assert torch.allclose(fused.baseline_output, generic.baseline_output, rtol=1e-12)


def test_a_single_logit_on_the_way():
    data = dataset(SEQUENCE, [{**each, "label": i % 2} for i, each in enumerate(patients(5))], "binary")
    model = make(MLP, data, embedding_dim=8, hidden_dim=6)
    assert distance(*both_routes(model, batch_of(data), "complete", steps=3)) < 1e-9


@pytest.fixture
def runs(monkeypatch):
    """The functions of :class:`FirstLayers` that ran, as a list that grows."""
    found, run = [], FirstLayers.run

    def running(self, *given):
        found.append(self._function)
        return run(self, *given)

    monkeypatch.setattr(FirstLayers, "run", running)
    return found


@pytest.mark.parametrize("samples", [1, IN_ONE_OP])
@pytest.mark.parametrize(
    ("rules", "baseline", "steps", "sizes"),
    [
        ("rescale", "unk", 1, {"activation": "tanh"}),
        ("complete", "removed", 1, {"n_layers": 4}),
        ("complete", {"a": torch.linspace(-1, 1, 8).double()}, 3, {"activation": "sigmoid"}),
    ],
)
def test_few_samples_take_one_op(runs, samples, rules, baseline, steps, sizes):
    data = dataset(SEQUENCE, patients(samples))
    model = make(MLP, data, embedding_dim=8, hidden_dim=6, **sizes)
    assert distance(*both_routes(model, batch_of(data), rules, baseline=baseline, steps=steps)) < 1e-9
    assert runs[-2:] == [sizes.get("activation", "relu")] * 2


def test_more_samples_do_not(runs):
    model, batch = case(samples=IN_ONE_OP + 1)
    both_routes(model, batch, "complete")
    assert len(runs) == 2  # those of the check against the model, which takes few


def test_wide_layers_do_not(runs):
    model, batch = case(hidden_dim=1024, samples=2)  # 1,056,768 weights
    assert distance(*both_routes(model, batch, "complete")) < 1e-9
    assert not runs


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers[0].register_parameter("bias", None),
        lambda layers: layers.__setitem__(1, torch.nn.ELU()),
        lambda layers: layers[2].weight.set_(layers[2].weight.detach().t().contiguous().t()),
    ],
)
def test_layers_that_the_op_does_not_take(runs, change):
    model, batch = case(samples=3)
    with torch.no_grad():
        for layers in model.mlp.values():
            change(layers)
    assert distance(*both_routes(model, batch, "complete")) < 1e-9
    assert not runs


def test_a_mask_of_numbers_is_not_for_the_op(runs):
    model, batch = case(samples=3)
    batch = {**batch, **{key: (batch[key], (batch[key] != 0).float()) for key in SEQUENCE}}
    assert distance(*both_routes(model, batch, "complete")) < 1e-9
    assert not runs


@pytest.mark.parametrize("counted", [True, False])
def test_changed_weights_are_read(runs, counted):
    model, batch = case(samples=3)
    both_routes(model, batch, "complete")
    for weight in (model.embedding_model.embedding_layers["a"].weight, model.mlp["a"][2].weight):
        with torch.no_grad():
            (weight if counted else weight.data)[-1] *= 3
        assert distance(*both_routes(model, batch, "complete")) < 1e-9
    assert runs
