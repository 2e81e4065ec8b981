"""Batches as they come: every sample keeps what is its own, and what does not fit the batch is named."""

import string
from collections import deque

import numpy as np
import pandas as pd
import pytest
import torch
from cohort_cases import SECRETS, cohort, run, table
from hypothesis import given
from hypothesis import strategies as st
from pyhealth.datasets import get_dataloader

from deeplift_fast.cohort import CohortError
from deeplift_fast.cohort.entries import regular, taken
from deeplift_fast.cohort.identifiers import of_batch, of_sample, of_samples
from deeplift_fast.cohort.samples import stretches_of

FORMS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "array of objects": lambda names: np.array(names, object),
    "Series": lambda names: pd.Series(names, index=range(7, 7 + len(names))),
    "deque": deque,
}
MODEL = cohort(count=4)[1]  # features "a" and "b", of tokens


def batches(count, size, form):
    data, model = cohort(count=count)
    found = []
    for batch in get_dataloader(data, size):
        names = {key: form(batch[key]) for key in ("patient_id", "visit_id")}
        found.append({**batch, **names})
    return data, model, found


@pytest.mark.parametrize("form", FORMS)
def test_identifiers_stay_with_their_samples_where_a_part_cuts_a_batch(form, tmp_path):
    data, model, found = batches(60, 10, FORMS[form])
    done = run(model, found, tmp_path, part_samples=25)
    assert (done.samples, done.failures) == (60, 0)
    for column in ("patient_id", "visit_id"):
        assert table(tmp_path, "samples")[column].to_pylist() == [data[i][column] for i in range(60)]
    rows = table(tmp_path, "attributions")
    assert rows["visit_id"].to_pylist() == [data[i]["visit_id"] for i in rows["sample"].to_pylist()]


def test_identifiers_as_a_tensor(tmp_path):
    _, model, found = batches(23, 6, lambda names: torch.tensor([int(name.split("-")[-1]) for name in names]))
    run(model, found, tmp_path)
    assert table(tmp_path, "samples")["visit_id"].to_pylist() == [str(i) for i in range(23)]


ENTRY = st.sampled_from(["list", "tuple", "array", "tensor", "Series", "pair", "dict", "list of arrays"])


def entry(kind, numbers):
    column = torch.tensor(numbers)[:, None]
    return {
        "list": numbers,
        "tuple": tuple(numbers),
        "array": np.array(numbers),
        "tensor": column,
        "Series": pd.Series(numbers),
        "pair": (None, column),
        "dict": {"inner": numbers},
        "list of arrays": [np.full(len(numbers), n) for n in numbers],  # each as long as the batch
    }[kind]


def numbers_of(kind, value):
    if kind == "list of arrays":
        return [int(each[0]) for each in value]
    value = {"pair": lambda: value[1], "dict": lambda: value["inner"]}.get(kind, lambda: value)()
    return [int(each) for each in value]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 11), ENTRY, ENTRY)
def test_every_entry_is_cut_as_the_samples_are(sizes, part_samples, one, other):
    begins = np.cumsum([0, *sizes])
    given = []
    for begin, size in zip(begins, sizes, strict=False):
        numbers = list(range(begin, begin + size))
        batch = {"a": torch.tensor(numbers)[:, None], "patient_id": entry("tuple", numbers)}
        batch |= {"one": entry(one, numbers), "other": entry(other, numbers), "note": "for all", "scale": 3}
        given.append(regular(batch, MODEL, "batch"))
    for stretch in stretches_of(iter(given), part_samples):
        assert stretch.identifiers["patient_id"] == [str(n) for n in range(stretch.begin, stretch.end)]
        for group in stretch.groups:
            for which in (np.arange(len(group.numbers)), np.arange(len(group.numbers))[::-2].copy()):
                found, expected = group.batch(which), group.numbers[which].tolist()
                assert numbers_of("tensor", found["a"]) == expected
                assert numbers_of(one, found["one"]) == expected
                assert numbers_of(other, found["other"]) == expected
                assert (found["note"], found["scale"]) == ("for all", 3)


