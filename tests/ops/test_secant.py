"""What secant computes: against its definition at 60 digits, at its limits, and as PyHealth's arithmetic."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import naive

FUNCTIONS = ("relu", "sigmoid", "tanh")
HALVES = (torch.float16, torch.bfloat16)
INF, NAN = math.inf, math.nan

SMOOTH = {"sigmoid": lambda t: 1 / (1 + mpmath.exp(-t)), "tanh": mpmath.tanh}
DERIVATIVE = {
    "sigmoid": lambda t: 1 / (2 + mpmath.exp(t) + mpmath.exp(-t)),
    "tanh": lambda t: 1 / mpmath.cosh(t) ** 2,
}


@pytest.fixture(params=["naive", "dispatched"])
def secant(request):
    """The plain torch implementation, and the one that the dispatcher picks (C++ where it was built)."""
    return naive.secant if request.param == "naive" else ops.secant


def slope(function, x, x0):
    """The multiplier by its definition, for two numbers."""
    a, b = mpmath.mpf(x), mpmath.mpf(x0)
    if function == "relu":
        return float((max(a, 0) - max(b, 0)) / (a - b)) if a != b else float(a > 0)
    if a == b:
        return float(DERIVATIVE[function](a))
    return float((SMOOTH[function](a) - SMOOTH[function](b)) / (a - b))


def slopes(function, x, x0):
    with mpmath.workdps(60):
        values = [slope(function, *pair) for pair in zip(x.tolist(), x0.tolist(), strict=True)]
    return torch.tensor(values, dtype=torch.float64)


def grid(dtype):
    """x from 0 to ±30 and Δ from ±1e-12 to ±60, both over every order of magnitude, and Δ = 0."""
    sizes = torch.logspace(-10, math.log10(30), 22, dtype=torch.float64)
    steps = torch.logspace(-12, math.log10(60), 36, dtype=torch.float64)
    x = torch.cat([-sizes, torch.zeros(1), sizes])
    delta = torch.cat([-steps, torch.zeros(1), steps])
    pairs = torch.cartesian_prod(x, delta)
    return pairs[:, 0].to(dtype), (pairs[:, 0] + pairs[:, 1]).to(dtype)


def relative_error(found, expected):
    return ((found.double() - expected) / expected).abs()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float32_multiplier_is_right_to_5e_6_for_every_difference(secant, function):
    x, x0 = grid(torch.float32)
    expected = slopes(function, x, x0)
    multiplier = secant(x, x0, function, "rescale")[2]
    matters = expected > 1e-30
    assert matters.sum() > 1000
    assert relative_error(multiplier[matters], expected[matters]).max() <= 5e-6
    assert (multiplier[~matters].abs() <= 1e-29).all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float64_multiplier_is_right_to_1e_13_for_every_difference(secant, function):
    x, x0 = grid(torch.float64)
    expected = slopes(function, x, x0)
    multiplier = secant(x, x0, function, "rescale")[2]
    matters = expected > 1e-30
    assert relative_error(multiplier[matters], expected[matters]).max() <= 1e-13


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_half_types_round_once(secant, function, dtype):
    x, x0 = grid(dtype)
    multiplier = secant(x, x0, function, "rescale")[2]
    expected = slopes(function, x, x0)
    info = torch.finfo(dtype)
    # Half a unit in the last place of the half type, and float32's own error before it.
    allowed = expected * (info.eps / 2 + 5e-6) + info.smallest_normal * info.eps
    assert ((multiplier.double() - expected).abs() <= allowed).all()


@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiplier_without_difference_is_the_derivative(secant, function, dtype):
    x = torch.linspace(-30, 30, 1001, dtype=dtype)
    with mpmath.workdps(60):
        values = [float(DERIVATIVE[function](mpmath.mpf(value))) for value in x.tolist()]
    expected = torch.tensor(values, dtype=torch.float64)
    y, y0, multiplier = secant(x, x.clone(), function, "rescale")
    assert torch.equal(y, y0)
    assert relative_error(multiplier, expected).max() <= (5e-6 if dtype == torch.float32 else 1e-13)


def test_relu_without_difference_has_pytorchs_derivative(secant):
    x = torch.tensor([-2.0, -1e-40, -0.0, 0.0, 1e-40, 3.0], requires_grad=True)
    torch.relu(x).sum().backward()
    values = x.detach()
    assert torch.equal(secant(values, values, "relu", "rescale")[2], x.grad)


@pytest.mark.parametrize("variant", ["rescale", "pyhealth"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
def test_outputs_are_the_activations(secant, function, variant, dtype):
    x, x0 = grid(dtype)
    y, y0, _ = secant(x, x0, function, variant)
    rtol = max(torch.finfo(dtype).eps, 1e-13 if dtype == torch.float64 else 2e-6)
    for found, argument in ((y, x), (y0, x0)):
        expected = getattr(torch, function)(argument.double())
        torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=torch.finfo(dtype).tiny)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiplier_is_symmetric_in_input_and_baseline(secant, function, dtype):
    x, x0 = grid(dtype)
    torch.testing.assert_close(
        secant(x, x0, function, "rescale")[2], secant(x0, x, function, "rescale")[2], rtol=1e-6, atol=0
    )


# Where an argument is infinite: the limit as it grows, the other argument fixed; of both together where both are.
LIMITS = [
    ("relu", INF, 1.0, 1.0),
    ("relu", INF, -1.0, 1.0),
    ("relu", -INF, 1.0, 0.0),
    ("relu", -INF, -1.0, 0.0),
    ("relu", INF, INF, 1.0),
    ("relu", -INF, -INF, 0.0),
    ("relu", INF, -INF, 0.5),
    *[(function, *pair, 0.0) for function in ("sigmoid", "tanh") for pair in [(INF, 1.0), (-INF, 1.0), (INF, 0.0)]],
    *[(function, *pair, 0.0) for function in ("sigmoid", "tanh") for pair in [(INF, INF), (-INF, -INF), (INF, -INF)]],
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
@pytest.mark.parametrize(("function", "x", "x0", "limit"), LIMITS)
def test_infinite_arguments_give_the_limit(secant, function, x, x0, limit, dtype):
    for pair in ((x, x0), (x0, x)):
        a, b = (torch.full((9,), value, dtype=dtype) for value in pair)
        y, y0, multiplier = secant(a, b, function, "rescale")
        assert torch.equal(multiplier, torch.full((9,), limit, dtype=dtype))
        assert torch.equal(y, getattr(torch, function)(a))
        assert torch.equal(y0, getattr(torch, function)(b))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_huge_finite_arguments_do_not_overflow(secant, function):
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([largest, largest, -largest, largest, largest])
    x0 = torch.tensor([-largest, largest, -largest, 1.0, -1.0])
    expected = {"relu": [0.5, 1.0, 0.0, 1.0, 1.0], "sigmoid": [0.0] * 5, "tanh": [0.0] * 5}[function]
    multiplier = secant(x, x0, function, "rescale")[2]
    torch.testing.assert_close(multiplier, torch.tensor(expected), rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("variant", ["rescale", "pyhealth"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
def test_nan_is_never_a_silent_number(secant, function, variant, dtype):
    others = [NAN, 0.0, -0.0, 1.0, -1.0, 50.0, -50.0, INF, -INF]
    x = torch.tensor([NAN] * len(others) + others, dtype=dtype)
    x0 = torch.tensor(others + [NAN] * len(others), dtype=dtype)
    y, y0, multiplier = secant(x, x0, function, variant)
    assert multiplier.isnan().all()
    assert torch.equal(y.isnan(), x.isnan())
    assert torch.equal(y0.isnan(), x0.isnan())


@given(
    x=st.floats(-30, 30, width=32),
    x0=st.floats(-60, 60, width=32),
    function=st.sampled_from(FUNCTIONS),
    implementation=st.sampled_from([naive.secant, ops.secant]),
)
def test_any_pair_of_numbers(x, x0, function, implementation):
    with mpmath.workdps(60):
        expected = slope(function, x, x0)
    multiplier = implementation(torch.tensor(x), torch.tensor(x0), function, "rescale")[2].item()
    assert multiplier == pytest.approx(expected, rel=5e-6, abs=1e-30)


def as_pyhealth(x, x0, function):
    """The gradient that PyHealth 2.1 hands back, the way it makes it: autograd's, times a scale put in by a hook."""
    eps = 1e-7
    x = x.clone().requires_grad_()
    y, y0 = getattr(torch, function)(x), getattr(torch, function)(x0)

    def divided(numerator, denominator, otherwise):
        usable = denominator.abs() > eps
        return torch.where(
            usable, numerator / torch.where(usable, denominator, torch.ones_like(denominator)), otherwise
        )

    derivative = {"relu": (x > 0).to(x.dtype), "sigmoid": y * (1.0 - y), "tanh": 1.0 - y.pow(2)}[function]
    scale = divided(divided(y - y0, x - x0, derivative), derivative, torch.ones_like(x))
    scale = torch.where(torch.isfinite(scale), scale, torch.ones_like(scale)).detach()
    y.register_hook(lambda gradient: gradient * scale)
    y.sum().backward()
    return x.grad, derivative.detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_pyhealth_variant_is_pyhealths_arithmetic(secant, function, dtype):
    generator = torch.Generator().manual_seed(0)
    x, x0 = (6 * torch.randn(4000, generator=generator, dtype=dtype) for _ in range(2))
    x0[::5] = x[::5]
    x0[1::5] = x[1::5] + 1e-3 * x0[1::5]
    x0[2::5] = x[2::5] * (1 + 1e-8)
    expected, derivative = as_pyhealth(x, x0, function)
    # y − y0 cancels, so rounding grows as 1/Δ. At the eps itself rounding decides the branch: left out.
    rounding = torch.finfo(dtype).eps * 4
    allowed = rounding * (expected.abs() + 1 / (x - x0).abs().clamp(min=1e-7))
    clear = ((derivative > 3e-7) | (derivative == 0)) & (((x - x0).abs() > 1.5e-7) | ((x - x0).abs() < 0.5e-7))
    assert clear.sum() > 2500
    difference = (secant(x, x0, function, "pyhealth")[2] - expected).abs()
    assert (difference <= allowed)[clear].all()


