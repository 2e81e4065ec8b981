"""GELU's Triton kernel in the interpreter."""

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted_kernels import DTYPES, INTERPRETED, assert_close, launched, wide

from deeplift_fast.ops import naive

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.gelu import gelu

pytestmark = INTERPRETED


def case(seed, rows, rows0, size, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    x, x0 = ((3 * torch.randn(n, size, generator=draw, dtype=torch.float64)).to(dtype) for n in (rows, rows0))
    return x, x0, torch.randint(0, rows0, (rows,), generator=draw)


def assert_is_naive(*arguments, **tolerances):
    found = launched(gelu, *arguments)
    assert_close(found, naive.gelu(*wide(*arguments)), arguments[0].dtype, **tolerances)
    assert all(each.shape == arguments[0].shape for each in found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("secant", [True, False])
def test_every_dtype(secant, dtype):
    assert_is_naive(*case(0, 5, 3, 70, dtype), secant)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 2e-14)])
def test_every_difference(dtype, atol):
    x = torch.cat([torch.linspace(-14, 14, 29), torch.tensor([-60.0, 60.0, 1e-9])]).double()
    delta = torch.cat([torch.zeros(1), torch.logspace(-12, 1.3, 30)]).double()
    a, delta = torch.cartesian_prod(x, torch.cat([-delta, delta])).to(dtype).unbind(1)
    one = torch.zeros(1, dtype=torch.int64)
    for secant in (True, False):
        assert_is_naive(a.unsqueeze(0), (a + delta).unsqueeze(0), one, secant, rtol=atol, atol=atol)


@given(rows=st.integers(0, 9), rows0=st.integers(1, 4), size=st.integers(0, 300), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_size(rows, rows0, size, seed):
    assert_is_naive(*case(seed, rows, rows0, size), True)


def test_rows_longer_than_a_program():
    assert_is_naive(*case(1, 3, 2, 1100, torch.float32), True)


def test_any_strides():
    x, x0, where = case(2, 6, 4, 10)
    assert_is_naive(x.mT.contiguous().mT, x0[:1].expand(4, 10), where.repeat_interleave(2)[::2], True)


def test_nan_stays():
    x = torch.tensor([[float("nan"), 1.0]])
    y, multiplier = launched(gelu, x, x.flip(1), torch.zeros(1, dtype=torch.int64), True)
    assert y.isnan().tolist() == [[True, False]]
    assert multiplier.isnan().all()
