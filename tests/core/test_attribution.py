"""attribute: what it takes, what it returns, what it refuses."""

import functools
import math

import pytest
import torch
from torch import nn

from deeplift_fast import InterceptionError, attribute

pytestmark = pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def mlp(inputs=4, outputs=3):
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, outputs))


class Weighted(nn.Module):
    """Adds its two inputs up with weights of its own, and scales: contributions are known."""

    def forward(self, a, b, scale=1.0):
        return ((a.flatten(1).sum(1) + 2 * b.flatten(1).sum(1)) * scale).unsqueeze(1)


A, B = normal(3, 2, 4), normal(3, 5, seed=1)


def test_a_tensor():
    found = attribute(nn.Linear(4, 1), A[:, 0])
    assert isinstance(found.contributions, torch.Tensor)
    assert found.contributions.shape == (3, 4)


@pytest.mark.parametrize("sequence", [tuple, list])
def test_a_sequence(sequence):
    found = attribute(Weighted(), sequence([A, B]))
    a, b = found.contributions
    torch.testing.assert_close(a, A)
    torch.testing.assert_close(b, 2 * B)


def test_a_mapping():
    found = attribute(Weighted(), {"b": B, "a": A}, {"a": None, "b": 1.0})
    assert list(found.contributions) == ["b", "a"]
    torch.testing.assert_close(found.contributions["a"], A)
    torch.testing.assert_close(found.contributions["b"], 2 * (B - 1))


def test_a_batch_of_numbers():
    x = torch.tensor([1.0, -2.0, 3.0])
    found = attribute(torch.relu, x, -1.0)
    torch.testing.assert_close(found.contributions, torch.tensor([1.0, 0.0, 3.0]))


@pytest.mark.parametrize(
    ("inputs", "forward_args"),
    [
        ((A, B), (3.0,)),
        ((A, B), [3.0]),
        ((A, B), {"scale": 3.0}),
        ({"a": A, "b": B}, {"scale": 3.0}),
        ({"a": A, "b": B}, {"scale": torch.tensor(3.0)}),
    ],
)
def test_further_arguments(inputs, forward_args):
    found = attribute(Weighted(), inputs, forward_args=forward_args)
    a, b = found.contributions.values() if isinstance(found.contributions, dict) else found.contributions
    torch.testing.assert_close(a, 3 * A)
    torch.testing.assert_close(b, 6 * B)


def test_further_arguments_are_not_attributed():
    x, mask = normal(3, 4), torch.tensor([1.0, 0.0, 1.0, 0.0])
    found = attribute(lambda x, mask, lengths: torch.relu(x) * mask, x, target=0, forward_args=(mask, torch.ones(3)))
    torch.testing.assert_close(found.contributions, torch.relu(x) * torch.tensor([1.0, 0.0, 0.0, 0.0]))


class Callable_:
    def __init__(self):
        self.layer = mlp()

    def __call__(self, x):
        return self.layer(x)

    def method(self, x):
        return self.layer(x)


def test_any_callable():
    owner, x = Callable_(), normal(5, 4)
    expected = attribute(owner.layer, x, target=1).contributions
    for model in (
        owner,
        owner.method,
        owner.layer.forward,
        lambda x: owner.layer(x),
        functools.partial(owner.layer.__call__),
        functools.partial(lambda scale, x: owner.layer(x) * scale, 1.0),
    ):
        assert torch.equal(attribute(model, x, target=1).contributions, expected)


def test_outputs_and_delta_are_those_of_the_model():
    model, x, x0 = mlp(), normal(5, 4), normal(4, seed=1)
    found = attribute(model, x, x0, target=2)
    torch.testing.assert_close(found.output, model(x)[:, 2].detach())
    torch.testing.assert_close(found.baseline_output, model(x0.expand(5, 4))[:, 2].detach())
    torch.testing.assert_close(found.contributions.sum(1), found.output - found.baseline_output)
    assert found.convergence_delta.shape == (5,)
    assert found.convergence_delta.abs().max() < 1e-6


