"""The Triton kernels of rows with their times, in the interpreter."""

import importlib.util

import pytest
import torch
from interpreted_kernels import DTYPES, INTERPRETED, TOLERANCE, launched, wide

from deeplift_fast.ops import naive

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.rows import token_rows, value_rows

pytestmark = INTERPRETED


def assert_is_naive(launcher, *given):
    expected, dtype = getattr(naive, launcher.__name__)(*wide(*given)), given[0].dtype
    for result, target in zip(launched(launcher, *given), expected, strict=True):
        assert result.dtype == (dtype if target.is_floating_point() else torch.int64)
        tolerance = 4 * TOLERANCE[dtype]
        torch.testing.assert_close(result.to(target.dtype), target, rtol=tolerance, atol=tolerance)


def tokens_of(batch, steps, slots, size, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    weight, times = (torch.randn(n, dtype=torch.float64, generator=draw) for n in ((6, size), (batch, steps)))
    of = (torch.randint(-2, 9, (batch, steps, slots), generator=draw) for _ in range(2))
    return weight.to(dtype), *of, times.to(dtype)


def values_of(batch, steps, size, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    sizes = (batch, steps, size), (batch, steps, size), (batch, steps)
    return [torch.randn(n, dtype=torch.float64, generator=draw).to(dtype) for n in sizes]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    assert_is_naive(token_rows, *tokens_of(3, 4, 3, 5, dtype))
    assert_is_naive(value_rows, *values_of(3, 4, 5, dtype))


@pytest.mark.parametrize(("batch", "steps", "size"), [(0, 2, 3), (1, 1, 1), (2, 1, 300)])
def test_any_size(batch, steps, size):
    assert_is_naive(token_rows, *tokens_of(batch, steps, 1, size))
    assert_is_naive(value_rows, *values_of(batch, steps, size))


def test_more_rows_than_a_program():
    assert_is_naive(token_rows, *tokens_of(40, 9, 2, 3))
    assert_is_naive(value_rows, *values_of(40, 9, 3))


def test_any_strides():
    weight, of_tokens, baseline, times = tokens_of(3, 4, 3, 5)
    given = weight.T.contiguous().T, of_tokens.mT.contiguous().mT, baseline[:1].expand(3, 4, 3), times.T.contiguous().T
    assert_is_naive(token_rows, *given)
    x, baseline, times = values_of(3, 4, 5)
    assert_is_naive(value_rows, x.mT.contiguous().mT, baseline[:1].expand(3, 4, 5), times[:1].expand(3, 4))
