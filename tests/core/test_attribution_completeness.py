"""Contributions account for the whole change of the output, and agree with Captum's DeepLift where both hold."""

import warnings

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deeplift_fast import ConvergenceWarning, attribute

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
MODULES = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Activation(nn.Module):
    """An activation, called one way or another."""

    def __init__(self, function, call):
        super().__init__()
        self.call = {
            "module": MODULES[function](),
            "function": getattr(torch, function),
            "method": lambda x: getattr(x, function)(),
            "in place": lambda x: getattr(x, f"{function}_")(),
        }[call]

    def forward(self, x):
        return self.call(x)


@st.composite
def networks(draw):
    """Linear layers, activations and skips in any order: nothing else, so that DeepLIFT is exact."""
    width = inputs = draw(st.integers(1, 6))
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        outputs = draw(st.integers(1, 8))
        layers.append(nn.Linear(width, outputs, bias=draw(st.booleans())))
        function = draw(st.sampled_from(sorted(MODULES)))
        layers.append(Activation(function, draw(st.sampled_from(["module", "function", "method", "in place"]))))
        width = outputs
    if draw(st.booleans()):
        layers.append(nn.Linear(width, draw(st.integers(1, 3))))
    return inputs, nn.Sequential(*layers)


@settings(max_examples=60)
@given(
    network=networks(),
    batch=st.integers(1, 5),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_any_network_of_these_activations_is_complete_before_rescaling(network, batch, seed, scale, dtype):
    inputs, model = network
    model.to(dtype)
    x = scale * normal(batch, inputs, seed=seed, dtype=dtype)
    x0 = scale * normal(batch, inputs, seed=seed + 1, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = attribute(model, x, x0)
    size = 1 + (found.output - found.baseline_output).abs() + found.contributions.abs().sum(1)
    assert (found.convergence_delta.abs() <= TOLERANCE[dtype] * size).all()
    torch.testing.assert_close(
        found.contributions.sum(1), found.output - found.baseline_output, rtol=0, atol=10 * TOLERANCE[dtype]
    )
    torch.testing.assert_close(found.output, model(x)[range(batch), found.target].detach())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("function", MODULES)
def test_convolutions_pools_and_skips_are_linear(function, dtype):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)
            self.pool, self.head = nn.AvgPool1d(2), nn.Linear(12, 2)

        def forward(self, x):
            hidden = getattr(torch, function)(self.conv1(x))
            hidden = hidden + getattr(F, function)(self.conv2(hidden))
            return self.head(self.pool(hidden).flatten(1))

    found = attribute(Net().to(dtype), normal(4, 3, 6, dtype=dtype), normal(3, 6, seed=1, dtype=dtype), target=1)
    assert found.convergence_delta.abs().max() < TOLERANCE[dtype]


def test_recurrence_written_out_is_complete():
    """A plain RNN cell, its own loop: one activation object, many calls."""
    cell, steps = nn.Linear(3 + 5, 5).double(), 6

    def model(x):
        state = x.new_zeros(len(x), 5)
        for step in range(steps):
            state = torch.tanh(cell(torch.cat([x[:, step], state], 1)))
        return state

    found = attribute(model, normal(4, steps, 3, dtype=torch.float64), target=2)
    assert found.convergence_delta.abs().max() < 1e-12
    assert (found.contributions.abs().sum(2) > 0).all()


@pytest.mark.parametrize("function", MODULES)
def test_swapping_input_and_baseline_turns_every_sign(function):
    model = nn.Sequential(nn.Linear(4, 6), MODULES[function](), nn.Linear(6, 6), MODULES[function](), nn.Linear(6, 1))
    x, x0 = normal(5, 4, dtype=torch.float64), normal(5, 4, seed=1, dtype=torch.float64)
    there, back = attribute(model.double(), x, x0), attribute(model, x0, x)
    torch.testing.assert_close(there.contributions, -back.contributions)


def test_near_the_baseline_it_is_the_gradient():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 1)).double()
    x0, step = normal(5, 4, dtype=torch.float64), normal(5, 4, seed=1, dtype=torch.float64)
    leaf = x0.clone().requires_grad_()
    model(leaf).sum().backward()
    for size in (1e-4, 1e-7, 1e-10):
        found = attribute(model, x0 + size * step, x0)
        delta = (x0 + size * step) - x0
        torch.testing.assert_close(found.contributions, leaf.grad * delta, rtol=1e-3, atol=10 * size**2)


