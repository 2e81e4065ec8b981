"""Softmax with logarithmic means: against the definition at 40 digits, autograd and completeness."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import NAMESPACE, naive


def numbers(seed, *shape, dtype=torch.float64):
    return (4 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-14)])
def test_means_are_the_definition(dtype, tolerance):
    z = torch.tensor([0.0, 3.0, -40.0, 7.0, 7.0], dtype=dtype)
    z0 = torch.tensor([1e-6, -2.0, -40.0, 7.0, -math.inf], dtype=dtype)

    def probabilities(logits):
        powers = [mpmath.exp(mpmath.mpf(t)) for t in logits.tolist()]
        return [power / sum(powers) for power in powers]

    with mpmath.workdps(40):
        p, p0 = probabilities(z), probabilities(z0)
        pairs = zip(p, p0, strict=True)
        expected = [float((a - b) / (mpmath.log(a) - mpmath.log(b))) if b else 0.0 for a, b in pairs]
    y, mean = ops.log_mean_softmax(z, z0, 0)
    log_p, _ = ops.log_mean_softmax(z, z0, 0, log=True)
    torch.testing.assert_close(mean.double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=0)
    torch.testing.assert_close(
        y.double(), torch.tensor([float(a) for a in p], dtype=torch.float64), rtol=tolerance, atol=0
    )
    torch.testing.assert_close(log_p, torch.log_softmax(z, 0))


@given(shape=st.lists(st.integers(1, 4), max_size=3), seed=st.integers(0, 99), data=st.data())
def test_complete_along_any_dimension(shape, seed, data):
    z, z0, g = (numbers(seed + i, *shape) for i in range(3))
    dim = data.draw(st.integers(-max(len(shape), 1), max(len(shape), 1) - 1))
    y, mean = ops.log_mean_softmax(z, z0, dim)
    m = ops.log_mean_softmax_backward(g, mean, dim)
    change = (g * (torch.softmax(z, dim) - torch.softmax(z0, dim))).sum()
    torch.testing.assert_close(y, torch.softmax(z, dim))
    torch.testing.assert_close((m * (z - z0)).sum(), change, rtol=1e-11, atol=1e-12)


def test_gradient_where_the_streams_agree():
    z, g = numbers(0, 3, 5).requires_grad_(), numbers(1, 3, 5)
    (expected,) = torch.autograd.grad(torch.softmax(z, 1), z, g)
    _, mean = ops.log_mean_softmax(z.detach(), z.detach(), 1)
    torch.testing.assert_close(ops.log_mean_softmax_backward(g, mean, 1), expected)


def test_rows_without_a_softmax_have_no_mean():
    z = torch.tensor([[-math.inf, -math.inf], [0.0, -math.inf], [0.0, math.nan]])
    y, mean = ops.log_mean_softmax(z, torch.zeros(3, 2), 1)
    assert y.isnan().any(1).tolist() == [True, False, True]
    assert mean[[0, 2]].eq(0).all()
    assert mean[1, 1] == 0
    assert ops.log_mean_softmax_backward(torch.ones(3, 2), mean, 1).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_compute_in_float32(dtype):
    z, z0, g = (numbers(i, 4, 9, dtype=dtype) for i in range(3))
    y, mean = ops.log_mean_softmax(z, z0, 1)
    wide, wide_mean = ops.log_mean_softmax(z.float(), z0.float(), 1)
    assert torch.equal(y, wide.to(dtype))
    assert torch.equal(mean, wide_mean.to(dtype))
    m = ops.log_mean_softmax_backward(g, mean, 1)
    assert torch.equal(m, ops.log_mean_softmax_backward(g.float(), mean.float(), 1).to(dtype))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3, 0)])
def test_zero_sizes(shape):
    y, mean = ops.log_mean_softmax(torch.zeros(shape), torch.zeros(shape), 1)
    assert y.shape == mean.shape == ops.log_mean_softmax_backward(mean, mean, 1).shape == shape


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z0": torch.zeros(2, 1)}, ValueError, "nothing is broadcast"),
        ({"z0": torch.zeros(2, 3, dtype=torch.float64)}, TypeError, "float64"),
        ({"z": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "int64"),
        ({"z0": torch.zeros(2, 3, device="meta")}, ValueError, "z0 on meta"),
        ({"dim": 2}, IndexError, "dim is 2; z has 2 dimensions"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    given = {"z": torch.zeros(2, 3), "z0": torch.zeros(2, 3), "dim": 1}
    with pytest.raises(error, match=message):
        ops.log_mean_softmax(**{**given, **change})


def test_registered_as_pytorch_expects():
    op = getattr(torch.ops, NAMESPACE)
    torch.library.opcheck(op.log_mean_softmax, (numbers(0, 3, 5), numbers(1, 3, 5), 1, False))
    torch.library.opcheck(op.log_mean_softmax_backward, (numbers(0, 3, 5).mT, numbers(1, 5, 3), 0))


@pytest.mark.parametrize("module", [ops, naive])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_multipliers_sum_to_zero(module, offset):
    z, z0, g = (numbers(i, 30, 17, dtype=torch.float32) for i in range(3))
    _, mean = ops.log_mean_softmax(z, z0, 1)
    m = module.log_mean_softmax_backward(g + offset, mean, 1).double()
    assert (m.sum(1).abs() <= 1e-7 * m.abs().sum(1)).all()
