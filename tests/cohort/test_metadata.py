"""What samples may say of their steps, stays and split, and what is refused."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast.cohort.metadata import (
    ANY_STEPS,
    Fault,
    days_of,
    flags_of,
    listed,
    names_of,
    split_of,
    stay_of,
    stays_of,
)

LABELS = st.text(st.characters(codec="utf-8"), max_size=8)
SECRET = "secret-stay"  # a value that no error may quote


@given(st.lists(st.none() | st.floats(-1e30, 1e30) | st.integers(-(10**9), 10**9)), st.booleans())
def test_days_are_numbers_or_unknown(given_days, as_array):
    if as_array:
        given_days = np.array([0 if day is None else day for day in given_days], np.float64)
    found = days_of("labs_days", given_days)
    assert found.dtype == np.float32
    expected = [math.nan if day is None else np.float32(day) for day in given_days]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.ones(2), "is a Tensor; accepted: a plain list of numbers"),
        ("12", "is a str"),
        (3.5, "is a float"),
        ({"0": 1.0}, "is a dict"),
        (np.ones((2, 2)), "is a ndarray"),
        ([SECRET], "holds something else than numbers"),
        ([[1.0], [2.0]], "holds something else than numbers"),
        ([True, 1.0], "holds something else than numbers"),
        (np.array([True]), "holds something else than numbers"),
        ([1.0, math.nan], "holds NaN, inf"),
        ([-math.inf], "holds NaN, inf"),
        ([1e300], "beyond float32"),
        ([10**400], "beyond float32"),
    ],
)
def test_days_that_are_none_are_refused(wrong, said):
    with pytest.raises(Fault, match="labs_days") as caught:
        days_of("labs_days", wrong)
    assert said in str(caught.value)
    assert "accepted" in str(caught.value)
    assert SECRET not in str(caught.value)


@given(
    st.lists(st.tuples(LABELS, st.none() | st.floats(-1e6, 1e6, width=32)), unique_by=lambda pair: pair[0]), st.data()
)
def test_a_step_names_its_stay_by_label_or_place(pairs, data):
    as_dicts = [{"label": label, "begin": begin} for label, begin in pairs]
    stays = stays_of(data.draw(st.sampled_from([pairs, as_dicts, tuple(map(list, pairs))])))
    assert stays == pairs
    places = data.draw(st.lists(st.none() | st.integers(0, len(pairs) - 1) if pairs else st.none()))
    labels = [None if place is None else pairs[place][0] for place in places]
    mixed = [label if data.draw(st.booleans()) else place for label, place in zip(labels, places, strict=True)]
    for given_stay in (places, labels, mixed):
        assert stay_of("labs_stay", given_stay, stays) == labels
    assert stay_of("labs_stay", labels, None) == labels
    assert stay_of("labs_stay", places, None) == [None if place is None else str(place) for place in places]


@pytest.mark.parametrize(
    ("wrong", "stays", "said"),
    [
        ([1], [("a", 0.0)], "a place that stays does not have"),
        ([-1], None, "a place that stays does not have"),
        (np.array([2]), [("a", 0.0), ("b", 1.0)], "a place that stays does not have"),
        ([0], [], "a place that stays does not have"),
        ([SECRET], [("a", 0.0)], "a label that is not in stays"),
        ([1.0], None, "something else than texts and ints"),
        ([True], None, "something else than texts and ints"),
        ([["a"]], None, "something else than texts and ints"),
        ("a", None, "is a str"),
        (torch.tensor([0]), None, "is a Tensor"),
    ],
)
def test_stays_of_steps_that_fit_nothing_are_refused(wrong, stays, said):
    with pytest.raises(Fault, match="labs_stay") as caught:
        stay_of("labs_stay", wrong, stays)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("ab", "stays is a str"),
        ({"label": "a", "begin": 0}, "stays is a dict"),
        (["ab"], "something else than pairs"),
        ([("a",)], "something else than pairs"),
        ([{"label": "a"}], "something else than pairs"),
        ([{"label": "a", "begin": 0, "end": 1}], "something else than pairs"),
        ([(1, 0.0)], "a label that is no text"),
        ([(None, 0.0)], "a label that is no text"),
        ([(SECRET, "soon")], "begin in stays holds something else than numbers"),
        ([(SECRET, math.nan)], "begin in stays holds NaN"),
        ([(SECRET, True)], "begin in stays holds something else than numbers"),
        ([(SECRET, 0), (SECRET, 1)], "stays holds a label twice"),
    ],
)
def test_stays_that_are_none_are_refused(wrong, said):
    with pytest.raises(Fault) as caught:
        stays_of(wrong)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_split_is_a_text():
    assert split_of("train") == "train"
    assert split_of(np.str_("train")) == "train"
    assert split_of(None) is split_of(math.nan) is None
    for wrong in (1, True, ["train", "test"], {"train"}):
        with pytest.raises(Fault, match="split is a"):
            split_of(wrong)


def test_texts_that_parquet_cannot_hold_are_escaped():
    assert split_of("\ud800") == "\\ud800"
    assert stays_of([("\ud800", 0)]) == [("\\ud800", 0.0)]
    assert stay_of("labs_stay", ["\ud800"], [("\\ud800", 0.0)]) == ["\\ud800"]


@pytest.mark.parametrize(
    ("flags", "shape", "is_token", "expected"),
    [
        ([True, False], (ANY_STEPS, 2), False, [[True, True], [False, False]]),
        ([[True, False]], (ANY_STEPS, 2), False, [[True, False]]),
        (np.array([True, False]), (ANY_STEPS,), False, [True, False]),
        ([[[True], [False]]], (ANY_STEPS, 2, 1), False, [[[True], [False]]]),
        ([[True, False]], (ANY_STEPS, 2, 1), False, [[[True], [False]]]),
        ([[True], [False, True]], (ANY_STEPS, 3), True, [[True, False, False], [False, True, False]]),
        (np.array([[True], [False]]), (ANY_STEPS, 2), True, [[True, False], [False, False]]),
        ([], (ANY_STEPS, 2), False, []),
        ([True, False], (2,), False, [True, False]),
        (True, (), False, True),
        ([True], (), False, True),
    ],
)
def test_flags_are_for_steps_or_for_their_values(flags, shape, is_token, expected):
    assert flags_of("labs_measured", flags, shape, is_token).tolist() == expected


@pytest.mark.parametrize(
    ("wrong", "shape", "is_token"),
    [
        ([1, 0], (ANY_STEPS, 2), False),
        ([1.0], (ANY_STEPS, 2), False),
        (["yes"], (ANY_STEPS, 2), False),
        ([[True], [True, False]], (ANY_STEPS, 2), False),
        ([[True, True, True]], (ANY_STEPS, 2), False),
        ([[True, True, True]], (ANY_STEPS, 2), True),
        ([True, None], (ANY_STEPS, 2), False),
        ([[[True]]], (ANY_STEPS, 1), False),
        (True, (ANY_STEPS, 2), False),
        ("yes", (ANY_STEPS, 2), False),
        ([True, True, True], (2,), False),
    ],
)
def test_flags_that_do_not_fit_are_refused(wrong, shape, is_token):
    with pytest.raises(Fault, match=r"labs_measured .*accepted: bool, "):
        flags_of("labs_measured", wrong, shape, is_token)


def test_a_field_has_one_entry_per_sample():
    assert listed("split", None, 2) == [None, None]
    assert listed("split", ("a", "b"), 2) == ["a", "b"]
    assert listed("split", np.array(["a", "b"], object), 2) == ["a", "b"]
    for wrong in ("ab", 3, torch.ones(2), np.array("a")):
        with pytest.raises(Fault, match=r"split is a .*accepted: a plain list"):
            listed("split", wrong, 2)
    with pytest.raises(Fault, match=r"split has another number of entries than there are samples \(1, 2 samples\)"):
        listed("split", ["a"], 2)


def test_features_and_labels_are_no_metadata():
    dataset = SimpleNamespace(input_processors={"labs": 0, "labs_days": 0, "los": 0, "stays": 0})
    model = SimpleNamespace(feature_keys=["labs"], label_keys=["los_stay"], dataset=dataset)
    found = names_of(model)
    assert {"labs_stay", "labs_measured", "los_days", "split"} <= found
    assert not found & {"labs_days", "stays", "los_stay", "labs"}
