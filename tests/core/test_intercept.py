"""Activations are met wherever a model calls them, and nothing else is."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deeplift_fast import attribute

FUNCTIONS = ("relu", "sigmoid", "tanh")
aten = torch.ops.aten


def normal(*shape, seed=0, dtype=torch.float64):
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def expected(function, x, x0):
    """The contribution of x to f(x): all of its change, since f is elementwise."""
    return getattr(torch, function)(x) - getattr(torch, function)(x0)


def raw(model, x, x0, **options):
    """Per sample, what the contributions to the sum of `model(x)` add up to before rescaling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = attribute(lambda x: model(x).flatten(1).sum(1), x, x0, **options)
    return found.convergence_delta + found.output - found.baseline_output


def assert_met(model, function, change=None, **options):
    """Every activation of `model` contributes its change; the gradient would not."""
    x, x0 = normal(5, 4), normal(5, 4, seed=1)
    change = expected(function, x, x0) if change is None else change
    torch.testing.assert_close(raw(model, x, x0, **options), change.sum(1), rtol=1e-9, atol=1e-12)


CALLS = {
    "relu": {
        "nn.ReLU": nn.ReLU(),
        "nn.ReLU(inplace)": lambda x: nn.ReLU(inplace=True)(x * 1),
        "F.relu": F.relu,
        "F.relu, by keyword": lambda x: F.relu(input=x),
        "F.relu, in place by keyword": lambda x: F.relu(x * 1, inplace=True),
        "F.relu, in place by position": lambda x: F.relu(x * 1, True),
        "F.relu, in place, result not used": lambda x: _in_place(F.relu, x, inplace=True),
        "F.relu_": lambda x: F.relu_(x * 1),
        "torch.relu": torch.relu,
        "torch.relu, by keyword": lambda x: torch.relu(input=x),
        "torch.relu_": lambda x: torch.relu_(x * 1),
        "torch.relu_, result not used": lambda x: _in_place(torch.relu_, x),
        "x.relu": lambda x: x.relu(),
        "x.relu_": lambda x: (x * 1).relu_(),
        "Tensor.relu": torch.Tensor.relu,
        "aten.relu": aten.relu,
        "aten.relu.default": aten.relu.default,
        "aten.relu_": lambda x: aten.relu_(x * 1),
        "aten.relu_.default": lambda x: aten.relu_.default(x * 1),
    },
    "sigmoid": {
        "nn.Sigmoid": nn.Sigmoid(),
        "F.sigmoid": F.sigmoid,
        "torch.sigmoid": torch.sigmoid,
        "torch.sigmoid_": lambda x: torch.sigmoid_(x * 1),
        "x.sigmoid": lambda x: x.sigmoid(),
        "x.sigmoid_": lambda x: (x * 1).sigmoid_(),
        "x.sigmoid_, result not used": lambda x: _in_place(torch.Tensor.sigmoid_, x),
        "torch.special.expit": torch.special.expit,
        "aten.sigmoid": aten.sigmoid,
        "aten.sigmoid.default": aten.sigmoid.default,
        "aten.sigmoid_": lambda x: aten.sigmoid_(x * 1),
        "aten.special_expit": aten.special_expit,
        "aten.special_expit.default": aten.special_expit.default,
    },
    "tanh": {
        "nn.Tanh": nn.Tanh(),
        "F.tanh": F.tanh,
        "torch.tanh": torch.tanh,
        "torch.tanh_": lambda x: torch.tanh_(x * 1),
        "x.tanh": lambda x: x.tanh(),
        "x.tanh_": lambda x: (x * 1).tanh_(),
        "aten.tanh": aten.tanh,
        "aten.tanh.default": aten.tanh.default,
        "aten.tanh_.default": lambda x: aten.tanh_.default(x * 1),
    },
}


def _in_place(function, x, **options):
    hidden = x * 1
    function(hidden, **options)
    return hidden