def test_parts_of_a_feature_are_no_samples():
    """Of two samples, a time and a value are as many as the samples are."""
    pair = [torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([[5, 6], [7, 8]])]
    for form in (list, tuple):
        size, found = regular({"a": form(pair), "b": pair[1]}, MODEL, "batch")
        assert size == 2
        time, value = taken(found["a"], np.array([1]))
        assert (time.tolist(), value.tolist()) == ([[2.0, 3.0]], [[7, 8]])


def test_flags_of_what_was_measured_are_one_per_sample():
    """Also where each sample has as many steps as the batch has samples."""
    flags = [torch.tensor([True, False]), torch.tensor([False, True])]
    for form in (list, tuple):
        _, found = regular({"a": torch.ones(2, 2).long(), "a_measured": form(flags)}, MODEL, "batch")
        assert taken(found["a_measured"], np.array([1])) == [flags[1]]


LETTERS = string.ascii_lowercase
ODD = {
    "identifiers too short": ("patient_id", lambda n: [f"secret-patient-{i}" for i in range(n - 1)]),
    "identifiers too long": ("visit_id", lambda n: tuple(f"secret-visit-{i}" for i in range(n + 1))),
    "array too short": ("visit_id", lambda n: np.arange(n - 1)),
    "a text": ("patient_id", lambda n: "secret-patient"[:n]),
    "a text as long as the batch": ("patient_id", lambda n: LETTERS[:n]),
    "an int": ("visit_id", lambda n: 7),
    "an iterator": ("patient_id", lambda n: zip(range(n), strict=True)),
    "a dict of lists": ("patient_id", lambda n: {"id": [f"secret-patient-{i}" for i in range(n)]}),
    "a set": ("patient_id", lambda n: {f"secret-patient-{i}" for i in range(n)}),
    "another name of visits": ("hadm_id", lambda n: list(range(n + 2))),
    "first feature too short": ("a", lambda n: torch.ones(n - 1, 3).long()),
    "second feature too long": ("b", lambda n: torch.ones(n + 1, 3).long()),
    "feature without samples": ("b", lambda n: torch.tensor(3)),
    "one time too few": ("a", lambda n: (torch.ones(n - 1, 3), torch.ones(n, 3).long())),
    "labels too short": ("label", lambda n: torch.ones(n - 1, 1)),
    "one label for all": ("label", lambda n: torch.tensor(1.0)),
    "further list": ("note", lambda n: ["secret-patient"] * (n + 3)),
    "further tensor": ("weights", lambda n: torch.ones(n + 1)),
    "within a dict": ("more", lambda n: {"inner": torch.ones(n - 1)}),
    "measured": ("b_measured", lambda n: [np.ones(1, bool)] * (n - 1)),
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("place", [0, 2])
def test_an_entry_that_does_not_fit_its_batch_is_named_before_it_is_written(what, place, tmp_path):
    name, odd = ODD[what]
    _, model, found = batches(24, 6, tuple)
    found[place] = {**found[place], name: odd(6)}
    with pytest.raises(CohortError, match=f"batch {place} of the dataset.*{name!r}.*accepted") as error:
        run(model, iter(found), tmp_path, part_samples=12)
    assert not any(secret in str(error.value) for secret in SECRETS)
    written = [int(path.stem.split("-")[1]) for path in tmp_path.glob("*/part-*")]
    assert set(written) <= {0}  # which is whole before the odd batch comes
    if not place:
        assert not [path for path in tmp_path.rglob("*.*") if path.name != ".lock"]


@given(st.integers(2, 9), st.sampled_from(["a", "b", "patient_id", "visit_id", "label", "note"]), st.integers(-2, 2))
def test_any_entry_of_another_length_is_named(size, name, more):
    batch = {"a": torch.ones(size, 2).long(), "b": (None, torch.ones(size, 1).long()), "label": torch.ones(size, 1)}
    batch |= {"patient_id": tuple(range(size)), "visit_id": np.arange(size), "note": list(range(size))}
    batch[name] = torch.ones(size + more, 2).long()
    if not more:
        assert regular(batch, MODEL, "it")[0] == size
    else:
        with pytest.raises(CohortError, match=f"it has {size} samples .* but '{name}' has {size + more}"):
            regular(batch, MODEL, "it")


@pytest.mark.parametrize("field", ["visit_id", "hadm_id", "admission_id", "record_id"])
def test_visits_are_named_as_the_samples_name_them(field, tmp_path):
    data, model = cohort(count=10)
    samples = [{**{key: data[i][key] for key in ("a", "b", "label")}, field: 100 + i} for i in range(10)]
    run(model, samples, tmp_path / "samples")
    run(model, [{**get_batch(samples), field: tuple(range(100, 110))}], tmp_path / "batches")
    for out in ("samples", "batches"):
        assert table(tmp_path / out, "samples")["visit_id"].to_pylist() == [str(n) for n in range(100, 110)]


def get_batch(samples):
    pad = torch.nn.utils.rnn.pad_sequence
    return {key: pad([each[key] for each in samples], batch_first=True) for key in ("a", "b", "label")}


def test_the_first_name_of_a_visit_that_is_there_counts():
    samples = [{"patient_id": "p", "visit_id": None, "hadm_id": n} for n in ("a", "ä", 3)]
    assert of_samples(samples[:1]) == {"patient_id": ["p"], "visit_id": ["a"]}
    assert of_samples(samples) == {"patient_id": ["p"] * 3, "visit_id": ["a", "ä", "3"]}
    assert of_samples([{}]) == {"patient_id": [None], "visit_id": [None]}
    assert of_sample({"record_id": 3, "hadm_id": 2, "visit_id": None}) == {"patient_id": None, "visit_id": "2"}
    found = of_batch({"visit_id": ["v", None, None], "record_id": (1, 2, None)}, 3)
    assert found == {"patient_id": [None] * 3, "visit_id": ["v", "2", None]}


ONES = {
    "column": lambda names: np.array(names)[:, None],
    "lists of one": lambda names: [[name] for name in names],
    "tuples of one": lambda names: [(name,) for name in names],
    "bytes": lambda names: [name.encode() for name in names],
    "array of bytes": lambda names: np.array(names, "S"),
    "table of one column": lambda names: pd.DataFrame({"id": names}),
}


@pytest.mark.parametrize("form", ONES)
def test_an_identifier_that_stands_in_a_row_of_one_is_itself(form):
    names = ["p0", "p1", "p2"]
    _, batch = regular({"a": torch.ones(3, 2).long(), "patient_id": ONES[form](names)}, MODEL, "batch")
    assert of_batch(batch, 3)["patient_id"] == names
    assert [of_sample({"patient_id": each})["patient_id"] for each in batch["patient_id"]] == names


@pytest.mark.parametrize("missing", [None, float("nan"), np.float64("nan"), np.float32("nan"), pd.NA, pd.NaT])
def test_an_identifier_that_is_missing_is_none(missing):
    assert of_batch({"patient_id": pd.Series([missing, "p"], dtype=object)}, 2)["patient_id"] == [None, "p"]
    assert of_sample({"visit_id": missing, "hadm_id": 3}) == {"patient_id": None, "visit_id": "3"}


@pytest.mark.parametrize("names", [["one"], "abcd", 7])
def test_identifiers_that_do_not_fit_are_refused(names):
    with pytest.raises(ValueError, match=r"'patient_id' .*; accepted: "):
        of_batch({"patient_id": names}, 4)


def test_samples_without_identifiers_have_none():
    assert of_batch({"patient_id": None}, 2) == {"patient_id": [None] * 2, "visit_id": [None] * 2}
