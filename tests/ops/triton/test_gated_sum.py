"""The gated sum's Triton kernel in the interpreter."""

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted_kernels import DTYPES, INTERPRETED, TOLERANCE, assert_close, launched, wide

from deeplift_fast.ops import naive

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.gated_sum import gated_sum

pytestmark = INTERPRETED


def case(seed, *shape, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(2, *shape, generator=draw, dtype=torch.float64).to(dtype) for _ in range(3)]


def assert_is_naive(*arguments):
    dtype = arguments[0].dtype
    expected = naive.gated_sum(*wide(*arguments))
    assert_close(launched(gated_sum, *arguments), expected, dtype, atol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("variant", "half"), [("rescale", 0.0), ("rescale", 0.5)])
def test_every_dtype(variant, half, dtype):
    assert_is_naive(*case(0, 5, 70, dtype=dtype), variant, half)


def test_pyhealths_variant():
    assert_is_naive(*case(1, 5, 70), "pyhealth", 0.0)


@given(rows=st.integers(0, 9), size=st.integers(0, 300), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_size(rows, size, seed):
    assert_is_naive(*case(seed, rows, size), "rescale", 0.5)


def test_any_strides():
    a, b, c = case(2, 6, 10)
    assert_is_naive(a.mT.contiguous().mT, b[:, :1].expand(2, 6, 10), c, "rescale", 0.5)


def test_nan_stays():
    a, b, c = (torch.zeros(2, 3) for _ in range(3))
    a[0, 0] = b[0, 1] = c[0, 2] = float("nan")
    y, multipliers = launched(gated_sum, a, b, c, "rescale", 0.5)
    assert y.isnan().tolist() == [[True] * 3, [False] * 3]
    assert multipliers.isnan().tolist() == [[True, True, False], [True, False, False]]
