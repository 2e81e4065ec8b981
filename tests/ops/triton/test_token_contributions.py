"""The embedding differences' Triton kernel in the interpreter."""

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted_kernels import DTYPES, INTERPRETED, TOLERANCE, assert_close, launched, wide

from deeplift_fast.ops import naive

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.token_contributions import token_contributions

pytestmark = INTERPRETED


def case(seed, rows, slots, dim, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    weight, m = (torch.randn(n, dim, generator=draw, dtype=torch.float64).to(dtype) for n in (11, rows))
    tokens, baseline = (torch.randint(0, 11, (rows, slots), generator=draw) for _ in range(2))
    return weight, tokens, baseline, m


def assert_is_naive(*given):
    expected, dtype = naive.token_contributions(*wide(*given)), given[0].dtype
    scale = 1 + float(expected.abs().max()) if expected.numel() else 1.0
    assert_close(launched(token_contributions, *given), expected, dtype, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    assert_is_naive(*case(0, 5, 7, 70, dtype))


@given(rows=st.integers(0, 9), slots=st.integers(0, 6), dim=st.integers(0, 300), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_size(rows, slots, dim, seed):
    assert_is_naive(*case(seed, rows, slots, dim))


def test_rows_longer_than_a_program():
    assert_is_naive(*case(1, 2, 2, 1100))


def test_any_strides():
    weight, tokens, baseline, m = case(2, 6, 4, 10)
    weight, tokens = (each.mT.contiguous().mT for each in (weight, tokens))
    assert_is_naive(weight, tokens, baseline[:1].expand(6, 4), m[:1].expand(6, 10))


def test_what_is_the_same_in_both_streams_is_not_read():
    weight, tokens, _, m = case(3, 4, 5, 8)
    weight[:] = float("nan")
    assert launched(token_contributions, weight, tokens, tokens.clone(), m).eq(0).all()
