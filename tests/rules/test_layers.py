"""Layers with one rule for all of their operations, against the same layers operation by operation."""

import warnings

import pytest
import torch
from torch import nn

from deeplift_fast import attribute
from deeplift_fast.errors import TrainingModeWarning
from deeplift_fast.rules import layers


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Recurrent(nn.Module):
    """A recurrent layer, and the parts of its result that `read` takes."""

    def __init__(self, layer, read, sizes=None):
        super().__init__()
        self.layer, self.read, self.sizes = layer, read, sizes

    def forward(self, x):
        if self.sizes is not None:
            x = nn.utils.rnn.pack_padded_sequence(x, self.sizes, batch_first=True, enforce_sorted=False)
        output, states = self.layer(x)
        states = states if isinstance(states, tuple) else (states,)
        return self.read(output.data if self.sizes else output, states)


def outputs(output, states):
    return output.tanh().sum(1)


def ends(output, states):
    return states[0].square().sum(0)


def cells(output, states):
    return states[1][0] + output[:, 0]


def made(layer, *args, **kwargs):
    torch.manual_seed(0)
    return layer(*args, batch_first=True, **kwargs).double()


MODELS = {
    "LSTM": lambda: Recurrent(made(nn.LSTM, 3, 5), outputs),
    "LSTM, last states": lambda: Recurrent(made(nn.LSTM, 3, 5, bias=False), ends),
    "LSTM, cell states": lambda: Recurrent(made(nn.LSTM, 3, 5), cells),
    "LSTM, packed": lambda: Recurrent(made(nn.LSTM, 3, 5, 2), ends, [2, 4, 3]),
    "GRU, two layers, two directions": lambda: Recurrent(made(nn.GRU, 3, 17, 2, bidirectional=True), ends),
    "GRU, outputs": lambda: Recurrent(made(nn.GRU, 3, 5, bidirectional=True), outputs),
    "RNN": lambda: Recurrent(made(nn.RNN, 3, 5, nonlinearity="relu"), outputs),
    "layer norm": lambda: nn.LayerNorm((4, 3)).double(),
    "layer norm without weights": lambda: nn.LayerNorm(3, elementwise_affine=False).double(),
}


def explained(model, x, x0):
    return attribute(model, x, x0, target=lambda output: output.flatten(1).sum(1), rules="complete")


@pytest.mark.parametrize("alike", [False, True], ids=["baselines differ", "one baseline"])
@pytest.mark.parametrize("name", MODELS)
def test_a_layer_as_a_whole_is_its_operations(monkeypatch, name, alike):
    model, x, x0 = MODELS[name](), normal(3, 4, 3), normal(3, 4, 3, seed=1)
    if alike:
        x0 = x0[:1].expand(3, 4, 3)
    found = explained(model, x, x0)
    assert {row.rule for row in found.report} & {"composed", "quotient"}
    monkeypatch.setattr(layers, "fits", lambda *_: False)
    expected = explained(model, x, x0)
    torch.testing.assert_close(found.contributions, expected.contributions, rtol=1e-9, atol=1e-12)
    assert float(found.convergence_delta.abs().max()) < 1e-11


class FirstState(nn.Module):
    """An LSTM with first states that are given, or that depend on the input."""

    def __init__(self, state):
        super().__init__()
        self.lstm, self.state = made(nn.LSTM, 3, 5), state

    def forward(self, x):
        return self.lstm(x, self.state(x))[0][:, -1].sum(-1)


class OwnWeights(nn.Module):
    """A layer norm whose weight depends on the input."""

    def forward(self, x):
        return torch.nn.functional.layer_norm(x, (3,), weight=x.mean((0, 1)))[0].sum(-1).unsqueeze(0)


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (FirstState(lambda x: (torch.ones(1, len(x), 5).double(), torch.zeros(1, len(x), 5).double())), 3),
        (FirstState(lambda x: (x.mean(1, keepdim=True).repeat(1, 1, 2)[..., :5].transpose(0, 1),) * 2), 3),
        (OwnWeights(), 1),
    ],
    ids=["first states", "first states of the input", "weights of the input"],
)
def test_a_layer_that_does_not_fit_runs_in_parts(model, batch):
    found = attribute(
        model, normal(batch, 4, 3), normal(batch, 4, 3, seed=1), target=lambda y: y.reshape(batch, -1).sum(1),
        rules="complete",
    )  # fmt: skip
    assert "composed" not in {row.rule for row in found.report}
    assert "midpoint" in {row.rule for row in found.report}
    assert float(found.convergence_delta.abs().max()) < 1e-12


@pytest.mark.parametrize("given", [{"dropout": 0.5, "num_layers": 2}, {"proj_size": 2}], ids=["dropout", "projection"])
def test_recurrent_layers_with_other_options_run_in_parts(given):
    model = Recurrent(made(nn.LSTM, 3, 5, **given), outputs)
    x, x0 = normal(3, 4, 3), normal(3, 4, 3, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingModeWarning)
        found = explained(model.train("dropout" in given), x, x0)
    assert "composed" not in {row.rule for row in found.report}
    assert float(found.convergence_delta.abs().max()) < 1e-12


def test_half_types_run_in_parts():
    found = attribute(
        nn.LayerNorm(8).bfloat16(), torch.randn(2, 8).bfloat16(), target=0, rules="complete", delta_tol=1.0
    )
    assert "layer_norm" not in {row.operation for row in found.report}
