"""SecantRule: what it hands back in the backward pass accounts for the whole change of the activation."""

import pytest
import torch

from deeplift_fast.rules import SecantRule

FUNCTIONS = ("relu", "sigmoid", "tanh")
DTYPES = (torch.float32, torch.float64)
RTOL = {torch.float32: 1e-5, torch.float64: 1e-12}


def normal(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def multiplier(x, x0, function, variant="rescale"):
    x = x.clone().requires_grad_()
    SecantRule.apply(x, x0, function, variant).sum().backward()
    return x.grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_forward_is_the_activation(function, dtype):
    x = normal(50, dtype=dtype).requires_grad_()
    y = SecantRule.apply(x, normal(50, dtype=dtype, seed=1), function, "rescale")
    assert y.requires_grad
    torch.testing.assert_close(y, getattr(torch, function)(x), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_multiplier_times_difference_is_the_change(function, dtype):
    x, x0 = normal(200, dtype=dtype), normal(200, dtype=dtype, seed=1)
    change = getattr(torch, function)(x) - getattr(torch, function)(x0)
    # The change itself is known to a rounding of its terms only.
    torch.testing.assert_close(
        multiplier(x, x0, function) * (x - x0), change, rtol=RTOL[dtype], atol=2 * torch.finfo(dtype).eps * 10
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_it_is_the_gradient_where_input_and_baseline_agree(function):
    x = normal(200).requires_grad_()
    getattr(torch, function)(x).sum().backward()
    torch.testing.assert_close(multiplier(x.detach(), x.detach(), function), x.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_swapping_input_and_baseline_turns_the_sign_of_the_contribution(function):
    x, x0 = normal(200), normal(200, seed=1)
    there, back = multiplier(x, x0, function) * (x - x0), multiplier(x0, x, function) * (x0 - x)
    torch.testing.assert_close(there, -back, rtol=1e-12, atol=0)


def test_a_saturated_unit_still_contributes():
    x, x0 = torch.tensor([-1.0, 12.0]), torch.tensor([2.0, 0.0])
    torch.testing.assert_close(multiplier(x[:1], x0[:1], "relu"), torch.tensor([2 / 3]))
    torch.testing.assert_close(multiplier(x[1:], x0[1:], "tanh"), torch.tensor([1 / 12]))
    assert multiplier(x[:1], x0[:1], "relu", "pyhealth") == 0
    assert multiplier(x[1:], x0[1:], "tanh", "pyhealth") == 0


def test_an_activation_used_twice_adds_its_uses():
    x, x0 = normal(20), normal(20, seed=1)
    leaf = x.clone().requires_grad_()
    y = SecantRule.apply(leaf, x0, "tanh", "rescale")
    (2 * y + 3 * y).sum().backward()
    torch.testing.assert_close(leaf.grad, 5 * multiplier(x, x0, "tanh"))


def test_one_input_may_meet_two_baselines():
    x = normal(20)
    leaf = x.clone().requires_grad_()
    baselines = normal(20, seed=1), normal(20, seed=2)
    sum(SecantRule.apply(leaf, x0, "tanh", "rescale").sum() for x0 in baselines).backward()
    torch.testing.assert_close(leaf.grad, sum(multiplier(x, x0, "tanh") for x0 in baselines))


def test_rules_chain():
    x, x0, weight = normal(7), normal(7, seed=1), normal(5, 7, seed=2)
    leaf = x.clone().requires_grad_()
    hidden = SecantRule.apply(weight @ leaf, weight @ x0, "tanh", "rescale")
    hidden0 = torch.tanh(weight @ x0)
    SecantRule.apply(hidden.sum(), hidden0.sum(), "sigmoid", "rescale").backward()
    change = torch.sigmoid(torch.tanh(weight @ x).sum()) - torch.sigmoid(hidden0.sum())
    torch.testing.assert_close((leaf.grad * (x - x0)).sum(), change, rtol=1e-12, atol=1e-14)


def test_the_baseline_gets_no_gradient():
    x, x0 = normal(5).requires_grad_(), normal(5, seed=1).requires_grad_()
    SecantRule.apply(x, x0, "tanh", "rescale").sum().backward()
    assert x.grad is not None
    assert x0.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_keep_their_type(dtype):
    x, x0 = normal(50, dtype=dtype), normal(50, dtype=dtype, seed=1)
    found = multiplier(x, x0, "tanh")
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), multiplier(x.float(), x0.float(), "tanh"), rtol=1e-2, atol=1e-3)


def test_strides_of_the_incoming_gradient_do_not_matter():
    x, x0, weight = normal(4, 6), normal(4, 6, seed=1), normal(6, 4, seed=2)
    leaf = x.t().contiguous().t().requires_grad_()
    (SecantRule.apply(leaf, x0, "tanh", "rescale").t() * weight).sum().backward()
    torch.testing.assert_close(leaf.grad, weight.t() * multiplier(x, x0, "tanh"))


def test_only_the_multiplier_is_kept_for_the_backward_pass():
    """The pre-activation may be overwritten after its use."""
    x, x0 = normal(20), normal(20, seed=1)
    leaf = x.clone().requires_grad_()
    pre = leaf * 1.0
    y = SecantRule.apply(pre, x0, "tanh", "rescale")
    with torch.no_grad():
        pre.zero_()
        x0.zero_()
    y.sum().backward()
    torch.testing.assert_close(leaf.grad, multiplier(x, normal(20, seed=1), "tanh"))


@pytest.mark.parametrize(
    ("x0", "function", "variant", "error"),
    [
        (torch.zeros(2), "relu", "rescale", ValueError),
        (torch.zeros(3).double(), "relu", "rescale", TypeError),
        (torch.zeros(3), "softplus", "rescale", ValueError),
        (torch.zeros(3), "relu", "half", ValueError),
    ],
)
def test_refusals_are_those_of_the_op(x0, function, variant, error):
    with pytest.raises(error, match="secant_at_input: "):
        SecantRule.apply(torch.zeros(3, requires_grad=True), x0, function, variant)
