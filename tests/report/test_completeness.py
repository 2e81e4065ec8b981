import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast.report.completeness import misscaled, quantiles


def of(pieces, *shares):
    with tempfile.TemporaryFile() as file:
        for piece in pieces:
            file.write(piece)
        return quantiles(file, *shares)


@given(st.lists(st.lists(st.floats(0, 2.0**100, width=32, allow_subnormal=False)), min_size=1))
def test_the_median_of_pieces_is_that_of_all(pieces):
    arrays = [np.array(piece, dtype=np.float32) for piece in pieces]
    whole = np.concatenate(arrays)
    if len(whole) == 0:
        assert np.isnan(of(arrays, 0.5)).all()
    else:
        assert of(arrays, 0.5) == [np.median(whole.astype(np.float64))]


@given(st.lists(st.lists(st.floats(0, 2.0**100, width=32, allow_subnormal=False)), min_size=1), st.floats(0, 1))
def test_quantiles_of_pieces_are_those_of_all(pieces, share):
    arrays = [np.array(piece, dtype=np.float32) for piece in pieces]
    whole = np.concatenate(arrays).astype(np.float64)
    if len(whole):
        expected = np.quantile(whole, [share, 0.9])
        np.testing.assert_allclose(of(arrays, share, 0.9), expected, rtol=1e-9)


def test_infinite_numbers_sort_last():
    pieces = [np.array([np.inf, 1.0], np.float32), np.array([3.0, np.inf, 2.0], np.float32)]
    assert of(pieces, 0.5, 0.6, 0.9) == [3.0, np.inf, np.inf]


def test_negative_zero_is_zero():
    assert of([np.array([-0.0, -0.0, 1.0], dtype=np.float32)], 0.5) == [0.0]


@pytest.mark.parametrize(
    ("output", "baseline", "delta", "expected"),
    [
        (1.0, 0.0, 0.0, False),
        (1.0, 0.0, -0.8, False),  # scaled by 5
        (1.0, 0.0, -0.95, True),  # scaled by 20
        (1.0, 0.0, -1.5, True),  # scaled by −2
        (1.0, 0.0, -1.0, True),  # by no finite number
    ],
)
def test_misscaled(output, baseline, delta, expected):
    found = misscaled(*(np.array([number], dtype=np.float32) for number in (output, baseline, delta)))
    assert found.tolist() == [expected]
