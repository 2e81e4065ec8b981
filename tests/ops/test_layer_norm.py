"""The multipliers of a layer norm: kernels against plain torch, autograd and completeness."""

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
    found = ops.layer_norm_backward(*given, half)
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
    found = ops.layer_norm_backward(*given, 0.0) if module is ops else naive.layer_norm_backward(*flat(*given), 0.0)
    torch.testing.assert_close(found, expected)


@given(seed=st.integers(0, 99), size=st.integers(2, 40))
def test_complete(seed, size):
    m, x, x0, where, averages, scales, weight = case(seed, 4, 3, size)
    found = ops.layer_norm_backward(m, x, x0, where, averages, scales, weight, 0.5)
    y, y0 = (torch.nn.functional.layer_norm(each, (size,), weight, None, EPS) for each in (x, x0))
    contributed, change = (found * (x - x0[where])).sum(1), (m * (y - y0[where])).sum(1)
    torch.testing.assert_close(contributed, change, rtol=1e-8, atol=1e-8)


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
        ops.layer_norm_backward(*given, 0.5)


def test_registered_as_pytorch_expects():
    torch.library.opcheck(getattr(torch.ops, NAMESPACE).layer_norm_backward, (*flat(*case(0, 3, 2, 4)), 0.5))