def test_the_delta_is_what_was_missing_before_the_rescaling():
    model, x, x0 = nn.GELU(), normal(6, 4, dtype=torch.float64), normal(6, 4, seed=1, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    model(leaf).sum().backward()
    raw = leaf.grad * (x - x0)
    difference = (model(x) - model(x0)).sum(1)
    found = attribute(lambda x: model(x).sum(1), x, x0)
    torch.testing.assert_close(found.convergence_delta, raw.sum(1) - difference)
    torch.testing.assert_close(found.contributions, raw * (difference / raw.sum(1)).unsqueeze(1))
    torch.testing.assert_close(found.contributions.sum(1), difference)


def test_attribution_of_a_sample_does_not_depend_on_its_batch():
    model, x, x0 = mlp().double(), normal(6, 4, dtype=torch.float64), normal(6, 4, seed=1, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    together = attribute(model, x, x0, target)
    for index in range(6):
        row = slice(index, index + 1)
        alone = attribute(model, x[row], x0[row], target[row])
        torch.testing.assert_close(alone.contributions, together.contributions[row])
        torch.testing.assert_close(alone.output, together.output[row])


def test_per_sample_targets_are_those_of_single_targets():
    model, x = mlp(), normal(6, 4)
    target = torch.tensor([2, 0, 1, 1, 0, 2])
    found = attribute(model, x, target=target).contributions
    for index, one in enumerate(target.tolist()):
        torch.testing.assert_close(found[index], attribute(model, x, target=one).contributions[index])


def test_an_input_that_the_output_ignores_contributes_nothing():
    a, b = attribute(lambda a, b: torch.relu(a), (B, A), target=0).contributions
    assert a.any()
    assert b.shape == A.shape
    assert not b.any()


def test_no_difference_means_no_contribution():
    found = attribute(mlp(), A[:, 0], A[:, 0], target=0)
    assert not found.contributions.any()
    assert found.convergence_delta.abs().max() < 1e-7


@pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types(dtype, rules):
    model = mlp()
    expected = attribute(model, normal(5, 4), target=0, rules=rules)
    found = attribute(model.to(dtype), normal(5, 4, dtype=dtype), target=0, rules=rules)
    tolerance = 20 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-5
    for name in ("contributions", "output", "baseline_output"):
        assert getattr(found, name).dtype == dtype
        torch.testing.assert_close(
            getattr(found, name).double(), getattr(expected, name).double(), rtol=0, atol=tolerance
        )
    assert found.convergence_delta.dtype == dtype


def test_inputs_may_differ_in_type():
    found = attribute(lambda a, b: a.double() + b[:, :4], (A[:, 0], B.double()), target=0)
    assert [c.dtype for c in found.contributions] == [torch.float32, torch.float64]


@pytest.mark.parametrize(
    "view", [lambda x: x.t(), lambda x: x[::2], lambda x: x[0].expand(3, 4), lambda x: nn.Parameter(x)]
)
def test_inputs_of_any_strides_and_kinds(view):
    x = view(normal(4, 4))
    found = attribute(mlp(), x, target=0)
    expected = attribute(mlp(), x.detach().clone().contiguous(), target=0)
    assert type(found.contributions) is torch.Tensor
    assert found.contributions.shape == expected.contributions.shape
    assert not found.contributions.requires_grad


@pytest.mark.parametrize("target", [None, 0, torch.empty(0, dtype=torch.int64)])
@pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
def test_an_empty_batch_gives_empty_results(target, rules):
    found = attribute(mlp(), torch.empty(0, 4), target=target, rules=rules)
    assert found.contributions.shape == (0, 4)
    for result in (found.output, found.baseline_output, found.convergence_delta, found.target):
        assert result.shape == (0,)
    assert found.target.dtype == torch.int64


def test_an_empty_batch_of_several_inputs():
    found = attribute(Weighted(), {"a": A[:0], "b": B[:0].double()}, target=lambda output: output[:, 0])
    assert {name: c.shape for name, c in found.contributions.items()} == {"a": (0, 2, 4), "b": (0, 5)}
    assert found.contributions["b"].dtype == torch.float64
    assert found.target is None


def test_a_sample_without_values():
    found = attribute(lambda a, b: a, (B, torch.empty(3, 0)), target=0)
    assert found.contributions[1].shape == (3, 0)


OK = normal(3, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "mlp"}, TypeError, "model is a str; accepted: a torch.nn.Module or a callable"),
        ({"inputs": 1.0}, TypeError, "inputs is a float; accepted: a tensor, a sequence or a mapping"),
        ({"inputs": {OK}}, TypeError, "inputs is a set"),
        ({"inputs": []}, ValueError, "inputs is empty"),
        ({"inputs": {}}, ValueError, "inputs is empty"),
        ({"inputs": [OK, None]}, TypeError, "input 1 is a NoneType; accepted: a floating-point tensor"),
        ({"inputs": [[1.0]]}, TypeError, "input 0 is a list"),
        ({"inputs": {"labs": OK.long()}}, TypeError, r"'labs' is torch.int64.*LayerDeepLift.*forward_args.*\.float"),
        ({"inputs": OK.bool()}, TypeError, "input 0 is torch.bool"),
        ({"inputs": OK.cfloat()}, TypeError, "input 0 is torch.complex64"),
        ({"inputs": torch.tensor(1.0)}, ValueError, "input 0 has no dimensions"),
        ({"inputs": torch.tensor([[1.0, math.nan]])}, ValueError, "input 0 holds 1 value.*NaN or inf.*impute"),
        ({"inputs": {"x": torch.tensor([[math.inf, -math.inf]])}}, ValueError, "input 'x' holds 2 value"),
        ({"inputs": (OK, OK[:2])}, ValueError, r"differ in batch size.*\{0: 3, 1: 2\}"),
        ({"inputs": (OK, OK.to("meta"))}, ValueError, "different devices"),
        ({"rules": "epsilon"}, ValueError, "rules is 'epsilon'; accepted: 'rescale', 'complete', 'pyhealth'"),
        ({"rules": None}, ValueError, "rules is None"),
        ({"steps": 0}, ValueError, "steps is 0; accepted: 1 or more"),
        ({"steps": 2.0}, TypeError, "steps is 2.0; accepted: an int"),
        ({"rules": "pyhealth", "steps": 2}, ValueError, "steps is 2; accepted"),
        ({"delta_tol": -1.0}, ValueError, "delta_tol is -1.0"),
        ({"delta_tol": "1%"}, TypeError, "delta_tol is '1%'"),
        ({"forward_args": OK}, TypeError, "forward_args is a Tensor; accepted: a sequence"),
        ({"forward_args": 3}, TypeError, "forward_args is a int"),
        ({"forward_args": "mask"}, TypeError, "forward_args is a str"),
        ({"inputs": {"x": OK}, "forward_args": {"x": OK}}, ValueError, "forward_args holds 'x', which inputs holds"),
    ],
)
def test_refusals_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        attribute(**{"model": lambda *x, **named: [*x, *named.values()][0], "inputs": OK, "target": 0} | arguments)


def test_the_models_own_errors_pass_through():
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        attribute(Weighted(), {"a": A, "b": B, "c": B})
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        attribute(mlp(), normal(3, 5))


def test_the_rules_differ_where_units_saturate():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(x).sum(1)

    x, x0 = torch.tensor([[-1.0, 3.0]]), torch.tensor([[2.0, 1.0]])
    exact = attribute(Sum(), x, x0)
    assert exact.contributions.tolist() == [[-2.0, 2.0]]
    assert exact.convergence_delta.item() == 0
    as_pyhealth = attribute(Sum(), x, x0, rules="pyhealth")
    assert as_pyhealth.contributions[0, 0] == 0
    assert as_pyhealth.convergence_delta.item() == 2


def test_modules_of_a_callable_may_be_an_iterator(untouched):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with untouched(model), pytest.warns(UserWarning, match="BatchNorm1d"):
        attribute(lambda x: model(x), normal(5, 4), target=0, modules=iter([model]))


def test_saved_tensor_hooks_around_the_call_are_refused():
    with torch.autograd.graph.save_on_cpu(), pytest.raises(InterceptionError, match="or around this call"):
        attribute(mlp(), normal(5, 4), target=0)
    assert attribute(mlp(), normal(5, 4), target=0)
