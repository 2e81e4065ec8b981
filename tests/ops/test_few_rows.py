"""A linear layer of a few rows: as products written out, whatever the layout."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import naive

DTYPES = [torch.float32, torch.float64]


def drawn(*shapes, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


@given(
    rows=st.integers(0, 9),
    inputs=st.integers(0, 70),
    outputs=st.integers(0, 13),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(DTYPES),
)
def test_it_is_a_linear_layer(rows, inputs, outputs, seed, dtype):
    x, weight, bias, m = drawn((rows, inputs), (outputs, inputs), outputs, (rows, outputs), seed=seed, dtype=dtype)
    expected = (x.double()[:, None] * weight.double()).sum(-1) + bias.double()
    torch.testing.assert_close(ops.few_rows(x, weight, bias), expected.to(dtype), rtol=1e-5, atol=1e-5)
    expected = (m.double()[:, :, None] * weight.double()).sum(1)
    torch.testing.assert_close(ops.few_rows_backward(m, weight), expected.to(dtype), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_all_threads_share_large_weights(rows, dtype):
    x, weight, bias, m = drawn((rows, 777), (301, 777), 301, (rows, 301), dtype=dtype)
    close = {"rtol": 1e-12, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(ops.few_rows(x, weight, bias), naive.few_rows(x, weight, bias), **close)
    torch.testing.assert_close(ops.few_rows_backward(m, weight), naive.few_rows_backward(m, weight), **close)


@pytest.mark.parametrize(
    "laid_out",
    [lambda a: a.mT.contiguous().mT, lambda a: torch.cat([a, a], 1)[:, : a.shape[1]], lambda a: a.repeat(2, 1)[::2]],
    ids=["transposed", "columns of a matrix", "every other row"],
)
def test_any_strides(laid_out):
    x, weight, bias, m = drawn((2, 40), (6, 40), 6, (2, 6))
    found = ops.few_rows(laid_out(x), laid_out(weight), bias)
    torch.testing.assert_close(found, laid_out(x) @ laid_out(weight).T + bias)
    torch.testing.assert_close(ops.few_rows_backward(laid_out(m), laid_out(weight)), laid_out(m) @ laid_out(weight))


def test_numbers_that_are_not_finite_reach_their_rows_only():
    x, weight, bias, m = drawn((3, 20), (5, 20), 5, (3, 5))
    x[1, 3], m[1, 2] = torch.nan, torch.inf
    for found in (ops.few_rows(x, weight, bias), ops.few_rows_backward(m, weight)):
        assert found[[0, 2]].isfinite().all()
        assert not found[1].isfinite().any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": torch.zeros(3, 4)}, ValueError, "weight"),
        ({"bias": torch.zeros(2)}, ValueError, "bias"),
        ({"bias": torch.zeros(3, dtype=torch.float64)}, TypeError, "bias"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    given = {"x": torch.zeros(2, 5), "weight": torch.zeros(3, 5), "bias": torch.zeros(3)}
    with pytest.raises(error, match=message):
        ops.few_rows(**{**given, **change})
