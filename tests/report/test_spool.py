import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast.report.spool import Spool, bits_of, numbers_of

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS))
def test_bits_sort_as_numbers_do_and_come_back(numbers):
    given = np.array(numbers, np.float32)
    bits = bits_of(given)
    np.testing.assert_array_equal(numbers_of(bits), given)
    np.testing.assert_array_equal(numbers_of(np.sort(bits)), np.sort(given))


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.floats(-100, 100, width=32)))), st.floats(0, 1))
def test_quantiles_of_rows(pieces, share):
    rows = [np.array([row for row, _ in piece], np.int64) for piece in pieces]
    numbers = [np.array([number for _, number in piece], np.float32) for piece in pieces]
    with Spool() as spool:
        for row, number in zip(rows, numbers, strict=True):
            spool.add(row, bits_of(number))
        found = spool.quantiles(6, np.array([0.0, share, 1.0]))
    row, number = np.concatenate([np.zeros(0, int), *rows]), np.concatenate([np.zeros(0, np.float32), *numbers])
    for place in range(6):
        mine = number[row == place].astype(float)
        expected = np.quantile(mine, [0, share, 1]) if len(mine) else [np.nan] * 3
        np.testing.assert_allclose(found[place], expected, atol=1e-12)


@pytest.mark.parametrize("at_once", [3, 1 << 20])
def test_distinct(monkeypatch, at_once):
    monkeypatch.setattr("deeplift_fast.report.spool._AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    rows, bits = rng.integers(0, 5, 100), rng.integers(0, 9, 100).astype(np.uint64) + np.uint64(1 << 63)
    with Spool(40) as spool:
        for piece in np.array_split(np.arange(100), 7):
            spool.add(rows[piece], bits[piece], once=True)
        found = spool.distinct(6)
    assert found.tolist() == [len(np.unique(bits[rows == row])) for row in range(6)]
