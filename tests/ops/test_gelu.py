"""GELU's secant slope and derivative: against the definition at 60 digits, plain torch and autograd."""

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import NAMESPACE, naive

TOLERANCE = {torch.float32: 1e-6, torch.float64: 2e-14}


@pytest.fixture(params=["naive", "dispatched"])
def gelu(request):
    """The plain torch implementation, and the one that the dispatcher picks (C++ where it was built)."""
    return naive.gelu if request.param == "naive" else ops.gelu


def exact(a, b):
    a, b = mpmath.mpf(a), mpmath.mpf(b)
    if a == b:
        return float(mpmath.ncdf(a) + a * mpmath.npdf(a))
    return float((a * mpmath.ncdf(a) - b * mpmath.ncdf(b)) / (a - b))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_slope_for_every_difference(gelu, dtype):
    x = torch.cat([torch.linspace(-14, 14, 29), torch.tensor([-1e-9, 1e-9, 0.3])]).double()
    delta = torch.cat([torch.zeros(1), torch.logspace(-12, 1.3, 30)]).double()
    pairs = torch.cartesian_prod(x, torch.cat([-delta, delta]))
    a, b = pairs[:, 0].to(dtype), (pairs[:, 0] + pairs[:, 1]).to(dtype)
    with mpmath.workdps(60):
        expected = torch.tensor(
            [exact(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)], dtype=torch.float64
        )
        values = torch.tensor([float(t * mpmath.ncdf(t)) for t in a.tolist()], dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.int64)
    y, multiplier = gelu(a.unsqueeze(0).contiguous(), b.unsqueeze(0).contiguous(), one, True)
    torch.testing.assert_close(multiplier[0].double(), expected, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(y[0].double(), values, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_derivative_is_autograds(gelu, dtype):
    x = torch.linspace(-9, 9, 400, dtype=dtype).reshape(4, 100).requires_grad_()
    expected = torch.nn.functional.gelu(x)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    y, multiplier = gelu(x.detach(), x.detach()[:1] + 1, torch.zeros(4, dtype=torch.int64), False)
    torch.testing.assert_close(y, expected.detach(), rtol=0, atol=5 * TOLERANCE[dtype])
    torch.testing.assert_close(multiplier, slope, rtol=0, atol=TOLERANCE[dtype])


@given(rows=st.integers(0, 5), rows0=st.integers(1, 4), size=st.integers(0, 40), seed=st.integers(0, 99))
def test_complete_whichever_rows_face_each_other(rows, rows0, size, seed):
    draw = torch.Generator().manual_seed(seed)
    x, x0 = (3 * torch.randn(n, size, generator=draw, dtype=torch.float64) for n in (rows, rows0))
    where = torch.randint(0, rows0, (rows,), generator=draw)
    y, multiplier = ops.gelu(x, x0, where, True)
    rise = torch.nn.functional.gelu(x) - torch.nn.functional.gelu(x0[where])
    torch.testing.assert_close(multiplier * (x - x0[where]), rise, rtol=0, atol=1e-13)
    torch.testing.assert_close(y, torch.nn.functional.gelu(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x0": torch.zeros(2, 3)}, ValueError, "shape"),
        ({"x": torch.zeros(2, 4, dtype=torch.bfloat16)}, TypeError, "bfloat16"),
        ({"x0": torch.zeros(2, 4, dtype=torch.float64)}, TypeError, "float64"),
        ({"x0": torch.zeros(2, 4, device="meta")}, ValueError, "on meta; move it to cpu"),
        ({"where": torch.tensor([0, 2])}, (RuntimeError, IndexError), "0 to 1"),
        ({"x": torch.zeros(4, 2).mT}, ValueError, "contiguous"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    given = {"x": torch.zeros(2, 4), "x0": torch.zeros(2, 4), "where": torch.tensor([0, 1]), "secant": True}
    with pytest.raises(error, match=message):
        ops.gelu(**{**given, **change})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_devices_take_half_types_and_any_strides(dtype):
    x, x0 = (torch.zeros(4, n, dtype=dtype, device="meta").mT for n in (3, 2))
    where = torch.zeros(3, dtype=torch.int64, device="meta")
    assert [(each.shape, each.dtype) for each in ops.gelu(x, x0, where, True)] == [((3, 4), dtype)] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_compute_in_float32_in_plain_torch(dtype):
    x, x0 = (torch.linspace(-3, 3, 8).reshape(2, 4).to(dtype), torch.ones(1, 4, dtype=dtype))
    where = torch.zeros(2, dtype=torch.int64)
    for secant in (True, False):
        expected = naive.gelu(x.float(), x0.float(), where, secant)
        found = naive.gelu(x, x0, where, secant)
        assert all(torch.equal(a, b.to(dtype)) for a, b in zip(found, expected, strict=True))


def test_registered_as_pytorch_expects():
    op = getattr(torch.ops, NAMESPACE).gelu
    torch.library.opcheck(op, (torch.randn(3, 5), torch.randn(2, 5), torch.tensor([0, 1, 1]), True))
