"""Metadata that are read for all samples at once are those that are read one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metadata_cases import SAMPLES, dataset, stagenet

from deeplift_fast.cohort import metadata_checks
from deeplift_fast.cohort.metadata import ANY_STEPS, STAYS, Fault, days_of, flags_of, stay_of, stays_of
from deeplift_fast.cohort.metadata_checks import metadata_of
from deeplift_fast.cohort.metadata_entries import (
    UNKNOWN,
    days_at_once,
    entries_of,
    flags_at_once,
    places_at_once,
    stays_at_once,
    stays_of_each,
)
from deeplift_fast.cohort.samples import stretch_of

DAYS = st.none() | st.lists(st.none() | st.floats(-1e6, 1e6) | st.integers(-9, 9), max_size=5)
PAIRS = st.tuples(st.sampled_from(["a", "b", "c", "ä"]), st.none() | st.integers(0, 99))
PATIENTS = st.none() | st.lists(PAIRS, max_size=3)


@given(st.lists(DAYS, max_size=6))
def test_days(given_days):
    found = days_at_once("x_days", given_days)
    each = [None if days is None else days_of("x_days", days) for days in given_days]
    expected = entries_of(each, np.empty(0, np.float32))
    for name in ("flat", "lengths", "said"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.flat.dtype == np.float32


@pytest.mark.parametrize("wrong", [["x"], [True], [1e300], [float("nan")], "12", 3.5, np.ones((1, 1)), {1: 2}])
def test_a_faulty_sample_stops_reading_at_once(wrong):
    assert days_at_once("x_days", [[1.0], wrong]) is None


@given(st.lists(PATIENTS, max_size=5))
def test_stays_and_their_places(patients):
    found = stays_at_once(patients)
    try:
        expected = stays_of_each([None if each is None else stays_of(each) for each in patients])
    except Fault:  # a label twice
        assert found is None
        return
    if any(label == "ä" for each in patients for label, _ in each or []):
        assert found is None
        found = expected
    every = np.arange(len(patients))
    assert found.column(every).equals(expected.column(every))
    assert [found.of(place) for place in every] == [expected.of(place) for place in every]
    places = [None if each is None else [None, *range(len(each))] for each in patients]
    entries = places_at_once(places, found)
    labels = [None if place == UNKNOWN else found.labels[place] for place in entries.flat]
    one_by_one = [stay_of("x_stay", mine, found.of(place)) for place, mine in enumerate(places) if mine is not None]
    assert labels == [label for each in one_by_one for label in each]


@pytest.mark.parametrize("wrong", [[2], [-1], [True], ["a"], [10**400], [0.5]])
def test_stays_that_are_no_places_are_not_read_at_once(wrong):
    stays = stays_at_once([[("a", 0), ("b", 1)], [("c", 0)]])
    assert places_at_once([[0, 1], wrong], stays) is None


@given(st.lists(st.none() | st.integers(0, 4), min_size=1, max_size=5), st.sampled_from([(), (2,)]), st.booleans())
def test_flags(counts, inner, per_step):
    draw = np.random.default_rng(sum(count or 0 for count in counts))
    shape = () if per_step else inner
    flags = [None if count is None else draw.random((count, *shape)) < 0.5 for count in counts]
    found = flags_at_once(flags, inner)
    if all(each is None for each in flags):
        assert found is None
        return
    each = [None if one is None else flags_of("x_measured", one, (ANY_STEPS, *inner), False) for one in flags]
    expected = entries_of(each, np.zeros((0, *inner), bool))
    every, padded = np.arange(len(counts)), (len(counts), 4, *inner)
    for padding in (False, UNKNOWN):
        np.testing.assert_array_equal(
            found.padded(every, padded, padding, np.int8), expected.padded(every, padded, padding, np.int8)
        )


@pytest.mark.parametrize("wrong", [np.ones(2), np.ones((2, 3), bool), [True], np.array(True), np.ones((2, 2, 1), bool)])
def test_flags_of_another_kind_are_not_read_at_once(wrong):
    assert flags_at_once([np.ones((1, 2), bool), wrong], (2,)) is None


def test_a_group_read_at_once_is_the_group_read_one_by_one(monkeypatch):
    data = dataset([each | {STAYS: [("one", 0.5), ("two", 2)], "labs_stay": None} for each in SAMPLES])
    (group,) = stretch_of([data[i] for i in range(len(SAMPLES))], 0, 0).groups
    found = metadata_of(group, stagenet(data))
    for name in ("days_at_once", "places_at_once", "flags_at_once", "stays_at_once"):
        monkeypatch.setattr(metadata_checks, name, lambda *given: None)
    expected = metadata_of(group, stagenet(data))
    assert found.faults.keys() == expected.faults.keys()
    every = np.arange(len(SAMPLES))
    assert found.stays.column(every).equals(expected.stays.column(every))
    for kind in ("days", "stay"):
        for key, entries in getattr(expected, kind).items():
            np.testing.assert_array_equal(getattr(found, kind)[key].flat, entries.flat)
            np.testing.assert_array_equal(getattr(found, kind)[key].said, entries.said)
