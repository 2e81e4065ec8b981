"""What Captum's own tests say of its classes for layers and neurons, as facts.

Captum 0.9 has 17 tests in `test_layer_deeplift.py` and 12 in `test_neuron_deeplift.py`. The cases of all of them are
here, and every expected value is right. At the input of an activation they are so only because its slope is its
gradient there; Captum's numbers are otherwise wrong at this place (`test_layer.py`). Two things differ on purpose:

- a layer without influence on the target: both classes raise a RuntimeError, but ours names the layer;
- a custom function of the Shap classes sees up to `rows` pairs of input and baseline at once, not all.
"""

import pytest
import torch
from torch import nn

from deeplift_fast.captum import LayerDeepLift, LayerDeepLiftShap, NeuronDeepLift, NeuronDeepLiftShap


def linear(rows, bias=None):
    made = nn.Linear(len(rows[0]), len(rows), bias=bias is not None)
    made.weight = nn.Parameter(torch.tensor(rows))
    if bias is not None:
        made.bias = nn.Parameter(torch.tensor(bias))
    return made


class ReluLinear(nn.Module):
    """Captum's: two weighted sums, the second one scaled, their ReLUs added by a layer of ones."""

    def __init__(self, inplace=False):
        super().__init__()
        self.l1, self.l2 = linear([[3.0, 1.0, 0.0]]), linear([[2.0, 3.0, 0.0]])
        self.relu, self.l3 = nn.ReLU(inplace=inplace), linear([[1.0, 1.0]])

    def forward(self, a, b, factor=1):
        return self.l3(self.relu(torch.cat([self.l1(a), factor * self.l2(b)], 1)))


class Pair(nn.Module):
    """A layer with two inputs and two outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.ReLU(), nn.ReLU()

    def forward(self, a, b):
        return self.first(a), self.second(b)


class TwoBranches(nn.Module):
    """Captum's: one sum in four shifted copies, twice, through ReLUs; a third ReLU is called and not used."""

    def __init__(self):
        super().__init__()
        ones, bias = [[1.0] * 3] * 4, [-10.0, 1.0, 1.0, 1.0]
        self.first, self.second = linear(ones, bias), linear(ones, bias)
        self.pair, self.unused, self.last = Pair(), nn.ReLU(), linear([[1.0] * 4] * 2, [-1.0, 1.0])

    def forward(self, x):
        y = self.first(x)
        a, b = self.pair(y, self.second(x))
        self.unused(y)
        return self.last(a + b)


class PooledRelu(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.relu = nn.MaxPool1d(3), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.pool(x)).sum(1)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.pool, self.last = linear(torch.eye(4).tolist()), nn.MaxPool1d(4), linear([[1.0]])

    def forward(self, x):
        return self.last(self.pool(self.first(x[:, None]))[:, 0])


class Convolved(nn.Module):
    """Captum's classifier of images in two or three dimensions."""

    def __init__(self, dims):
        super().__init__()
        conv, pool = (nn.Conv2d, nn.Conv3d)[dims - 2], (nn.MaxPool2d, nn.MaxPool3d)[dims - 2]
        self.conv1, self.pool1, self.conv2, self.pool2 = conv(1, 2, 3), pool(2), conv(2, 4, 3), pool(2)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.fc1, self.fc2, self.softmax = nn.Linear(4, 8), nn.Linear(8, 10), nn.Softmax(1)
        nn.init.ones_(self.fc1.weight)
        nn.init.ones_(self.fc2.weight)

    def forward(self, x):
        x = self.pool2(self.relu2(self.conv2(self.pool1(self.relu1(self.conv1(x))))))
        return self.softmax(self.fc2(self.relu3(self.fc1(x.flatten(1)))))


X = torch.tensor([[-10.0, 1.0, -5.0]], requires_grad=True), torch.tensor([[3.0, 3.0, 1.0]], requires_grad=True)
ZEROS = (torch.zeros(1, 3),) * 2
BACKGROUND = (torch.zeros(3, 3),) * 2
LAYER = [(LayerDeepLift, ZEROS), (LayerDeepLiftShap, BACKGROUND)]
NEURON = [(NeuronDeepLift, ZEROS), (NeuronDeepLiftShap, BACKGROUND)]


@pytest.mark.parametrize("rules", ["complete", "rescale"])
@pytest.mark.parametrize(("explainer", "baselines"), LAYER)
class TestLayers:
    @pytest.mark.parametrize(
        ("layer", "at_input", "factor", "expected"),
        [
            ("relu", True, 1, [[0, 15]]),
            ("relu", True, 3.0, [[0, 45]]),
            ("l3", True, 1, [[0, 15]]),
            ("l3", False, 1, [[15]]),
        ],
    )
    @pytest.mark.parametrize("inplace", [True, False])
    def test_values(self, explainer, baselines, rules, layer, at_input, factor, expected, inplace):
        model = ReluLinear(inplace)
        found, delta = explainer(model, getattr(model, layer), rules=rules).attribute(
            X, baselines, None, factor, True, attribute_to_layer_input=at_input
        )
        assert found.tolist() == expected
        assert delta.tolist() == [0.0] * len(baselines[0])

    def test_a_batch(self, explainer, baselines, rules):
        model = ReluLinear(inplace=True)
        inputs = tuple(x.expand(3, 3) for x in X)
        for at_input, row in ((True, [0, 15]), (False, [15])):
            found = explainer(model, model.l3, rules=rules).attribute(
                inputs, baselines, attribute_to_layer_input=at_input
            )
            assert found.tolist() == [row] * 3

    def test_multipliers(self, explainer, baselines, rules):
        model = ReluLinear(inplace=True)
        layer = explainer(model, model.relu, multiply_by_inputs=False, rules=rules)
        assert layer.attribute(X, baselines, attribute_to_layer_input=True).tolist() == [[0, 1]]
        assert not layer.multiplies_by_inputs

    def test_several_tensors(self, explainer, baselines, rules):
        model = TwoBranches()
        found, delta = explainer(model, model.pair, rules=rules).attribute(
            X[0], baselines[0], target=0, return_convergence_delta=True
        )
        assert isinstance(found, tuple)
        assert [each.tolist() for each in found] == [[[0, -1, -1, -1]]] * 2
        assert not delta.any()

    def test_custom_functions(self, explainer, baselines, rules):
        def doubled(multipliers, inputs, baselines):
            return tuple(2 * multiplier for multiplier in multipliers)

        model = ReluLinear()
        found, _ = explainer(model, model.l3, rules=rules).attribute(
            X, baselines, custom_attribution_func=doubled, return_convergence_delta=True
        )
        assert found.tolist() == [[2]]


