"""What a batch tells of itself: against each sample written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from survey_cases import tokens_of, values_of

from deeplift_fast import ops
from deeplift_fast.ops import NAMESPACE

SIZES = {"batch": st.integers(0, 4), "steps": st.integers(1, 5), "width": st.integers(1, 4), "seed": st.integers(0, 99)}


@given(**SIZES)
def test_tokens_written_out(batch, steps, width, seed):
    times, tokens = tokens_of(batch, steps, width, seed)
    real, unknown, held, ends, bounds, bad = ops.token_survey(times, tokens)
    assert torch.equal(unknown, real.long())
    for i, sample in enumerate(tokens.tolist()):
        flat = [token for step in sample for token in step]
        assert real[i].flatten().tolist() == [token != 0 for token in flat]
        assert held[i].tolist() == [any(step) for step in sample]
        assert int(ends[i]) == max(sum(any(step) for step in sample), 1)
        assert bounds[i].tolist() == [min(flat), max(flat)]
        assert bool(bad[i]) == (not all(map(math.isfinite, times[i].tolist())))


@given(**SIZES)
def test_values_written_out(batch, steps, width, seed):
    values, times = values_of(batch, steps, width, seed)
    filled, real, baseline, ends, bad = ops.value_survey(values, times, 0.25)
    for i, (sample, of_sample) in enumerate(zip(values.tolist(), times.tolist(), strict=True)):
        found = [any(step) for step in sample]
        end = max((t + 1 for t in range(steps) if found[t] or of_sample[t]), default=0)
        assert filled[i].tolist() == found
        assert real[i].tolist() == [t < end for t in range(steps)]
        assert int(ends[i]) == max(end, 1)
        assert baseline[i, :end].eq(0.25).all()
        torch.testing.assert_close(baseline[i, end:], values[i, end:], rtol=0, atol=0, equal_nan=True)
        assert bool(bad[i]) == (not all(map(math.isfinite, [*of_sample, *(x for step in sample for x in step)])))


@pytest.mark.parametrize(
    ("op", "given", "message"),
    [
        ("token_survey", (torch.ones(2, 0), torch.ones(2, 0, 3).long()), "0 steps and 3 slots"),
        ("token_survey", (torch.ones(2, 3), torch.ones(2, 3, 0).long()), "3 steps and 0 slots"),
        ("token_survey", (torch.ones(2, 3), torch.ones(2, 4, 1).long()), r"tokens has shape \(2, 4, 1\)"),
        ("value_survey", (torch.ones(2, 0, 3), torch.ones(2, 0), 0.1), "values has 0 steps"),
        ("value_survey", (torch.ones(2, 3, 1), torch.ones(2, 4), 0.1), r"times has shape \(2, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(op, given, message):
    with pytest.raises(ValueError, match=message):
        getattr(ops, op)(*given)


def test_registered_as_pytorch_expects():
    of = getattr(torch.ops, NAMESPACE)
    torch.library.opcheck(of.token_survey, (torch.ones(2, 3), torch.ones(2, 3, 2).long()))
    torch.library.opcheck(of.value_survey, (torch.ones(2, 3, 2), torch.ones(2, 3), 0.01))
