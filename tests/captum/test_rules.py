"""The rules of Captum's front end under `rules="rescale"`: those that Captum has, with numbers against Captum."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deeplift_fast import attribute
from deeplift_fast.captum import DeepLift, DeepLiftShap


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


RULED = {
    "LeakyReLU": lambda x: F.leaky_relu(x, 0.2),
    "LeakyReLU, in place": lambda x: F.leaky_relu_(x * 1, 0.2),
    "ELU": nn.ELU(0.7),
    "Softplus": nn.Softplus(beta=2),
    "softmax": lambda x: x.softmax(-1),
    "nn.Softmax": nn.Softmax(-1),
    "max pool": nn.MaxPool1d(2),
    "adaptive max pool": nn.AdaptiveMaxPool1d(3),
    "average pool": nn.AvgPool1d(2),
}


class TestRescaleOfTheFrontEnd:
    @pytest.mark.parametrize("name", RULED)
    def test_has_captums_rules(self, name):
        torch.manual_seed(0)
        first, last = nn.Linear(6, 6).double(), None

        def model(x):
            nonlocal last
            y = RULED[name](first(x.unsqueeze(1)) * 3).flatten(1)
            last = last or nn.Linear(y.shape[1], 2).double()
            return last(y)

        x, x0 = normal(4, 6), normal(4, 6, seed=1)
        found, delta = DeepLift(model, rules="rescale").attribute(x, x0, 1, return_convergence_delta=True)
        assert delta.abs().max() < 1e-12
        torch.testing.assert_close(found, DeepLift(model).attribute(x, x0, 1))

    def test_the_rest_has_its_gradient_and_nothing_is_scaled(self):
        x = torch.tensor([[1.0, 2.0]])
        found, delta = DeepLift(lambda x: x.exp().sum(1), rules="rescale").attribute(x, return_convergence_delta=True)
        torch.testing.assert_close(found, x * x.exp())
        assert delta.abs().max() > 1

    def test_attribute_means_another_set(self):
        x, x0 = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
        found = attribute(lambda x: F.leaky_relu(x, 0.5), x, x0, 0, rules="rescale")
        assert found.convergence_delta.item() == pytest.approx(3 - 2.5)


class Model(nn.Module):
    """A convolution, a layer and a dense layer."""

    def __init__(self, dims, layer):
        super().__init__()
        self.conv, self.layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](2, 3, 2).double(), layer.double()
        self.flat = nn.Flatten()
        self.last = nn.Linear(self.layer(self.conv(self.inputs(dims))).flatten(1).shape[1], 3).double()

    @staticmethod
    def inputs(dims, rows=4, seed=0):
        return normal(rows, 2, *[6] * dims, seed=seed)

    def forward(self, x):
        return self.last(self.flat(self.layer(self.conv(x))))


# Where Captum's rule is complete: the layer, its number of dimensions.
AS_CAPTUM = [
    (nn.ReLU(), 1), (nn.LeakyReLU(0.3), 1), (nn.ELU(1.3), 2), (nn.Softplus(beta=2, threshold=1), 1), (nn.Tanh(), 1),
    (nn.Sigmoid(), 3), (nn.MaxPool1d(2), 1), (nn.MaxPool2d(2), 2), (nn.MaxPool3d(2), 3),
    (nn.MaxPool1d(2, ceil_mode=True), 1), (nn.AvgPool1d(2), 1), (nn.AvgPool2d(2, stride=1), 2), (nn.AvgPool3d(2), 3),
    (nn.AdaptiveAvgPool1d(2), 1), (nn.AdaptiveAvgPool2d(2), 2), (nn.Flatten(), 1),
]  # fmt: skip
# What Captum has no rule for: its gradient, in both.
GRADIENTS = [
    (nn.CELU(), 1), (nn.SELU(), 1), (nn.GELU(), 1), (nn.SiLU(), 1), (nn.ReLU6(), 1), (nn.PReLU(), 1),
    (nn.Hardtanh(), 1), (nn.LogSoftmax(-1), 1),
]  # fmt: skip
# Where Captum's rule is not complete, and ours is.
INCOMPLETE = [
    (nn.Softmax(-1), 1), (nn.Softmax(1), 2), (nn.MaxPool1d(3, stride=1, padding=1), 1), (nn.MaxPool1d(3, 2), 1),
    (nn.MaxPool2d((2, 3), stride=(1, 2)), 2), (nn.MaxPool1d(2, dilation=2), 1), (nn.AdaptiveMaxPool1d(2), 1),
    (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), 2), (nn.Sequential(nn.Tanh(), nn.MaxPool1d(2)), 1),
]  # fmt: skip


def called(layer):
    return f"{type(layer).__name__} {layer.extra_repr()}"


def explained(explainer, model, dims, background):
    x0 = model.inputs(dims, 3 if background else 4, seed=1)
    return explainer.attribute(model.inputs(dims), x0, target=1, return_convergence_delta=True)


@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
@pytest.mark.filterwarnings("ignore::UserWarning")
class TestAgainstCaptum:
    def both(self, name, layer, dims):
        torch.manual_seed(0)
        model, background = Model(dims, layer), name == "DeepLiftShap"
        theirs, ours = getattr(pytest.importorskip("captum.attr"), name), DeepLiftShap if background else DeepLift
        return [
            explained(each, model, dims, background)
            for each in (ours(model, rules="rescale"), theirs(model), ours(model))
        ]

    @pytest.mark.parametrize(("layer", "dims"), AS_CAPTUM, ids=[called(layer) for layer, _ in AS_CAPTUM])
    def test_is_the_same_where_captums_is_complete(self, name, layer, dims):
        (found, delta), (expected, _), (complete, _) = self.both(name, layer, dims)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found, complete, rtol=1e-9, atol=1e-12)
        assert delta.abs().max() < 1e-12

    @pytest.mark.parametrize(("layer", "dims"), GRADIENTS, ids=[called(layer) for layer, _ in GRADIENTS])
    def test_is_the_same_where_captum_has_no_rule(self, name, layer, dims):
        (found, delta), (expected, _), (complete, _) = self.both(name, layer, dims)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        assert delta.abs().max() > 1e-2
        assert (found - complete).abs().max() > 1e-2

    @pytest.mark.parametrize(("layer", "dims"), INCOMPLETE, ids=[called(layer) for layer, _ in INCOMPLETE])
    def test_is_complete_where_captums_is_not(self, name, layer, dims):
        (found, delta), (_, theirs), (complete, _) = self.both(name, layer, dims)
        torch.testing.assert_close(found, complete, rtol=1e-9, atol=1e-12)
        assert delta.abs().max() < 1e-12
        assert theirs.abs().max() > 1e-4


FUNCTIONS = {
    "relu": (nn.ReLU(), F.relu), "Tensor.relu": (nn.ReLU(), torch.Tensor.relu), "tanh": (nn.Tanh(), torch.tanh),
    "sigmoid": (nn.Sigmoid(), torch.Tensor.sigmoid), "elu": (nn.ELU(0.7), lambda x: F.elu(x, 0.7)),
    "elu_": (nn.ELU(0.7), lambda x: F.elu_(x * 1, 0.7)),
    "leaky_relu": (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
    "softplus": (nn.Softplus(2), lambda x: F.softplus(x, 2)), "softmax": (nn.Softmax(-1), lambda x: F.softmax(x, -1)),
    "torch.softmax": (nn.Softmax(-1), lambda x: torch.softmax(x, dim=-1)),
    "max_pool1d": (nn.MaxPool1d(2), lambda x: F.max_pool1d(x, 2)),
    "torch.max_pool1d": (nn.MaxPool1d(2), lambda x: torch.max_pool1d(x, 2)),
    "max_pool1d with indices": (nn.MaxPool1d(2), lambda x: F.max_pool1d(x, 2, return_indices=True)[0]),
    "avg_pool1d": (nn.AvgPool1d(2), lambda x: F.avg_pool1d(x, 2)),
    "adaptive_avg_pool1d": (nn.AdaptiveAvgPool1d(2), lambda x: F.adaptive_avg_pool1d(x, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_methods_are_as_modules(name):
    layer, function = FUNCTIONS[name]
    torch.manual_seed(0)
    model = Model(1, layer)
    expected, _ = explained(DeepLift(model, rules="rescale"), model, 1, False)

    def written(x):
        return model.last(function(model.conv(x)).flatten(1))

    x, x0 = model.inputs(1), model.inputs(1, seed=1)
    found, delta = DeepLift(written, rules="rescale").attribute(x, x0, 1, return_convergence_delta=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert delta.abs().max() < 1e-12
