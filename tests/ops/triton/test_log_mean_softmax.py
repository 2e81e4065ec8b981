"""The softmax's Triton kernels in the interpreter."""

import importlib.util
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted_kernels import DTYPES, INTERPRETED, assert_close, launched, wide

from deeplift_fast.ops import naive

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.log_mean_softmax import log_mean_softmax, log_mean_softmax_backward

pytestmark = INTERPRETED


def numbers(seed, *shape, dtype=torch.float64):
    return (2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def assert_is_naive(z, z0, g, dim, log=False):
    expected = naive.log_mean_softmax(*wide(z, z0), dim, log)
    found = launched(log_mean_softmax, z, z0, dim, log)
    assert_close(found, expected, z.dtype, equal_nan=True)
    mean = expected[1].to(z.dtype)
    back = launched(log_mean_softmax_backward, g, mean, dim)
    assert_close(back, naive.log_mean_softmax_backward(*wide(g, mean), dim), z.dtype)
    assert all(each.shape == z.shape and each.is_contiguous() for each in (*found, back))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log", [True, False])
def test_every_dtype(log, dtype):
    assert_is_naive(*(numbers(i, 5, 70, dtype=dtype) for i in range(3)), 1, log)


@given(shape=st.lists(st.integers(0, 9), max_size=3), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=30)
def test_any_shape_along_any_dimension(shape, seed, data):
    dim = data.draw(st.integers(-max(len(shape), 1), max(len(shape), 1) - 1))
    assert_is_naive(*(numbers(seed + i, *shape) for i in range(3)), dim)


def test_rows_longer_than_a_program_takes_at_a_time():
    assert_is_naive(*(numbers(i, 2, 3000) for i in range(3)), 1)


def test_any_strides():
    z, z0, g = (numbers(i, 6, 4) for i in range(3))
    assert_is_naive(z.mT.contiguous().mT, z0[:1].expand(6, 4), g[:, :1].expand(6, 4), 1)


def test_what_is_masked_and_what_has_no_softmax():
    inf = math.inf
    z = torch.tensor([[0.0, -inf, 2.0, -inf], [-inf] * 4, [0.0, math.nan, 1.0, 2.0], [1e30, 0.0, -1e30, 3.0]]).double()
    z0 = torch.tensor([[1.0, 0.0, -inf, -inf], [0.0] * 4, [0.0] * 4, [0.0] * 4]).double()
    for log in (True, False):
        assert_is_naive(z, z0, torch.ones(4, 4).double(), 1, log)
        assert_is_naive(z0, z, torch.ones(4, 4).double(), 1, log)
