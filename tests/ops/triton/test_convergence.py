"""Summation to delta's Triton kernel in the interpreter."""

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted_kernels import DTYPES, INTERPRETED, TOLERANCE, launched

from deeplift_fast.ops import naive

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.convergence import convergence

pytestmark = INTERPRETED


def case(seed, features, batch, dtype=torch.float64):
    """Samples of which some are complete, some far from it, and some have a raw sum of 0."""
    draw = torch.Generator().manual_seed(seed)
    output, output0 = (torch.randn(batch, generator=draw, dtype=torch.float64).to(dtype) for _ in range(2))
    totals = torch.randn(features, batch, generator=draw, dtype=torch.float64)
    kind = torch.randint(0, 3, (batch,), generator=draw)
    aim = torch.where(kind == 0, 0.0, output.double() - output0.double())
    totals[0] += torch.where(kind == 2, 0.0, aim - totals.sum(0))
    return totals, output, output0


def assert_is_naive(*arguments):
    """Of the same dtype: what is fine depends on its rounding. Sums are those of the parts together."""
    dtype = arguments[1].dtype
    *found, figures = launched(convergence, *arguments)
    *expected, sums = naive.convergence(*arguments)
    for result, target in zip(found, expected, strict=True):
        assert result.dtype == target.dtype
        torch.testing.assert_close(result, target, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], equal_nan=True)
    tolerance = max(TOLERANCE[dtype], 1e-6)
    torch.testing.assert_close(figures.sum(0, keepdim=True), sums, rtol=tolerance, atol=tolerance, equal_nan=True)
    return figures


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rescale", [True, False])
def test_every_dtype(rescale, dtype):
    assert_is_naive(*case(0, 2, 50, dtype), rescale, 0.01)


@given(features=st.integers(1, 4), batch=st.integers(0, 40), rescale=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_size(features, batch, rescale, seed):
    assert_is_naive(*case(seed, features, batch), rescale, 0.01)


@pytest.mark.parametrize("rescale", [True, False])
def test_more_samples_than_a_program(rescale):
    assert len(assert_is_naive(*case(1, 2, 2500, torch.float32), rescale, 0.01)) == 3


@pytest.mark.parametrize("rescale", [True, False])
def test_any_strides(rescale):
    totals, output, output0 = case(2, 3, 20)
    assert_is_naive(
        totals.T.contiguous().T, output[::2].repeat_interleave(2)[::1], output0[:1].expand(20), rescale, 0.1
    )


@pytest.mark.parametrize("rescale", [True, False])
def test_nan_and_infinity(rescale):
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, 1.0], dtype=torch.float64)
    totals, output, output0 = torch.cartesian_prod(special, special, special).T.contiguous()
    *found, _ = launched(convergence, totals.unsqueeze(0), output, output0, rescale, 0.01)
    *expected, _ = naive.convergence(totals.unsqueeze(0), output, output0, rescale, 0.01)
    for result, target in zip(found, expected, strict=True):
        torch.testing.assert_close(result, target, rtol=0, atol=0, equal_nan=True)