@pytest.mark.parametrize(("function", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_every_way_to_call_an_activation(function, call):
    assert_met(CALLS[function][call], function)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_floating_type(function, dtype):
    x, x0 = normal(5, 4).to(dtype), normal(5, 4, seed=1).to(dtype)
    found = raw(getattr(torch, function), x, x0)
    assert found.dtype == dtype
    change = expected(function, x.double(), x0.double()).sum(1)
    torch.testing.assert_close(found.double(), change, rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_one_activation_module_used_in_several_places():
    relu = nn.ReLU()
    first, second = nn.Linear(4, 6).double(), nn.Linear(6, 1).double()
    model = nn.Sequential(first, relu, second, relu).double()
    by_function = attribute(lambda x: torch.relu(second(torch.relu(first(x)))), normal(5, 4), normal(4, seed=1))
    found = attribute(model, normal(5, 4), normal(4, seed=1), target=0)
    torch.testing.assert_close(found.contributions, by_function.contributions)
    assert found.convergence_delta.abs().max() < 1e-12


class Block(nn.Module):
    """Calls its activation as a function that it was given, inside a list that PyTorch does not know."""

    def __init__(self, width, activation):
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.activations = [activation]

    def forward(self, x):
        for linear in self.linears:
            x = self.activations[0](linear(x))
        return x


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", ["module", "F", "torch", "method", "lambda"])
def test_activations_handed_over_as_functions_deep_inside_a_model(function, kind):
    activation = {
        "module": {"relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh()}[function],
        "F": getattr(F, function),
        "torch": getattr(torch, function),
        "method": getattr(torch.Tensor, function),
        "lambda": lambda x: getattr(x, function)(),
    }[kind]
    model = nn.Sequential(Block(4, activation), nn.Sequential(nn.Sequential(Block(4, activation))), nn.Linear(4, 2))
    for parameter in model.double().parameters():
        nn.init.normal_(parameter)
    found = attribute(model, normal(6, 4), normal(4, seed=1), target=1)
    assert found.convergence_delta.abs().max() < 1e-12
    assert (found.output - found.baseline_output).abs().max() > 0.01


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", torch.relu, nn.ReLU()])
def test_the_activation_of_a_transformer_layer_in_eval_mode(masked, norm_first, activation):
    """PyTorch's fused layer, which would take over, hides it; in training mode nothing is fused."""
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first, activation=activation
    ).double()
    mask = torch.tensor([[False] * 3, [False, False, True]]) if masked else None
    x, x0 = 3 * normal(2, 3, 8), normal(2, 3, 8, seed=1)

    def model(x):
        return layer(x, src_key_padding_mask=mask)[..., 0]

    in_training = raw(model, x, x0)
    layer.eval()
    torch.testing.assert_close(raw(model, x, x0), in_training)
    leaf = x.clone().requires_grad_()
    model(leaf).sum().backward()
    assert ((leaf.grad * (x - x0)).sum((1, 2)) - in_training).abs().min() > 1e-3, "that is the plain gradient"


@pytest.mark.parametrize("activation", ["relu", torch.tanh, nn.Sigmoid()])
def test_a_stack_of_transformer_layers_takes_the_same_path_in_both_streams(activation):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=activation)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=activation == "relu").double().eval()
    mask = torch.tensor([[False] * 3, [False, False, True]])
    found = attribute(lambda x: model(x, src_key_padding_mask=mask).sum((1, 2)), normal(2, 3, 8))
    plain = model(normal(2, 3, 8), src_key_padding_mask=mask).sum((1, 2))
    torch.testing.assert_close(found.output, plain.detach())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_in_place_on_a_view_of_a_hidden_tensor(function):
    def model(x):
        hidden = x * 1
        getattr(hidden[:, :2], f"{function}_")()
        return hidden

    x, x0 = normal(5, 4), normal(5, 4, seed=1)
    change = torch.cat([expected(function, x[:, :2], x0[:, :2]), (x - x0)[:, 2:]], 1)
    assert_met(model, function, change=change)


def test_in_place_on_the_input_itself():
    assert_met(lambda x: x.relu_(), "relu")


def test_a_chain_of_in_place_activations():
    def model(x):
        hidden = x * 1
        hidden.tanh_()
        hidden.sub_(0.1).relu_()
        return hidden

    x, x0 = normal(5, 4), normal(5, 4, seed=1)
    assert_met(model, "relu", change=(x.tanh() - 0.1).relu() - (x0.tanh() - 0.1).relu())


@pytest.mark.parametrize(
    "overwrite",
    [
        lambda hidden: hidden.zero_(),
        lambda hidden: hidden.add_(5.0),
        lambda hidden: hidden.relu_(),
        lambda hidden: hidden[:, 0].fill_(9.0),
        lambda hidden: hidden.reshape(-1)[::2].mul_(-1),
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_pre_activation_may_be_overwritten_after_its_use(function, overwrite):
    def model(x):
        hidden = x * 1
        result = getattr(torch, function)(hidden)
        with torch.no_grad():
            overwrite(hidden)
        return result

    assert_met(model, function)


def test_a_residual_written_into_the_pre_activation():
    def model(x):
        hidden = x * 1
        hidden += torch.tanh(hidden)
        return hidden.relu()

    def change(x):
        return (x + x.tanh()).relu()

    x, x0 = normal(5, 4), normal(5, 4, seed=1)
    assert_met(model, "tanh", change=change(x) - change(x0))


def test_the_output_of_an_in_place_activation_may_go_on_being_changed():
    def model(x):
        hidden = (x * 1).relu_()
        hidden.mul_(2).add_(1)
        return hidden

    assert_met(model, "relu", change=2 * expected("relu", normal(5, 4), normal(5, 4, seed=1)))


def test_an_activation_used_twice_adds_up():
    def model(x):
        gate = torch.sigmoid(x)
        return gate + 2 * gate

    assert_met(model, "sigmoid", change=3 * expected("sigmoid", normal(5, 4), normal(5, 4, seed=1)))


@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded", "channels last", "0-d sums"])
def test_pre_activations_of_any_strides(layout):
    arrange = {
        "transposed": lambda x: x.transpose(1, 3),
        "sliced": lambda x: x[:, ::2, 1:],
        "expanded": lambda x: x[:, :1].expand(-1, 3, -1, -1),
        "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "0-d sums": lambda x: torch.stack([row.sum() for row in x]),
    }[layout]
    x, x0 = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    found = attribute(lambda x: torch.tanh(arrange(x)).reshape(2, -1).sum(1), x, x0)
    assert found.convergence_delta.abs().max() < 1e-12


@pytest.mark.parametrize(
    "call",
    [
        nn.GELU(),
        nn.SiLU(),
        nn.Softplus(),
        nn.ReLU6(),
        nn.LeakyReLU(0.1),
        nn.ELU(),
        nn.LogSigmoid(),
        lambda x: x.clamp(min=0),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
        lambda x: F.threshold(x, 0.0, 0.0),
        lambda x: x.exp() / 10,
        lambda x: x.softmax(1),
    ],
)
def test_everything_else_has_its_ordinary_gradient(call):
    x, x0 = normal(5, 4), normal(5, 4, seed=1)
    leaf = x.clone().requires_grad_()
    call(leaf)[:, 0].sum().backward()
    found = raw(lambda x: call(x)[:, :1], x, x0)
    torch.testing.assert_close(found, (leaf.grad * (x - x0)).sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
def test_a_part_under_no_grad_or_detached_contributes_nothing(rules):
    def model(x):
        with torch.no_grad():
            frozen = torch.relu(x)
        return x + frozen + torch.tanh(x.detach()) + torch.relu(torch.ones(4))

    x, x0 = normal(5, 4), normal(5, 4, seed=1)
    torch.testing.assert_close(raw(model, x, x0, rules=rules), (x - x0).sum(1))


def test_activations_of_other_types_are_left_alone():
    def model(x):
        counts = torch.relu(torch.tensor([-1, 2]))
        waves = torch.tanh(torch.view_as_complex(torch.ones(2, 2)))
        return torch.relu(x) * counts[1] + waves.real.sum() * 0

    assert_met(model, "relu", change=2 * expected("relu", normal(5, 4), normal(5, 4, seed=1)))


def test_out_arguments_are_left_alone():
    def model(x):
        gate = torch.empty(5, 4, dtype=torch.float64)
        torch.sigmoid(x.detach(), out=gate)
        return torch.relu(x) + gate * 0

    assert_met(model, "relu")


def test_exactly_two_forward_passes():
    passes = []

    def model(x):
        passes.append(torch.is_grad_enabled())
        return torch.tanh(torch.relu(x * 1).sigmoid_() + x)

    attribute(model, normal(5, 4), target=0)
    assert passes == [False, True]


def test_layers_run_twice_each():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    calls = []
    for layer in model:
        layer.register_forward_hook(lambda module, *_: calls.append(module))
    attribute(model, normal(5, 4), target=0)
    assert calls == list(model) * 2


@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_what_is_drawn_from_data_is_drawn_once_at_the_input(rules):
    def model(x):
        drawn = torch.multinomial((9 * x).softmax(-1), 1)
        return x.sum(1) * 0 + drawn.squeeze(1)

    x, x0 = normal(40, 6), normal(40, 6, seed=1)
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    found = attribute(model, x, x0, rules=rules)
    assert torch.equal(found.output, expected)
    assert torch.equal(found.baseline_output, expected)
