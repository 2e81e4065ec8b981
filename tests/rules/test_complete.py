"""`rules="complete"`: `Σ m·Δx = Δy` for every operation, whatever its form."""

import numpy as np
import pytest
import torch
from rule_cases import CALLS, ELEMENTWISE, LINEAR, MIXING, PRODUCTS, QUADRATURE, SOFTMAX, positive

from deeplift_fast import attribute

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
JUMPS = {"round", "floor", "sign", "remainder", "floor division", "F.hardshrink", "threshold", "straight through"}


def normal(seed, dtype=torch.float64):
    return torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def mixed(call):
    """A model of one output per sample, in which an operation's results get unequal weights."""

    def model(x):
        y = call(x * 1).reshape(5, -1)
        weights = torch.linspace(-1, 2, y.shape[1], dtype=torch.float64).to(y.dtype)
        return (y * weights).sum(1, keepdim=True)

    return model


def complete(call, x, x0, **options):
    torch.manual_seed(0)
    return attribute(mixed(call), x, x0, 0, rules="complete", **options)


@pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CALLS)
def test_contributions_sum_to_the_change(name, dtype):
    x, x0 = normal(0, dtype), normal(1, dtype)
    x0[:, 0] = x[:, 0]  # some of the inputs do not differ
    found = complete(CALLS[name], x, x0)
    change = found.output - found.baseline_output
    assert found.convergence_delta.abs().max() <= TOLERANCE[dtype] * max(1, float(change.abs().max()))
    assert (found.contributions[:, 0] == 0).all()
    assert found.contributions.isfinite().all()
    assert change.abs().max() > 0


DRAWS = {"elementwise: rrelu in training", "softmax: gumbel_softmax"}


@pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning")
@pytest.mark.parametrize("name", sorted(CALLS.keys() - DRAWS))
def test_the_output_is_that_of_the_operation_itself(name):
    x = normal(0)
    found = complete(CALLS[name], x, normal(1))
    torch.testing.assert_close(found.output, mixed(CALLS[name])(x)[:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name", sorted({**ELEMENTWISE, **SOFTMAX, **PRODUCTS}.keys() - JUMPS - MIXING - {"stopped", "rrelu in training"})
)
def test_at_the_baseline_multipliers_are_the_gradient(name):
    call, x = {**ELEMENTWISE, **SOFTMAX, **PRODUCTS}[name], normal(0)
    near = x.clone()
    near[:, 1] += 1e-9
    found = complete(call, near, x)
    leaf = x.clone().requires_grad_()
    torch.manual_seed(0)
    (gradient,) = torch.autograd.grad(mixed(call)(leaf).sum(), leaf)
    expected = gradient * (near - x)
    torch.testing.assert_close(found.contributions, expected, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in CALLS if name.partition(": ")[2] not in MIXING])
def test_swapping_input_and_baseline_negates_contributions(name):
    x, x0 = normal(2), normal(3)
    there, back = complete(CALLS[name], x, x0), complete(CALLS[name], x0, x)
    torch.testing.assert_close(there.contributions, -back.contributions, rtol=1e-8, atol=1e-10)


ONE_OPERATION = (
    "prod",
    "cumprod",
    "local_response_norm",
    "binary cross entropy",
    "avg_pool1d",
    "interpolate",
    "gather",
)


