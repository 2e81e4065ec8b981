"""The Triton kernel in Triton's interpreter: arithmetic and indexing, on CPU tensors."""

import importlib.util
import itertools

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted_kernels import INTERPRETED

from deeplift_fast.ops.naive.secant import secant as naive_secant

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.secant import BLOCK_BYTES, _secant_kernel, secant, secant_at_input

pytestmark = INTERPRETED

FUNCTIONS = ("relu", "sigmoid", "tanh")
VARIANTS = ("rescale", "pyhealth")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NAMES = ("y", "y0", "multiplier")

# One unit in the last place, not half: the interpreter truncates to bfloat16.
RTOL = {torch.float64: 1e-13, torch.float32: 5e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
# Near the smallest normal number: float16 rounds to a subnormal, the others take e^t as 0.
ATOL = {torch.float64: 1e-307, torch.float32: 1e-37, torch.float16: 2**-24, torch.bfloat16: 1e-37}

EDGES = [0.0, -0.0, 1e-40, -1e-40, 1e-7, 1.0, -1.0, 30.0, -30.0, 90.0, -90.0, 800.0, 3e38, -3e38]
EDGES += [float("inf"), float("-inf"), float("nan")]


@pytest.fixture(autouse=True, scope="module")
def _uninitialised_memory_is_nan():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty_like", lambda tensor: torch.full_like(tensor, float("nan")))
        patch.setattr(torch, "empty", lambda shape, **options: torch.full(shape, float("nan"), **options))
        yield


def normal(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (3.0 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def assert_close(results, expected, dtype, **tolerances):
    tolerances = {"rtol": RTOL[dtype], "atol": ATOL[dtype], "equal_nan": True} | tolerances
    for name, result, target in zip(NAMES, results, expected, strict=True):
        assert result.dtype == dtype
        torch.testing.assert_close(
            result.double(), target.double(), msg=lambda text, name=name: f"{name}: {text}", **tolerances
        )


def assert_matches_naive(x, x0, function, variant="rescale"):
    results = secant(x, x0, function, variant)
    assert_close(results, naive_secant(x.double(), x0.double(), function, variant), x.dtype)
    for result in results:
        assert result.shape == x.shape
        assert result.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_rescale_is_the_float64_oracle(function, dtype):
    assert_matches_naive(normal(1100, dtype=dtype), normal(1100, dtype=dtype, seed=1), function)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_pyhealth_is_the_naive_arithmetic(function, dtype):
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    x, x0 = normal(1100, dtype=dtype), normal(1100, dtype=dtype, seed=1)
    x0[::7] = x[::7]
    # PyHealth's y − y0 cancels: a small Δ magnifies rounding, and at 1e-7 the branches change.
    noisy = (x != x0) & ((x - x0).abs() < 0.05) | (x.abs() > 5)
    x[noisy], x0[noisy] = 0.5, -1.5
    results = secant(x, x0, function, "pyhealth")
    expected = naive_secant(x.to(compute), x0.to(compute), function, "pyhealth")
    noise = 2e-5 if compute == torch.float32 else 1e-12
    assert_close(results, expected, dtype, rtol=RTOL[dtype], atol=noise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_edge_values(function, variant, dtype):
    pairs = torch.tensor(list(itertools.product(EDGES, EDGES)), dtype=dtype)
    x, x0 = pairs.unbind(1)
    results = secant(x, x0, function, variant)
    atol = ATOL[dtype] if variant == "rescale" else 1e-6 if dtype == torch.float32 else 1e-14
    assert_close(results, naive_secant(x, x0, function, variant), dtype, atol=atol)
    assert results[2].isnan().equal(x.isnan() | x0.isnan())


@pytest.mark.parametrize(("function", "at_zero"), [("relu", 0.0), ("sigmoid", 0.25), ("tanh", 1.0)])
def test_limits(function, at_zero):
    infinity = float("inf")
    x = torch.tensor([0.0, -0.0, infinity, -infinity, infinity, -infinity, 5.0, infinity])
    x0 = torch.tensor([0.0, 0.0, infinity, -infinity, -infinity, infinity, -infinity, 5.0])
    relu = function == "relu"
    expected = [at_zero, at_zero, float(relu), 0.0, 0.5 * relu, 0.5 * relu, 0.0, float(relu)]
    assert secant(x, x0, function, "rescale")[2].tolist() == expected


def grid(dtype):
    """Every x of [−30, 30] with every Δ of 1e-12 to 60, both signs, and Δ = 0."""
    x = torch.cat([torch.linspace(-30, 30, 49), torch.tensor([-1e-3, 1e-3, 1e-10])]).to(dtype)
    delta = torch.logspace(-12, np.log10(60.0), 40, dtype=dtype)
    delta = torch.cat([delta, -delta, torch.linspace(0, 1.5, 31, dtype=dtype)])
    x, delta = torch.cartesian_prod(x, delta).unbind(1)
    return x, x - delta


def worst_relative_error(result, oracle, above):
    seen = oracle.abs() > above
    return ((result.double() - oracle)[seen] / oracle[seen]).abs().max().item()


@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
def test_float32_loses_nothing_to_cancellation(function):
    x, x0 = grid(torch.float32)
    results = secant(x, x0, function, "rescale")
    oracle = naive_secant(x.double(), x0.double(), function, "rescale")
    for result, target in zip(results, oracle, strict=True):
        # Far below the promised 5e-6: the hardware's division adds a few ulp to the interpreter's.
        assert worst_relative_error(result, target, above=1e-30) < 4e-7


@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
def test_float64_is_the_definition_in_100_digits(function):
    x, x0 = (side[::9] for side in grid(torch.float64))
    with mpmath.workdps(100):
        activation = {"sigmoid": lambda t: 1 / (1 + mpmath.exp(-t)), "tanh": mpmath.tanh}[function]
        derivative = {"sigmoid": lambda y: y * (1 - y), "tanh": lambda y: 1 - y * y}[function]
        exact = []
        for a, b in zip(map(mpmath.mpf, x.tolist()), map(mpmath.mpf, x0.tolist()), strict=True):
            y, y0 = activation(a), activation(b)
            exact.append((y, y0, (y - y0) / (a - b) if a != b else derivative(y)))
    results = secant(x, x0, function, "rescale")
    for result, target in zip(results, torch.tensor(exact, dtype=torch.float64).unbind(1), strict=True):
        assert worst_relative_error(result, target, above=1e-30) < 1e-14


@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivative_where_the_streams_agree(function):
    x = torch.linspace(-9, 9, 64, dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(getattr(torch, function)(x).sum(), x)
    x = x.detach()
    torch.testing.assert_close(secant(x, x.clone(), function, "rescale")[2], derivative, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1537])
def test_sizes(size):
    assert_matches_naive(normal(size), normal(size, seed=1), "tanh")


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1, 1), (3, 5, 7)])
def test_shapes(shape):
    assert_matches_naive(normal(*shape), normal(*shape, seed=1), "sigmoid")


LAYOUTS = {
    "dense": lambda t: t,
    "transposed": lambda t: t.mT.contiguous().mT,
    "sliced": lambda t: torch.stack([t, -t], -1)[..., 0],
    "offset": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view_as(t),
    "expanded": lambda t: t[:1].expand_as(t),
}


@pytest.mark.parametrize(("layout", "layout0"), [*itertools.product(LAYOUTS, LAYOUTS)])
def test_layouts(layout, layout0):
    x, x0 = LAYOUTS[layout](normal(9, 70)), LAYOUTS[layout0](normal(9, 70, seed=1))
    kept = x.clone(), x0.clone()
    assert_matches_naive(x, x0, "tanh")
    assert torch.equal(x, kept[0])
    assert torch.equal(x0, kept[1])


def test_channels_last():
    x, x0 = normal(2, 3, 4, 5).to(memory_format=torch.channels_last), normal(2, 3, 4, 5, seed=1)
    assert_matches_naive(x, x0, "relu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("over", [-1, 0, 1])
def test_writes_its_elements_and_no_others(dtype, over):
    block, guard, sentinel = BLOCK_BYTES // dtype.itemsize, 64, 777.0
    size = 2 * block + over
    inputs = [torch.full((size + 2 * guard + block,), float("nan"), dtype=dtype) for _ in range(2)]
    outputs = [torch.full((size + 2 * guard + block,), sentinel, dtype=dtype) for _ in range(3)]
    inside = slice(guard, guard + size)
    for seed, buffer in enumerate(inputs):
        buffer[inside] = normal(size, dtype=dtype, seed=seed)
    views = [buffer[inside] for buffer in inputs + outputs]
    programs = -(-size // block)
    _secant_kernel[(programs,)](*views, size, "sigmoid", "rescale", block)
    for buffer in outputs:
        assert ((buffer[inside] > -1) & (buffer[inside] < 2)).all()
        buffer[inside] = sentinel
        assert (buffer == sentinel).all()


any32 = st.floats(width=32)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FUNCTIONS), st.lists(st.tuples(any32, any32), max_size=24), st.integers(0, 1200))
def test_any_float32_is_the_float64_oracle(function, pairs, padding):
    x, x0 = torch.tensor(pairs + [(1.0, -2.0)] * padding, dtype=torch.float32).reshape(-1, 2).unbind(1)
    assert_matches_naive(x, x0, function)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FUNCTIONS), st.floats(-30, 30, width=32), st.floats(-30, 30, width=32))
def test_completeness_and_symmetry(function, a, b):
    x, x0 = torch.tensor([a, b]), torch.tensor([b, a])
    y, y0, multiplier = secant(x, x0, function, "rescale")
    assert multiplier[0] == multiplier[1]
    assert 0 <= multiplier[0] <= 1
    moved = multiplier.double() * (x.double() - x0.double())
    torch.testing.assert_close(moved, y.double() - y0.double(), rtol=1e-6, atol=3e-7 * (1 + y.abs().max().item()))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=4), st.randoms(use_true_random=False))
def test_any_shape_and_dense_layout(shape, random):
    order = random.sample(range(len(shape)), len(shape))
    x = normal(*shape).permute(order)
    assert_matches_naive(x, normal(*x.shape, seed=1), "sigmoid")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_at_input_leaves_out_the_baselines_output_alone(function):
    x, x0 = normal(30, 23).T, normal(23, 30, seed=1)
    y, _, multiplier = secant(x, x0, function, "rescale")
    found = secant_at_input(x, x0, function, "rescale")
    torch.testing.assert_close(found, (y, multiplier), rtol=0, atol=0)
    assert [each.stride() for each in found] == [x.stride()] * 2