@pytest.mark.parametrize(
    ("function", "x", "x0", "multiplier"),
    [
        ("relu", -1.0, 2.0, 0.0),  # the true slope is 2/3: a zero derivative hides it
        ("relu", 2.0, -1.0, 2 / 3),
        ("tanh", 12.0, 0.0, 0.0),  # 1/12
        ("sigmoid", 40.0, 0.0, 0.0),  # 1/80
        ("sigmoid", 1.0, 1.0 + 5e-8, 0.19661193),  # a difference below the eps: the derivative
    ],
)
def test_pyhealth_variant_keeps_pyhealths_oddities(secant, function, x, x0, multiplier):
    x, x0 = torch.tensor([x]), torch.tensor([x0])
    assert secant(x, x0, function, "pyhealth")[2].item() == pytest.approx(multiplier, rel=1e-6)


@pytest.mark.parametrize("module", [ops, naive])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
@pytest.mark.parametrize("variant", ["rescale", "pyhealth"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_at_input_leaves_out_the_baselines_output_alone(function, variant, dtype, module):
    x, x0 = (each.view(37, 43).T for each in torch.randn(2, 37 * 43, generator=torch.Generator().manual_seed(3)))
    y, _, multiplier = module.secant(x.to(dtype), x0.to(dtype), function, variant)
    found = module.secant_at_input(x.to(dtype), x0.to(dtype), function, variant)
    torch.testing.assert_close(found, (y, multiplier), rtol=0, atol=0)
    assert [each.stride() for each in found] == [y.stride()] * 2


def test_registered_as_pytorch_expects_without_the_baselines_output():
    x, x0 = torch.randn(2, 3, 5)
    torch.library.opcheck(torch.ops.deeplift_fast.secant_at_input, (x.T, x0.T, "tanh", "rescale"))
