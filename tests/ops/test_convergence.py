"""What contributions miss of summation to delta: against sums written out sample by sample."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import NAMESPACE, naive

EPS = torch.finfo(torch.float64).eps


def drawn(features, batch, seed, dtype=torch.float64):
    """Samples of which some are complete, some far from it, and some have a raw sum of 0."""
    draw = torch.Generator().manual_seed(seed)
    output, output0 = (torch.randn(batch, generator=draw, dtype=torch.float64).to(dtype) for _ in range(2))
    parts = torch.randn(features, batch, generator=draw, dtype=torch.float64)
    kind = torch.randint(0, 4, (batch,), generator=draw)
    aim = torch.where(kind == 0, 0.0, (output.double() - output0.double()) * torch.where(kind == 1, 20.0, 1.0))
    parts[0] += torch.where(kind == 3, 0.0, aim - parts.sum(0))
    return parts, output, output0


@given(features=st.integers(1, 3), batch=st.integers(0, 30), seed=st.integers(0, 99), rescale=st.booleans())
def test_every_sample_written_out(features, batch, seed, rescale):
    totals, output, output0 = drawn(features, batch, seed)
    delta, factor, fine, figures = ops.convergence(totals, output, output0, rescale, 0.01)
    missing = rounding = 0.0
    for i in range(batch):
        total, difference = sum(totals[:, i].tolist()), float(output[i] - output0[i])
        assert float(delta[i]) == pytest.approx(total - difference, rel=1e-12, abs=1e-13)
        near = 1e3 * EPS * max(abs(float(output[i])), abs(float(output0[i])), 1)
        missing, rounding = missing + float(delta[i]), rounding + 1e3 * EPS * (1 + abs(difference))
        if rescale:
            by = difference / total if abs(total) > 1e-8 else None
            assert float(factor[i]) == pytest.approx(1.0 if by is None else by, rel=1e-12)
            assert bool(fine[i]) == (by is not None and 0 <= by <= 10)
        else:
            assert bool(fine[i]) == (abs(total - difference) <= max(0.01 * abs(difference), near))
    assert len(factor) == (batch if rescale else 0)
    assert figures.sum(0).tolist() == pytest.approx([missing, rounding, float((~fine).sum())], abs=1e-11)


@pytest.mark.parametrize("rescale", [True, False])
def test_nan_is_not_fine(rescale):
    totals = torch.tensor([[math.nan, 1.0, 1.0]], dtype=torch.float64)
    output, output0 = torch.tensor([1.0, math.nan, 1.0]), torch.zeros(3)
    _, _, fine, figures = ops.convergence(totals, output, output0, rescale, 0.01)
    assert fine.tolist() == [False, False, True]
    assert float(figures[:, 2].sum()) == 2


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_are_plain_torch(dtype, rescale):
    given = (*drawn(2, 50, 3, dtype), rescale, 0.1)
    *found, figures = ops.convergence(*given)
    *expected, sums = naive.convergence(*given)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))
    torch.testing.assert_close(figures, sums, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rescale", [True, False])
def test_nan_and_infinity_as_in_plain_torch(rescale):
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 1.0], dtype=torch.float64)
    total, output, output0 = torch.cartesian_prod(special, special, special).T.contiguous()
    given = (total.unsqueeze(0), output, output0, rescale, 0.01)
    for found, expected in zip(ops.convergence(*given)[:3], naive.convergence(*given)[:3], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_half_types_are_computed_in_float32_in_plain_torch():
    delta, factor, _, figures = naive.convergence(*drawn(2, 5, 1, torch.float16), True, 0.01)
    assert (delta.dtype, factor.dtype, figures.dtype) == (torch.float16, torch.float32, torch.float64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"output0": torch.zeros(2)}, ValueError, "output0 has shape"),
        ({"output0": torch.zeros(3, dtype=torch.float64)}, TypeError, "float64"),
        ({name: torch.zeros(3).half() for name in ("output", "output0")}, TypeError, "float16"),
        ({"totals": torch.zeros(1, 3)}, TypeError, "float32; accepted: torch.float64"),
        (
            {"totals": torch.zeros(1, 2, dtype=torch.float64)},
            ValueError,
            "output has shape .*, with batch of totals",
        ),
        ({"totals": torch.zeros(0, 3, dtype=torch.float64)}, ValueError, r"accepted: \(1, 3\)"),
        ({"totals": torch.zeros(3, dtype=torch.float64)}, ValueError, "2 dimension"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    given = {"totals": torch.zeros(1, 3, dtype=torch.float64), "output": torch.zeros(3), "output0": torch.zeros(3)}
    with pytest.raises(error, match=message):
        ops.convergence(**{**given, **change}, rescale=True, tolerance=0.01)


@pytest.mark.parametrize("rescale", [True, False])
def test_registered_as_pytorch_expects(rescale):
    torch.library.opcheck(getattr(torch.ops, NAMESPACE).convergence, (*drawn(2, 4, 0), rescale, 0.01))
