"""Ragged stretches, batches by length, and what they hold next to PyHealth's collate."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from cohort_cases import cohort
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhealth.datasets import get_dataloader
from pyhealth.datasets.utils import collate_fn_dict_with_padding

from deeplift_fast.cohort.samples import PaddedGroup, cut, stretch_of, stretches_of


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("kind", ["StageNet", "Transformer", "MLP, nested", "Transformer, one row"])
def test_a_batch_is_what_pyhealth_collates(kind):
    data, _ = cohort(kind)
    (group,) = stretch_of([data[i] for i in range(23)], 0, 0).groups
    for which in ([0], [22, 3, 3], list(range(23))):
        expected = collate_fn_dict_with_padding([data[i] for i in which])
        found = group.batch(np.array(which))
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])


@pytest.mark.parametrize("kind", ["StageNet", "Transformer, one row"])
def test_a_batch_lies_where_pytorch_lays_tensors(kind):
    """Products round by how their operands are aligned, and a cohort must come out the same in every run."""
    data, _ = cohort(kind)
    (group,) = stretch_of([data[i] for i in range(23)], 0, 0).groups
    for count in range(1, 20):
        for value in group.batch(np.arange(count)).values():
            for tensor in value if isinstance(value, tuple) else (value,):
                if isinstance(tensor, torch.Tensor) and tensor.numel():
                    assert tensor.data_ptr() % 64 == 0


def test_odd_samples_stand_apart():
    samples = [
        {"x": torch.ones(2, 3)},
        {"x": torch.ones(1, 4)},
        {"x": None},
        {"x": torch.ones(5, 3)},
        {"x": torch.ones(5, 3), "y": 1},
        {"x": (None, torch.ones(2))},
        {"x": (torch.ones(2), torch.ones(2))},
    ]
    stretch = stretch_of(samples, 2, 100)
    assert [group.numbers.tolist() for group in stretch.groups] == [[100, 103], [101], [102], [104], [105], [106]]
    assert (stretch.part, stretch.begin, stretch.end) == (2, 100, 107)
    assert stretch.identifiers == {"patient_id": [None] * 7, "visit_id": [None] * 7}
    assert stretch.groups[4].batch(np.array([0]))["x"][0] is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 200))
def test_batches_hold_each_sample_once_within_the_budget_by_length(lengths, budget):
    samples = [{"x": torch.ones(length), "y": torch.ones(1)} for length in lengths]
    (group,) = stretch_of(samples, 0, 7).groups
    batches = cut(group, np.arange(len(lengths)), ["x", "y"], budget)
    numbers = np.concatenate([batch.numbers for batch in batches])
    assert sorted(numbers) == list(range(7, 7 + len(lengths)))
    for batch in batches:
        padded = batch.given()["x"].numel()
        assert padded <= budget or len(batch.which) == 1
    order = [lengths[number - 7] for number in numbers]
    assert order == sorted(lengths)
    for one, following in pairwise(batches):  # no batch could have taken one more
        longer = lengths[following.numbers[0] - 7]
        assert (len(one.which) + 1) * longer > budget
    again = cut(group, np.arange(len(lengths)), ["x", "y"], budget)
    assert [batch.which.tolist() for batch in again] == [batch.which.tolist() for batch in batches]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 11))
def test_batches_as_they_come_are_cut_where_a_part_ends(sizes, part_samples):
    numbers = iter(range(1000))
    batches = []
    for size in sizes:
        names = [str(next(numbers)) for _ in range(size)]
        batches.append((size, {"x": torch.tensor([[int(name)] for name in names]), "patient_id": names}))
    stretches = list(stretches_of(iter(batches), part_samples))
    assert [stretch.part for stretch in stretches] == list(range(-(-sum(sizes) // part_samples)))
    names = [name for stretch in stretches for name in stretch.identifiers["patient_id"]]
    assert names == [str(i) for i in range(sum(sizes))]
    for stretch in stretches:
        assert stretch.begin == stretch.part * part_samples
        for group in stretch.groups:
            assert isinstance(group, PaddedGroup)
            (batch,) = cut(group, np.arange(len(group.numbers)), ["x"], 1)
            assert batch.given()["x"][:, 0].tolist() == group.numbers.tolist()


def test_a_padded_batch_can_be_taken_apart():
    data, _ = cohort("StageNet")
    batch = next(iter(get_dataloader(data, 6)))
    group = PaddedGroup(np.arange(6), batch)
    few = group.batch(np.array([4, 1]))
    assert_same(few["codes"][1], batch["codes"][1][[4, 1]])
    assert few["patient_id"] == [batch["patient_id"][4], batch["patient_id"][1]]
