"""Contributions of tokens from the multipliers of their embeddings' sum."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import naive


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(rows=st.integers(0, 9), slots=st.integers(0, 5), size=st.sampled_from([1, 15, 16, 33]), seed=st.integers(0, 9))
def test_is_the_dot_product_written_out(dtype, rows, slots, size, seed):
    generator = torch.Generator().manual_seed(seed)
    table, m = (torch.randn(n, size, generator=generator, dtype=torch.float64) for n in (7, rows))
    tokens, baseline = (torch.randint(0, 7, (rows, slots), generator=generator) for _ in range(2))
    expected = torch.einsum("rsd,rd->rs", table[tokens] - table[baseline], m)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for function in (ops.token_contributions, naive.token_contributions):
        found = function(table.to(dtype), tokens, baseline, m.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
        assert not found[tokens == baseline].any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"tokens": torch.zeros(2, 4, dtype=torch.int64)},
            ValueError,
            r"baseline has shape \(2, 3\); accepted: \(2, 4\)",
        ),
        ({"tokens": torch.zeros(2, 3, dtype=torch.int32)}, TypeError, "int64"),
        ({"multipliers": torch.zeros(2, 4)}, ValueError, "multipliers"),
        ({"weight": torch.zeros(7, 5, dtype=torch.bfloat16)}, TypeError, "bfloat16"),
        ({"weight": torch.zeros(5, 7).t()}, ValueError, "contiguous"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    given = {"weight": torch.zeros(7, 5), "tokens": tokens, "baseline": tokens, "multipliers": torch.zeros(2, 5)}
    with pytest.raises(error, match=message):
        ops.token_contributions(**{**given, **change})


def test_a_token_outside_the_table_is_refused():
    tokens = torch.full((1, 1), 9)
    with pytest.raises((RuntimeError, IndexError)):
        ops.token_contributions(torch.zeros(7, 5), tokens, torch.zeros_like(tokens), torch.zeros(1, 5))


def test_registered_as_pytorch_expects():
    tokens = torch.tensor([[0, 2], [3, 1]])
    op = torch.ops.deeplift_fast.token_contributions
    torch.library.opcheck(op, (torch.randn(4, 3), tokens, tokens.flip(1), torch.randn(2, 3)))
