"""relu, sigmoid and tanh of `deeplift_fast.rules`: what their callers rely on, for any numbers."""

import doctest

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, jacrev, vjp, vmap

from deeplift_fast import ops, rules
from deeplift_fast.rules import functions, secant

NAMES = ("relu", "sigmoid", "tanh")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NUMBERS = st.floats(-30, 30)
# The differences that a kernel meets, from those that a quotient cannot resolve to those that saturate.
DELTAS = st.tuples(st.sampled_from([-1.0, 1.0]), st.floats(-12, 2)).map(lambda drawn: drawn[0] * 10 ** drawn[1])


def multipliers(name, x, x0, variant="rescale"):
    x = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(getattr(rules, name)(x, x0, variant).sum(), x)
    return found


def derivative(name, x):
    x = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(getattr(torch, name)(x).sum(), x)
    return found


def normal(*shape, seed=0, dtype=torch.float32):
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


@pytest.mark.parametrize("name", NAMES)
@given(x0=NUMBERS, delta=DELTAS)
def test_multiplier_times_difference_is_the_change(name, x0, delta):
    x0 = torch.tensor([x0], dtype=torch.float64)
    x = x0 + delta
    change = getattr(torch, name)(x) - getattr(torch, name)(x0)
    # The change on the right is a difference of rounded numbers.
    rounding = 4 * torch.finfo(torch.float64).eps * max(1.0, float(x.abs()))
    torch.testing.assert_close(multipliers(name, x, x0) * (x - x0), change, rtol=1e-13, atol=rounding)


@pytest.mark.parametrize("name", NAMES)
@given(x=NUMBERS)
def test_it_is_the_derivative_where_the_arguments_agree(name, x):
    x = torch.tensor([x], dtype=torch.float64)
    torch.testing.assert_close(multipliers(name, x, x), derivative(name, x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
@given(x=st.floats(-3, 3))
def test_it_comes_to_the_derivative_without_a_step(name, x):
    x = torch.tensor([x], dtype=torch.float64)
    for exponent in range(3, 17):
        delta = 10.0**-exponent
        error = multipliers(name, x + delta, x) - derivative(name, x)
        assert float(error.abs()) <= 0.5 * delta + 1e-15  # |f''| < 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_value_is_the_activation(name, dtype):
    x = normal(4, 5, dtype=dtype).mT
    found, expected = getattr(rules, name)(x, torch.zeros_like(x)), getattr(torch, name)(x)
    assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())
    torch.testing.assert_close(found, expected)
    assert multipliers(name, x, x + 1).dtype == dtype


@pytest.mark.parametrize("variant", ["rescale", "pyhealth"])
@pytest.mark.parametrize("name", NAMES)
def test_functional_transforms_give_the_same_multipliers(name, variant):
    x, x0 = normal(4, 3), normal(4, 3, seed=1)
    function, expected = getattr(rules, name), multipliers(name, x, x0, variant)

    def total(x, x0):
        return function(x, x0, variant).sum()

    assert torch.equal(grad(total)(x, x0), expected)
    assert torch.equal(vjp(lambda t: function(t, x0, variant), x)[1](torch.ones(4, 3))[0], expected)
    assert torch.equal(jacrev(lambda t: function(t, x0[0], variant))(x[0]).diagonal(), expected[0])
    assert torch.equal(vmap(grad(total))(x, x0), expected)
    assert torch.equal(vmap(grad(total), in_dims=(1, 1), out_dims=1)(x, x0), expected)
    assert torch.equal(
        vmap(grad(total), in_dims=(0, None))(x, x0[0]), multipliers(name, x, x0[:1].expand(4, 3), variant)
    )
    values = vmap(lambda given, given0: function(given, given0, variant))(x, x0)
    assert torch.equal(values, function(x, x0, variant))


def test_a_baseline_gets_no_gradient_under_transforms_either():
    x, x0 = normal(3), normal(3, seed=1)
    assert not grad(lambda t: rules.tanh(x, t).sum())(x0).any()


def test_a_forward_derivative_is_refused():
    with pytest.raises(RuntimeError, match="jvp"):
        torch.func.jvp(lambda t: rules.tanh(t, torch.zeros(3)), (normal(3),), (torch.ones(3),))


@pytest.mark.parametrize(
    ("x0", "variant", "error"),
    [
        (torch.zeros(1, 3), "rescale", ValueError),
        (torch.zeros(3), "half", ValueError),
        (torch.zeros(3).double(), "rescale", TypeError),
        (0.0, "rescale", TypeError),
    ],
)
def test_refusals_are_those_of_the_op(x0, variant, error):
    for name in NAMES:
        with pytest.raises(error, match="secant_at_input: "):
            getattr(rules, name)(torch.zeros(3), x0, variant)


def test_pyhealths_epsilon_gives_the_derivative():
    x = torch.tensor([0.5, 12.0], dtype=torch.float64)
    x0 = torch.tensor([0.5 - 0.9e-7, 0.0], dtype=torch.float64)
    torch.testing.assert_close(multipliers("tanh", x, x0, "pyhealth"), derivative("tanh", x), rtol=1e-12, atol=1e-12)
    assert float(multipliers("tanh", x, x0)[1]) == pytest.approx(1 / 12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(name, dtype):
    x, x0 = normal(1000, dtype=dtype), normal(1000, seed=1, dtype=dtype)
    found = multipliers(name, x.cuda(), x0.cuda())
    assert found.dtype == dtype
    torch.testing.assert_close(found.cpu(), multipliers(name, x, x0))


@pytest.mark.parametrize("module", [functions, secant], ids=lambda module: module.__name__.rpartition(".")[2])
def test_examples_run(module):
    names = {"torch": torch, "relu": rules.relu, "SecantRule": rules.SecantRule}
    found = doctest.testmod(module, extraglobs=names, raise_on_error=True)
    assert found.attempted


def test_the_op_gives_the_same_without_autograd():
    x, x0 = normal(7), normal(7, seed=1)
    y, y0, multiplier = ops.secant(x, x0, "tanh")
    assert torch.equal(y, rules.tanh(x, x0))
    assert torch.equal(y0, rules.tanh(x0, x))
    assert torch.equal(multiplier, multipliers("tanh", x, x0))
