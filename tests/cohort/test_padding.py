"""Padding of ragged columns against a loop over samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplift_fast.cohort.padding import padded, ranges


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=9))
def test_ranges_one_after_another(pairs):
    begins, counts = np.array(pairs, np.int64).reshape(-1, 2).T
    expected = [number for begin, count in pairs for number in range(begin, begin + count)]
    assert ranges(begins, counts).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=9), st.data())
@pytest.mark.parametrize("inner", [(), (3,), (2, 2), (0,), (1,)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, np.uint16])
def test_padded_is_a_loop_over_samples(inner, dtype, lengths, data):
    lengths = np.array(lengths, np.int64)
    flat = np.random.default_rng(0).integers(-9, 9, (lengths.sum(), *inner)).astype(dtype)
    which = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=12)), np.int64)
    ends = np.cumsum(lengths)
    pieces = [flat[ends[place] - lengths[place] : ends[place]] for place in which]
    longest = max((len(piece) for piece in pieces), default=0)
    expected = np.zeros((len(which), longest, *inner), dtype)
    for row, piece in zip(expected, pieces, strict=True):
        row[: len(piece)] = piece
    found = padded(flat, lengths, which)
    assert found.shape == expected.shape
    assert found.numpy().dtype == dtype
    assert found.numpy().tobytes() == expected.tobytes()


def test_a_column_that_may_not_be_written_is_read_without_a_warning(recwarn):
    flat = np.arange(6.0)
    flat.flags.writeable = False
    assert padded(flat, np.array([2, 4]), np.array([0])).tolist() == [[0.0, 1.0]]
    assert not recwarn.list
