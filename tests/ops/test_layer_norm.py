"""The multipliers of a layer norm: kernels against plain torch, the rule written once more, and completeness."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import NAMESPACE, naive

EPS = 1e-5


def case(seed, rows, rows0, size, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    m, x, x0 = (torch.randn(n, size, generator=draw, dtype=torch.float64).to(dtype) for n in (rows, rows, rows0))
    where = torch.randint(0, rows0, (rows,), generator=draw)
    weight = torch.randn(size, generator=draw, dtype=torch.float64).to(dtype)
    stats = [torch.native_layer_norm(each, (size,), weight, None, EPS)[1:] for each in (x, x0)]
    averages, scales = zip(*stats, strict=True)
    return m, x, x0, where, averages, scales, weight


def flat(m, x, x0, where, averages, scales, weight):
    return m, x, x0, where, *averages, *scales, weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(
    rows=st.integers(0, 6), rows0=st.integers(1, 4), size=st.sampled_from([1, 2, 15, 16, 40]), seed=st.integers(0, 99),
    half=st.sampled_from([0.0, 0.5]),
)  # fmt: skip
def test_as_in_plain_torch(dtype, rows, rows0, size, seed, half):
    given = case(seed, rows, rows0, size, dtype)
    wide = [each if each.dtype == torch.int64 else each.double() for each in flat(*given)]
    found = ops.layer_norm_backward(*flat(*given), half)
    expected = naive.layer_norm_backward(*wide, half)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    scale = 1 + float(expected.abs().max()) if rows else 1
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("module", [ops, naive])
def test_gradient_is_autograds(module):
    m, x, x0, where, averages, scales, weight = case(0, 5, 3, 20)
    point = x.clone().requires_grad_()
    y = torch.nn.functional.layer_norm(point, (20,), weight, None, EPS)
    (expected,) = torch.autograd.grad(y, point, m)
    given = (m, x, x0, where, averages, scales, weight)
    found = module.layer_norm_backward(*flat(*given), 0.0)
    torch.testing.assert_close(found, expected)


def secant_matrix(x, x0):
    """`M` with `M @ (x - x0) = y - y0` for one row, written down once more: Δy = (Δc − ȳ·Δσ)/σ̄."""
    size = len(x)
    centring = torch.eye(size, dtype=x.dtype) - 1 / size
    (c, sigma), (c0, sigma0) = ((each - each.mean(), (each.var(correction=0) + EPS).sqrt()) for each in (x, x0))
    c_mean, sigma_mean, y_mean = (c + c0) / 2, (sigma + sigma0) / 2, (c / sigma + c0 / sigma0) / 2
    of_sigma = c_mean @ centring / (size * sigma_mean)
    return (centring - torch.outer(y_mean, of_sigma)) / sigma_mean


@given(rows=st.integers(1, 6), rows0=st.integers(1, 4), size=st.integers(2, 40), seed=st.integers(0, 99))
def test_the_quotient_rule_written_once_more(rows, rows0, size, seed):
    m, x, x0, where, averages, scales, weight = case(seed, rows, rows0, size)
    expected = [m[i] * weight @ secant_matrix(x[i], x0[where[i]]) for i in range(rows)]
    for found in (
        ops.layer_norm_backward(m, x, x0, where, *averages, *scales, weight, 0.5),
        naive.layer_norm_backward(m, x, x0, where, *averages, *scales, weight, 0.5),
    ):
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-9 * float(expected[0].abs().max()))


def edges(seed, size, dtype):
    """Eight rows that share four of the baseline (drawn, zeros, another constant, the last row itself); y and y0."""
    m, x, x0, _, _, _, weight = case(seed, 8, 4, size, dtype)
    x0[1], x0[2], x0[3] = 0, 0.3, x[7]
    where = torch.tensor([0, 1, 2, 3, 1, 2, 0, 3])
    stats = [torch.native_layer_norm(each, (size,), None, None, EPS) for each in (x, x0)]
    (y, y0), averages, scales = zip(*stats, strict=True)
    return (m, x, x0, where, averages, scales, weight), y, y0[where]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(seed=st.integers(0, 99), size=st.sampled_from([3, 8, 33, 128]))
def test_complete(dtype, seed, size):
    given, y, y0 = edges(seed, size, dtype)
    m, x, x0, where, _, scales, weight = given
    changes = (m * weight).double() * (y.double() - y0.double())
    # Rounding is that of the terms Δc/σ̄, y and y0, which cancel where y hardly changes.
    sigma = (1 / scales[0] + 1 / scales[1][where]) / 2
    terms = ((m * weight).abs() * (((x - x0[where]) / sigma).abs() + y.abs() + y0.abs())).double().sum(1)
    for found in (ops.layer_norm_backward(*flat(*given), 0.5), naive.layer_norm_backward(*flat(*given), 0.5)):
        contributions = found.double() * (x.double() - x0.double()[where])
        missing = (contributions.sum(1) - changes.sum(1)).abs()
        assert (missing <= 8 * torch.finfo(dtype).eps * terms).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_baseline_it_is_the_gradient(dtype):
    given, _, _ = edges(0, 20, dtype)
    m, x, *_, weight = given
    found = ops.layer_norm_backward(*flat(*given), 0.5)[7]
    point = x[7].clone().requires_grad_()
    y = torch.nn.functional.layer_norm(point, (20,), weight, None, EPS)
    torch.testing.assert_close(found, torch.autograd.grad(y, point, m[7])[0])


@pytest.mark.parametrize("module", [ops, naive])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_baseline_makes_no_contribution_large(dtype, module):
    """With c0 = 0 contributions are 2·m·y − y²·(Σ m·y)/size, up to eps: three times Σ|m·Δy| at most."""
    given, y, y0 = edges(1, 64, dtype)
    found = module.layer_norm_backward(*flat(*given), 0.5)
    m, x, x0, where, *_, weight = given
    sizes, changes = (found * (x - x0[where])).abs().sum(1), (m * weight * (y - y0)).abs().sum(1)
    constant = (where == 1) | (where == 2)
    assert (sizes < 3.01 * changes)[constant].all()


def test_the_gradient_does_not_look_at_the_baseline():
    m, x, x0, where, averages, scales, weight = case(0, 5, 3, 20)
    expected = ops.layer_norm_backward(m, x, x0, where, *averages, *scales, weight, 0.0)
    nothing = torch.full_like(x0, torch.nan)
    others = ((each, torch.full_like(each0, torch.nan)) for each, each0 in (averages, scales))
    found = ops.layer_norm_backward(*flat(m, x, nothing, where, *others, weight), 0.0)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [1e15, 1e-15])
def test_rows_near_the_end_of_the_range(size):
    """σ² alone would leave float32's range."""
    m, x, x0, where, _, _, weight = case(0, 5, 3, 20, torch.float32)
    found, expected = [], []
    for dtype, results in ((torch.float32, found), (torch.float64, expected)):
        both = x.to(dtype) * size, x0.to(dtype) * size
        averages = tuple(each.mean(1, keepdim=True) for each in both)
        scales = tuple(1 / each.std(1, keepdim=True, correction=0) for each in both)
        given = (m.to(dtype), *both, where, averages, scales, weight.to(dtype))
        results += [ops.layer_norm_backward(*flat(*given), 0.5), naive.layer_norm_backward(*flat(*given), 0.5)]
    for result, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(result.double() * size, exact * size, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("position", "value", "error", "message"),
    [
        (0, torch.zeros(2, 4), ValueError, "shape"),
        (1, torch.zeros(3, 4, dtype=torch.int64), TypeError, "int64"),
        (3, torch.tensor([0, 1, 2]), (RuntimeError, IndexError), "0 to 1"),
        (6, torch.zeros(4, dtype=torch.float64), TypeError, "float64"),
    ],
)
def test_what_does_not_fit_is_refused(position, value, error, message):
    given = list(case(0, 3, 2, 4, torch.float32))
    given[position] = value
    with pytest.raises(error, match=message):
        ops.layer_norm_backward(*flat(*given), 0.5)


def test_registered_as_pytorch_expects():
    torch.library.opcheck(getattr(torch.ops, NAMESPACE).layer_norm_backward, (*flat(*case(0, 3, 2, 4)), 0.5))
