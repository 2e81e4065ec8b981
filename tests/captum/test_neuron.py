"""Contributions of inputs to a neuron of a layer sum to the neuron's difference."""

import pytest
import torch
from torch import nn

from deeplift_fast import InterceptionError
from deeplift_fast.captum import NeuronDeepLift, NeuronDeepLiftShap

pytestmark = pytest.mark.filterwarnings("error")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Small(nn.Module):
    """A hidden layer of tanh over steps, and a recurrent layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.act, self.gru, self.rest = (
            nn.Linear(3, 4),
            nn.Tanh(),
            nn.GRU(4, 5, batch_first=True),
            nn.ReLU(),
        )
        self.double().eval()

    def up_to_act(self, x, factor=1):
        return self.act(self.hidden(factor * x))

    def forward(self, x, factor=1):
        out, _ = self.gru(self.up_to_act(x, factor))
        return torch.relu(out[:, -1])


X, X0 = normal(4, 6, 3), normal(4, 6, 3, seed=1)


def difference(neuron, x=X, x0=X0):
    with torch.no_grad():
        return neuron(x) - neuron(x0)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    ("selector", "neuron"),
    [
        ((2, 1), lambda y: y[:, 2, 1]),
        ((-1, -1), lambda y: y[:, -1, -1]),
        ((slice(None), 1), lambda y: y[:, :, 1].sum(1)),
        ((slice(1, 4), slice(0, 2)), lambda y: y[:, 1:4, :2].sum((1, 2))),
        ((slice(1, 3),), lambda y: y[:, 1:3].sum((1, 2))),
        (lambda y: y.amax((1, 2)), lambda y: y.amax((1, 2))),
        (lambda y: y[:, 0, :1], lambda y: y[:, 0, 0]),
    ],
)
def test_complete(selector, neuron, steps):
    model = Small()
    for at_input, whole in ((False, model.up_to_act), (True, model.hidden)):
        explainer = NeuronDeepLift(model, model.act, steps=steps)
        found = explainer.attribute(X, selector, X0, attribute_to_neuron_input=at_input)
        torch.testing.assert_close(found.sum((1, 2)), difference(lambda x, whole=whole: neuron(whole(x))))
        assert abs(explainer.report().delta) < 1e-12


def test_further_arguments_and_names():
    model = Small()
    found = NeuronDeepLift(model, "act").attribute(X, (0, 1), X0, 2.5)
    torch.testing.assert_close(found.sum((1, 2)), difference(lambda x: model.up_to_act(x, 2.5)[:, 0, 1]))


def test_after_a_named_call_the_model_does_not_run():
    class Fails(Small):
        def forward(self, x):
            self.up_to_act(x)
            raise ArithmeticError("too far")

    found = NeuronDeepLift(Fails(), "act", call=0).attribute(X, (0, 1), X0)
    assert torch.equal(found, NeuronDeepLift(Small(), "act").attribute(X, (0, 1), X0))
    with pytest.raises(ArithmeticError, match="too far"):  # a whole run counts the calls
        NeuronDeepLift(Fails(), "act").attribute(X, (0, 1), X0)


def test_tuples_need_a_callable():
    model = Small()
    explainer = NeuronDeepLift(model, model.gru)
    found = explainer.attribute(X, lambda value: value[1][0, :, 2], X0)
    torch.testing.assert_close(found.sum((1, 2)), difference(lambda x: model.gru(model.up_to_act(x))[1][0, :, 2]))
    with pytest.raises(ValueError, match="holds 2 tensors; accepted: a callable"):
        explainer.attribute(X, 0, X0)


@pytest.mark.parametrize("at_once", [1, 2])
def test_one_number_for_the_batch(at_once):
    model = Small()

    def energy(value):
        return (value**2).sum()

    explainer = NeuronDeepLift(model, "act", steps=2, segments_at_once=at_once)
    found = explainer.attribute((X,), energy, (X0,))[0]
    assert found.shape == X.shape
    torch.testing.assert_close(found.sum(), difference(lambda x: energy(model.up_to_act(x))))
    custom = explainer.attribute(X, energy, X0, custom_attribution_func=lambda m, x, x0: (m[0] * (x[0] - x0[0]),))
    torch.testing.assert_close(custom, found)
    with pytest.raises(ValueError, match="one number for 4 samples; accepted by NeuronDeepLiftShap: one per sample"):
        NeuronDeepLiftShap(model, "act").attribute(X, energy, X0)


def test_background_sets():
    model = Small()
    found = NeuronDeepLiftShap(model, "act", rows=3).attribute(X, (1, 2), X0[:2])
    alone = [NeuronDeepLift(model, "act").attribute(X, (1, 2), row) for row in X0[:2]]
    torch.testing.assert_close(found, (alone[0] + alone[1]) / 2)
    factors = torch.arange(4.0).double().reshape(4, 1, 1)
    found = NeuronDeepLiftShap(model, "act", rows=3).attribute(X, (1, 2), X0[:2], factors)
    alone = [NeuronDeepLift(model, "act").attribute(X, (1, 2), row, factors) for row in X0[:2]]
    torch.testing.assert_close(found, (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        (0, r"neuron_selector is 0, and the output of layer 'act' has shape \(4, 6, 4\); accepted: 2 int"),
        ((0, 9), r"neuron_selector is \(0, 9\), which lies outside of the output of layer 'act'"),
        ((0, 1.5), r"neuron_selector is \(0, 1.5\); accepted: an int"),
        ("first", "neuron_selector is 'first'; accepted"),
        ((True, 0), "accepted: an int"),
        (lambda y: y[0, 0], r"gives shape \(4,\) for 3 samples"),
        (lambda y: 1.0, "gives a float for 3 samples"),
    ],
)
def test_selectors_that_do_not_fit(selector, said):
    x = X[:3] if callable(selector) else X
    with pytest.raises(AssertionError, match=said) as error:
        NeuronDeepLift(Small(), "act").attribute(x, selector)
    assert isinstance(error.value, IndexError) == ("outside" in said)


def test_a_layer_of_several_tensors_needs_a_function():
    model = nn.LSTM(3, 2, batch_first=True)
    with pytest.raises(ValueError, match=r"holds 3 tensors; accepted: .* as lambda output: output\[0\]\[:, 0, 0\]$"):
        NeuronDeepLift(nn.Sequential(model), "0").attribute(torch.ones(2, 4, 3), (0, 0))


def test_what_cannot_be_attributed():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten())
    with pytest.raises(TypeError, match=r"torch.int64; accepted: a floating-point tensor. For tokens.*LayerDeepLift"):
        NeuronDeepLift(model, "0").attribute(torch.ones(2, 3).long(), (0, 0))
    with pytest.raises(NotImplementedError, match="report"):
        NeuronDeepLift(Small(), "act").compute_convergence_delta(X, X0, X)

    class Constant(Small):
        def forward(self, x):
            return self.act(torch.ones(len(x), 4, dtype=x.dtype)) + self.hidden(x).sum(1)

    with pytest.raises(InterceptionError, match="does not depend on the inputs"):
        NeuronDeepLift(Constant(), "act").attribute(X, 1)
