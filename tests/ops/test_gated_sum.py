"""A gated value added to another: its value, and multipliers that account for its rise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import NAMESPACE


def drawn(*shape, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return [(2 * torch.randn(2, *shape, generator=draw, dtype=torch.float64)).to(dtype) for _ in range(3)]


@given(rows=st.integers(0, 5), size=st.integers(0, 9), seed=st.integers(0, 99))
def test_midpoints_are_complete(rows, size, seed):
    a, b, c = drawn(rows, size, seed=seed)
    y, (m_a, m_b) = ops.gated_sum(a, b, c, "rescale", 0.5)
    torch.testing.assert_close(y, torch.sigmoid(a) * b + c, rtol=1e-13, atol=1e-13)
    moved = m_a * (a[0] - a[1]) + m_b * (b[0] - b[1]) + (c[0] - c[1])
    torch.testing.assert_close(moved, y[0] - y[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["rescale", "pyhealth"])
def test_gradients_take_the_other_operand_at_the_input(variant):
    a, b, c = drawn(3, 4)
    gate, _, slope = ops.secant(a[0], a[1], "sigmoid", variant)
    _, (m_a, m_b) = ops.gated_sum(a, b, c, variant, 0.0)
    torch.testing.assert_close(m_a, slope * b[0])
    torch.testing.assert_close(m_b, gate)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_compute_in_float32(dtype):
    given = drawn(3, 4, dtype=dtype)
    expected = ops.gated_sum(*(each.float() for each in given), "rescale", 0.5)
    for found, wide in zip(ops.gated_sum(*given, "rescale", 0.5), expected, strict=True):
        assert torch.equal(found, wide.to(dtype))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"b": torch.zeros(2, 3)}, ValueError, "b"),
        ({"c": torch.zeros(2, 4, dtype=torch.float64)}, TypeError, "c"),
        ({"variant": "secant"}, ValueError, "rescale, pyhealth"),
        (
            {name: torch.zeros(3, 4) for name in "abc"},
            ValueError,
            r"a has shape \(3, 4\); accepted: \(2, 4\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    given = {name: torch.zeros(2, 4) for name in "abc"} | {"variant": "rescale", "half": 0.0}
    with pytest.raises(error, match=message):
        ops.gated_sum(**{**given, **change})


def test_registered_as_pytorch_expects():
    torch.library.opcheck(getattr(torch.ops, NAMESPACE).gated_sum, (*drawn(3, 5), "rescale", 0.5))
