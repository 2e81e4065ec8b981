"""Sequences as rows: by step, then by sample."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast.pyhealth.fused.sequences import RealSteps

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=9)


@given(LENGTHS)
def test_rows_are_every_step_of_every_sample_once(lengths):
    steps = RealSteps.of(torch.tensor(lengths))
    found = sorted(zip(steps.sample.tolist(), steps.step.tolist(), strict=True))
    assert found == [(i, t) for i, length in enumerate(lengths) for t in range(length)]
    assert steps.counts.tolist() == [sum(length > t for length in lengths) for t in range(max(lengths))]
    assert torch.equal(steps.rows(steps.place, steps.step), torch.arange(len(found)))
    last = steps.last()
    assert steps.step[last].tolist() == [lengths[i] - 1 for i in steps.order.tolist()]


@given(LENGTHS)
def test_reversing_twice_changes_nothing(lengths):
    steps = RealSteps.of(torch.tensor(lengths))
    turned = steps.reversed()
    assert torch.equal(turned[turned], torch.arange(len(turned)))
    assert torch.equal(steps.sample[turned], steps.sample)
    assert torch.equal(steps.step[turned], steps.lengths[steps.place] - 1 - steps.step)


@given(LENGTHS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_distinct_sequences_hold_every_row(lengths, kinds, draw):
    steps = RealSteps.of(torch.tensor(lengths))
    of_sample = torch.tensor([draw.randint(0, kinds) for _ in lengths])
    rows = torch.stack([of_sample[steps.sample], steps.step], 1)
    steps0, kept, where = steps.distinct(rows)
    facing = steps0.rows(where[steps.place], steps.step)
    assert torch.equal(rows[kept][facing], rows)
    assert bool((where[: len(lengths)] < len(steps0.order)).all())
    assert len(steps0.order) <= len(lengths)
    if kinds == 0:
        assert len(steps0.order) == 1