@pytest.mark.parametrize("name", ONE_OPERATION)
def test_quadrature_agrees_with_the_integral(name):
    call, x, x0 = {**QUADRATURE, **LINEAR}[name], normal(4), normal(5)
    model, total = mixed(call), torch.zeros_like(x)
    for k in range(400):
        point = (x0 + (k + 0.5) / 400 * (x - x0)).requires_grad_()
        total += torch.autograd.grad(model(point).sum(), point)[0] / 400
    torch.testing.assert_close(complete(call, x, x0).contributions, total * (x - x0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["products: quotient", "softmax: softmax", "layers: GRU", "norms: layer_norm"])
def test_path_steps_are_complete_and_tend_to_integrated_gradients(name):
    call, x, x0 = CALLS[name], normal(6), normal(7)
    model, total = mixed(call), torch.zeros_like(x)
    for k in range(1000):
        point = (x0 + (k + 0.5) / 1000 * (x - x0)).requires_grad_()
        total += torch.autograd.grad(model(point).sum(), point)[0] / 1000
    errors = []
    for steps in (1, 4, 16):
        found = complete(call, x, x0, steps=steps)
        assert found.convergence_delta.abs().max() < 1e-9
        errors.append(float((found.contributions - total * (x - x0)).abs().max()))
    assert errors[2] < errors[0] or errors[0] < 1e-3
    assert errors[2] < 0.2 * (x - x0).abs().max()


def test_softmax_from_one_hot_to_one_hot_at_extreme_logits():
    x, x0 = torch.full((1, 4), -1e4), torch.full((1, 4), -1e4)
    x[0, 1], x0[0, 2] = 1e4, 1e4
    for target, change in enumerate((0.0, 1.0, -1.0, 0.0)):
        found = attribute(lambda z: z.softmax(-1), x, x0, target, rules="complete")
        assert float(found.output - found.baseline_output) == change
        assert found.convergence_delta.abs() < 1e-6
        assert (found.contributions != 0).sum() == (2 if change else 0)


def test_a_row_of_softmax_that_is_masked_altogether_spoils_no_other():
    def model(x):
        masked = x.masked_fill(torch.tensor([[True] * 3, [False] * 3]), -torch.inf).softmax(-1)
        return masked.masked_fill(torch.tensor([[True] * 3, [False] * 3]), 0.0)

    x, x0 = torch.randn(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    found = attribute(model, x, x0, 1, rules="complete")
    assert (found.contributions[0] == 0).all()
    assert found.contributions[1].abs().max() > 0
    assert found.convergence_delta.abs().max() < 1e-12


@pytest.mark.parametrize("at_once", [2, 3, 8])
@pytest.mark.parametrize("target", [None, 1, torch.tensor([0, 1, 2, 1, 0])])
def test_segments_in_one_batch_give_the_same(at_once, target):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 8), torch.nn.GELU(), torch.nn.Linear(8, 3))
    model = model.double().append(torch.nn.Softmax(-1))
    x, x0, calls = normal(8), normal(9), []
    model.register_forward_hook(lambda *_: calls.append(1))
    options = {"target": target, "rules": "complete", "steps": 5}
    expected = attribute(model, x, x0, **options)
    calls.clear()
    found = attribute(model, x, x0, segments_at_once=at_once, **options)
    assert len(calls) == 2 * -(-5 // at_once) + (target is None)
    torch.testing.assert_close(found.contributions, expected.contributions, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.output, expected.output)
    torch.testing.assert_close(found.baseline_output, expected.baseline_output)
    assert found.convergence_delta.abs().max() < 1e-12
    assert torch.equal(found.target, expected.target)


def test_further_arguments_are_repeated_with_the_segments():
    def model(x, scale, mask, factor):
        return (x.exp() * scale).masked_fill(mask, 0.0).sum((1, 2)) * factor

    args = (torch.rand(5, 1, 1, dtype=torch.float64), torch.rand(4, 6) > 0.5, 3.0)
    options = {"forward_args": args, "rules": "complete", "steps": 4}
    expected = attribute(model, normal(0), normal(1), **options)
    found = attribute(model, normal(0), normal(1), segments_at_once=4, **options)
    torch.testing.assert_close(found.contributions, expected.contributions)


@pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning")
@pytest.mark.parametrize("name", CALLS)
def test_results_may_be_written_to(name):
    def written(x):
        return CALLS[name](x).mul_(2.0)

    x, x0 = normal(0), normal(1)
    try:
        mixed(written)(x.clone().requires_grad_())
    except RuntimeError:
        pytest.skip("PyTorch itself hands out what may not be written to")
    found = complete(written, x, x0)
    assert found.convergence_delta.abs().max() <= 1e-10 * max(1, float(found.output.abs().max()))


VIEWS = {
    "einsum of two": lambda x: torch.einsum("bij,bkj->bki", x, x.exp()),
    "einsum, a path": lambda x: torch.einsum("bij,bkj,bkl->bil", x, x, x),
    "matrices on the left": lambda x: torch.matmul(x[:, 0], x.mT),
    "matmul of many by one": lambda x: torch.matmul(x.unsqueeze(1), x[:, None].mT),
    "tensordot": lambda x: torch.stack([torch.tensordot(each, each, dims=([1], [1])) for each in x]),
    "bilinear": lambda x: torch.nn.functional.bilinear(x, x.flip(1), torch.ones(2, 6, 6, dtype=x.dtype)),
    "kron": lambda x: torch.stack([torch.kron(each, each) for each in x]),
    "a convolution without a batch": lambda x: torch.stack(
        [torch.nn.functional.conv1d(each, each[:, None, :2], groups=4).mul_(3.0) for each in x]
    ),
}


@pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning")
@pytest.mark.parametrize("fill", ["masked_fill_", "add_", "setitem"])
@pytest.mark.parametrize("name", VIEWS)
def test_products_may_be_written_to_in_place(name, fill):
    def model(x):
        y = VIEWS[name](x)
        if fill == "masked_fill_":
            y.masked_fill_(torch.arange(y.shape[-1]) > 1, 0.5)
        elif fill == "add_":
            y.add_(x.mean())
        else:
            y[..., 0] = x.exp().sum()
        return y

    assert complete(model, normal(0), normal(1)).convergence_delta.abs().max() < 1e-9


EXPONENT = torch.tensor([1.0, 2.0, 3.0, 0.5, 2.0, 2.0], dtype=torch.float64)
OPTIONS = {
    "exponents": lambda x: positive(x) ** EXPONENT,
    "whole exponents": lambda x: x ** torch.tensor([1, 2, 3, 4, 5, 6]),
    "an exponent of 2 in a tensor": lambda x: x ** torch.tensor(2.0, dtype=x.dtype),
    "pow": lambda x: torch.pow(positive(x), exponent=EXPONENT),
    "pow_": lambda x: positive(x).pow_(EXPONENT),
    "float_power": lambda x: torch.float_power(positive(x), EXPONENT),
    "a number to the x": lambda x: torch.pow(2, x),
    "numbers to the x": lambda x: EXPONENT**x,
    "numbers to the x, in a function": lambda x: torch.pow(EXPONENT, x),
    "remainder of numbers": lambda x: torch.remainder(x, EXPONENT),
    "clamp between numbers in tensors": lambda x: x.clamp(torch.tensor(-0.3), torch.tensor(0.4)),
    "xlogy": lambda x: torch.special.xlogy(EXPONENT, positive(x)),
    "a temperature in a tensor": lambda x: torch.nn.functional.gumbel_softmax(x, torch.tensor(0.7), dim=-1),
    "lerp by weights": lambda x: torch.lerp(x.exp(), x, EXPONENT),
    "a dimension of NumPy": lambda x: x.amax(np.int64(1)) + x.logsumexp(np.int64(1)) + x.var(np.int64(1)),
    "a norm over a dimension of NumPy": lambda x: torch.linalg.vector_norm(x, 2, np.int64(1)),
    "einsum of three, by numbers": lambda x: torch.einsum(x, [0, 1, 2], x.exp(), [0, 3, 2], x, [0, 3, 4], [0, 1, 4]),
    "bilinear with a weight that moves": lambda x: torch.stack(
        [
            torch.nn.functional.bilinear(each, each.exp(), each[None, :, :4].repeat(2, 1, 1)[:, :4])
            for each in x[..., :4]
        ]
    ),
}


@pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning")
@pytest.mark.parametrize("name", OPTIONS)
def test_options_may_be_tensors(name):
    found = complete(OPTIONS[name], normal(0), normal(1))
    change = found.output - found.baseline_output
    assert found.convergence_delta.abs().max() < 1e-10 * max(1, float(change.abs().max()))
    assert change.abs().max() > 0