# Models and expected values of Captum's own tests of DeepLift.
def relu_of_two(x1, x2):
    return 2 * torch.relu(x1) + 2 * torch.relu(x2 - 1.5)


def tanh_of_two(x1, x2):
    return 2 * torch.tanh(x1) + 2 * torch.tanh(x2 - 1.5)


def relu_after_linear(x1, x2):
    sums = x1 @ torch.tensor([3.0, 1.0, 0.0]), x2 @ torch.tensor([2.0, 3.0, 0.0])
    return torch.relu(torch.stack(sums, 1)).sum(1)


def test_published_relu():
    found = attribute(relu_of_two, (torch.tensor([1.0]), torch.tensor([2.0])), (0.0, 0.0))
    assert [c.item() for c in found.contributions] == [2.0, 1.0]
    assert found.convergence_delta.item() == 0


def test_published_tanh():
    found = attribute(tanh_of_two, (torch.tensor([-1.0]), torch.tensor([-2.0])), (0.0, 0.0))
    assert found.contributions[0].item() == pytest.approx(2 * torch.tanh(torch.tensor(-1.0)).item())
    assert found.convergence_delta.item() == pytest.approx(0, abs=1e-6)


def test_published_relu_after_linear():
    inputs = torch.tensor([[-10.0, 1.0, -5.0]]), torch.tensor([[3.0, 3.0, 1.0]])
    found = attribute(relu_after_linear, inputs)
    assert found.contributions[0].tolist() == [[0.0, 0.0, 0.0]]
    assert found.contributions[1].tolist() == [[6.0, 9.0, 0.0]]


def dense(activation):
    return nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 3)), (6,)


def convolutional(activation):
    layers = [nn.Conv2d(2, 4, 3), activation(), nn.AvgPool2d(2), nn.Conv2d(4, 3, 2), activation(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(12, 3)), (2, 8, 8)


def normalised(activation):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), activation(), nn.Dropout(), nn.Linear(8, 3))
    model[1].running_mean.normal_()
    return model.eval(), (6,)


@pytest.mark.parametrize("target", [0, 2, "per sample"])
@pytest.mark.parametrize("baseline", [None, "shared", "per sample"])
@pytest.mark.parametrize("activation", MODULES.values())
@pytest.mark.parametrize("build", [dense, convolutional, normalised])
def test_captum_agrees(build, activation, baseline, target):
    model, shape = build(activation)
    model.double()
    x = normal(5, *shape, dtype=torch.float64)
    x0 = {
        None: None,
        "shared": normal(1, *shape, seed=1, dtype=torch.float64),
        "per sample": normal(5, *shape, seed=1, dtype=torch.float64),
    }[baseline]
    target = torch.tensor([0, 1, 2, 1, 0]) if target == "per sample" else target
    found = attribute(model, x, x0, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, delta = captum.attr.DeepLift(model).attribute(
            x.clone().requires_grad_(), x0, target=target, return_convergence_delta=True
        )
    torch.testing.assert_close(found.contributions, expected.detach(), rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(found.convergence_delta, delta, rtol=0, atol=1e-10)


def test_captum_agrees_on_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.relu, self.head = nn.Linear(3, 4), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)

        def forward(self, a, b, scale):
            return self.head(self.relu(self.a(a) + self.b(b) * scale))

    model = Two().double()
    inputs = normal(5, 3, dtype=torch.float64), normal(5, 2, seed=1, dtype=torch.float64)
    found = attribute(model, inputs, (0.5, None), target=1, forward_args=(2.0,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum.attr.DeepLift(model).attribute(
            tuple(t.clone().requires_grad_() for t in inputs), (0.5, 0.0), target=1, additional_forward_args=(2.0,)
        )
    for a, b in zip(found.contributions, expected, strict=True):
        torch.testing.assert_close(a, b.detach())