def test_a_custom_function_sees_the_layers_values():
    model, seen = PooledRelu(), []

    def custom(*given):
        seen.extend(each[0].tolist() for each in given)
        return given[0]

    x = torch.tensor([[[1.0, 2.0, -4.0], [-3.0, -2.0, -1.0]]])
    layer = LayerDeepLift(model, model.pool)
    layer.attribute(
        x, custom_attribution_func=lambda multipliers, inputs, baselines: custom(multipliers, inputs, baselines)
    )
    assert seen == [[[[1], [0]]], [[[2], [-1]]], [[[0], [0]]]]


POOLED = torch.ones(2, 4), torch.tensor([[1.0, 2.0, 3.0, 9.0], [4.0, 8.0, 6.0, 7.0]])


def test_max_pool():
    model = Pooled()
    found, delta = LayerDeepLift(model, model.pool).attribute(*POOLED, target=0, return_convergence_delta=True)
    assert found.tolist() == [[[-8]], [[-7]]]
    assert delta.tolist() == [0, 0]
    after = NeuronDeepLift(model, model.pool).attribute(POOLED[0], 0, POOLED[1])  # of [2, 1, 1]
    before = NeuronDeepLift(model, model.last).attribute(POOLED[0], 0, POOLED[1], attribute_to_neuron_input=True)
    assert torch.equal(after, before)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_output_of_a_layer_is_the_input_of_the_next(dims):
    torch.manual_seed(dims)
    model, x = Convolved(dims), 100 * torch.randn(2, 1, *[10] * dims)
    after = LayerDeepLift(model, model.pool1).attribute(x, target=0)
    before = LayerDeepLift(model, model.conv2).attribute(x, target=0, attribute_to_layer_input=True)
    assert torch.equal(after, before)
    position = (0,) * (dims + 1)
    after = NeuronDeepLift(model, model.pool1).attribute(x, position)
    before = NeuronDeepLift(model, model.conv2).attribute(x, position, attribute_to_neuron_input=True)
    assert after.any()
    assert torch.equal(after, before)


def test_an_unused_layer():
    model, x = TwoBranches(), torch.tensor([[3.0, 4.0, 5.0]])
    layer = LayerDeepLift(model, model.unused)
    with pytest.raises(RuntimeError, match="does not depend on the output of layer 'unused'"):
        layer.attribute(x, target=0)
    found, delta = layer.attribute(x, target=0, return_convergence_delta=True, grad_kwargs={"materialize_grads": True})
    assert found.tolist() == [[0] * 4]
    difference = (model(x) - model(0 * x)).detach()[0, 0]
    assert float(delta) == -float(difference)
    (row,) = layer.report()
    assert (row.rule, row.delta) == ("bypass", float(delta))


@pytest.mark.parametrize(("explainer", "baselines"), NEURON)
class TestNeurons:
    @pytest.mark.parametrize("inplace", [True, False])
    def test_of_a_relu(self, explainer, baselines, inplace):
        model = ReluLinear(inplace)
        found = explainer(model, model.relu).attribute(X, 0, baselines)
        assert [each.tolist() for each in found] == [[[0, 0, 0]]] * 2
        found = explainer(model, model.relu).attribute(X, 1, baselines)
        assert [each.tolist() for each in found] == [[[0, 0, 0]], [[6, 9, 0]]]

    @pytest.mark.parametrize("selector", [0, (0,), lambda value: value[:, 0]])
    def test_of_a_linear_layer(self, explainer, baselines, selector):
        model = ReluLinear()
        neuron = explainer(model, model.l3)
        assert neuron.multiplies_by_inputs
        assert not neuron.has_convergence_delta()
        found = neuron.attribute(X, selector, baselines, attribute_to_neuron_input=True)
        assert [each.tolist() for each in found] == [[[0, 0, 0]]] * 2
        found = neuron.attribute(X, selector, baselines)
        assert [each.tolist() for each in found] == [[[0, 0, 0]], [[6, 9, 0]]]
        found = explainer(model, model.l3, multiply_by_inputs=False).attribute(X, selector, baselines)
        assert [each.tolist() for each in found] == [[[0, 0, 0]], [[2, 3, 0]]]

    def test_custom_functions(self, explainer, baselines):
        model = ReluLinear()
        found = explainer(model, model.l3).attribute(
            X, 0, baselines, custom_attribution_func=lambda multipliers: tuple(0 * each for each in multipliers)
        )
        assert [each.tolist() for each in found] == [[[0, 0, 0]]] * 2
