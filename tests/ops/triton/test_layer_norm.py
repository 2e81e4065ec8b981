"""The layer norm's Triton kernel in the interpreter."""

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted_kernels import DTYPES, INTERPRETED, TOLERANCE, assert_close, launched, wide

from deeplift_fast.ops import naive
from deeplift_fast.ops.checks import computed

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.layer_norm import layer_norm_backward

pytestmark = INTERPRETED


def case(seed, rows, rows0, size, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    m, x, x0 = (torch.randn(n, size, generator=draw, dtype=torch.float64).to(dtype) for n in (rows, rows, rows0))
    weight = torch.randn(size, generator=draw, dtype=torch.float64).to(dtype)
    stats = []
    for each in (x.double(), x0.double()):
        scale = (each.var(1, keepdim=True, correction=0) + 1e-5).rsqrt()
        stats.append([value.to(computed(dtype)) for value in (each.mean(1, keepdim=True), scale)])
    (average, scale), (average0, scale0) = stats
    return m, x, x0, torch.randint(0, rows0, (rows,), generator=draw), average, average0, scale, scale0, weight


def assert_is_naive(given, half):
    found, expected = launched(layer_norm_backward, *given, half), naive.layer_norm_backward(*wide(*given), half)
    dtype = given[1].dtype
    scale = 1 + float(expected.abs().max()) if expected.numel() else 1.0
    assert_close(found, expected, dtype, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("half", [0.0, 0.5])
def test_every_dtype(half, dtype):
    assert_is_naive(case(0, 9, 3, 70, dtype), half)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_complete_from_a_constant_baseline(value, dtype):
    """σ0 = √eps: no contribution is large, and they add up."""
    m, x, x0, where, average, average0, scale, scale0, weight = case(3, 9, 3, 70, dtype)
    x0[1:] = value
    average0[1:], scale0[1:] = x0[1, 0], 1e-5**-0.5
    found = launched(layer_norm_backward, m, x, x0, where, average, average0, scale, scale0, weight, 0.5)
    y, y0 = (x - average) * scale, (x0 - average0) * scale0
    contributions, changes = found * (x - x0[where]), m * weight * (y - y0[where])
    terms = changes.abs().sum(1)
    assert (contributions.sum(1) - changes.sum(1)).abs().le(20 * torch.finfo(dtype).eps * terms).all()
    assert contributions.abs().sum(1)[where > 0].lt(3.01 * terms[where > 0]).all()


@given(rows=st.integers(0, 40), rows0=st.integers(1, 4), size=st.integers(2, 130), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_size(rows, rows0, size, seed):
    assert_is_naive(case(seed, rows, rows0, size), 0.5)


@pytest.mark.parametrize("size", [1, 3000])
def test_the_shortest_and_long_rows(size):
    assert_is_naive(case(1, 2, 2, size), 0.5)


def test_no_columns():
    m, x, x0, where, *stats, weight = case(0, 3, 2, 4)
    given = (*(each[:, :0].contiguous() for each in (m, x, x0)), where, *stats, weight[:0])
    assert launched(layer_norm_backward, *given, 0.5).shape == (3, 0)


def test_any_strides():
    m, x, *rest = case(2, 6, 4, 10)
    assert_is_naive((m[:1].expand(6, 10), x.mT.contiguous().mT, *rest), 0.5)
