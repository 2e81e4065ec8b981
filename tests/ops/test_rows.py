"""Rows of a batch with their times: against each step written out."""

import pytest
import torch

from deeplift_fast import ops
from deeplift_fast.ops import NAMESPACE


@pytest.mark.parametrize(("batch", "steps", "slots"), [(0, 2, 3), (3, 4, 1), (2, 3, 4)])
def test_tokens_written_out(batch, steps, slots):
    weight, times = torch.randn(6, 5, dtype=torch.float64), torch.randn(batch, steps, dtype=torch.float64)
    given = torch.randint(-2, 9, (2, batch, steps, slots))
    rows, both = ops.token_rows(weight, *given, times)
    for stream in range(2):
        for i in range(batch):
            for t in range(steps):
                tokens = [min(max(token, 0), 5) for token in given[stream, i, t].tolist()]
                assert both[stream, t, i].tolist() == tokens
                torch.testing.assert_close(rows[stream, t, i, :5], sum(weight[token] for token in tokens))
                assert rows[stream, t, i, 5] == times[i, t]


@pytest.mark.parametrize(("batch", "steps", "size"), [(0, 2, 3), (3, 4, 1), (2, 3, 4)])
def test_values_written_out(batch, steps, size):
    given, times = torch.randn(2, batch, steps, size), torch.randn(batch, steps)
    rows, difference = ops.value_rows(*given, times)
    for i in range(batch):
        for t in range(steps):
            assert torch.equal(rows[:, t, i, :size], given[:, i, t])
            assert rows[:, t, i, size].eq(times[i, t]).all()
            assert torch.equal(difference[t, i], given[0, i, t] - given[1, i, t])


@pytest.mark.parametrize(("vocabulary", "slots"), [(0, 2), (3, 0)])
def test_tokens_without_embeddings_or_slots_are_refused(vocabulary, slots):
    tokens = torch.zeros(2, 3, slots, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"{vocabulary} embeddings and {slots} slots"):
        ops.token_rows(torch.zeros(vocabulary, 5), tokens, tokens, torch.zeros(2, 3))


def test_registered_as_pytorch_expects():
    of, tokens = getattr(torch.ops, NAMESPACE), torch.ones(2, 3, 2, dtype=torch.int64)
    torch.library.opcheck(of.token_rows, (torch.ones(4, 5), tokens, tokens, torch.ones(2, 3)))
    torch.library.opcheck(of.value_rows, (torch.ones(2, 3, 2), torch.ones(2, 3, 2), torch.ones(2, 3)))
