"""Metadata have one entry per step that a feature's processor makes."""

import warnings
from datetime import datetime, timedelta
from functools import cache

import numpy as np
import pytest
import torch
from cohort_cases import run, table
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from metadata_cases import SAMPLES, dataset, stagenet
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.models import RNN, Transformer

from deeplift_fast import DeepLift
from deeplift_fast.cohort.entries import regular
from deeplift_fast.cohort.metadata_checks import faults
from deeplift_fast.cohort.samples import PaddedGroup, stretch_of

ENTRY = {"days": 1.5, "stay": "a", "measured": True}


@cache
def model():
    return stagenet(dataset())


def processed(sample):
    """A raw sample as the dataset processes it."""
    processors = model().dataset.input_processors
    return sample | {key: processor.process(sample[key]) for key, processor in processors.items()}


def found_in(samples, loaded):
    """The faults of processed samples, in one group or in a loader's batch."""
    if not loaded:
        (group,) = stretch_of(samples, 0, 0).groups
        return faults(group, model())
    size, batch = regular(collate_fn_dict_with_padding(samples), model(), "the batch")
    return faults(PaddedGroup(np.arange(size), batch), model())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5), st.booleans(), st.data())
def test_a_list_of_another_length_is_the_fault_of_its_sample(sizes, loaded, data):
    samples = [
        {"codes": ([1.0] * visits, [["A"]] * visits), "labs": ([1.0] * steps, [[1.0, 2.0]] * steps)}
        | {f"codes_{what}": [ENTRY[what]] * visits for what in ENTRY}
        | {f"labs_{what}": [ENTRY[what]] * steps for what in ENTRY}
        for visits, steps in sizes
    ]
    samples = [processed(each) for each in samples]
    assert found_in(samples, loaded) == {}
    place = data.draw(st.integers(0, len(sizes) - 1))
    key, what = data.draw(st.sampled_from(["codes", "labs"])), data.draw(st.sampled_from(sorted(ENTRY)))
    steps = sizes[place][key == "labs"]
    wrong = data.draw(st.integers(0, 12).filter(lambda count: count != steps))
    # A list as long as the longest sample's, of a padded batch, may belong to a sample that ends in empty steps.
    assume(not loaded or wrong != max(size[key == "labs"] for size in sizes))
    samples[place][f"{key}_{what}"] = [ENTRY[what]] * wrong
    found = found_in(samples, loaded)
    assert list(found) == [place]
    assert found[place].reason.startswith(f"{key}_{what} has another number of entries than its feature has steps")
    assert f"({wrong} entries, {steps} steps)" in str(found[place])


@pytest.mark.parametrize("loaded", [False, True])
def test_metadata_that_are_none_or_missing_are_no_fault(loaded):
    samples = [processed(each) for each in SAMPLES]
    assert found_in(samples, loaded) == {}
    bare = [{key: each[key] for key in ("patient_id", "codes", "labs", "label")} for each in samples]
    assert found_in(bare, loaded) == {}
    unknown = [each | dict.fromkeys(set(samples[0]) - {"patient_id", "codes", "labs", "label"}) for each in samples]
    assert found_in(unknown, loaded) == {}


FAULTY = {
    "codes_days": [0.0, "SECRET"],
    "codes_stay": ["first", 7],
    "codes_measured": [[True, True, True], [True]],
    "labs_days": torch.ones(3),
    "labs_stay": ["SECRET", 0, 1],
    "labs_measured": [[True, False], [True], [False, True]],
    "stays": [("first", "SECRET")],
    "split": 3,
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("kind", ["dataset", "disk", "loader"])
def test_a_fault_fails_its_sample_alone_and_names_the_field(name, kind, tmp_path):
    samples = [{name: None} | each for each in SAMPLES]  # PyHealth's loader wants one set of keys
    samples[0][name] = FAULTY[name]
    if (name, kind) == ("labs_days", "loader"):  # the loader would stack tensors and leave no list
        samples[0][name] = np.ones((3, 1))
    data = dataset(samples, in_memory=kind != "disk")
    done = run(stagenet(data), list(get_dataloader(data, 3)) if kind == "loader" else data, tmp_path)
    assert (done.samples, done.failures) == (2, 1)
    (failure,) = table(tmp_path, "failures").to_pylist()
    assert failure["sample"] == 0
    assert name in failure["reason"]
    assert "Ragged" not in failure["reason"]
    assert "SECRET" not in failure["reason"]


def test_rows_of_a_batch_with_a_fault_are_refused():
    data = dataset()
    batch = collate_fn_dict_with_padding([data[i] for i in range(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DeepLift(model(), rules="complete").explain(**batch)
    batch["codes_days"] = [*batch["codes_days"][:2], [1.0]]
    with pytest.raises(
        ValueError, match=r"sample 2 of the batch: codes_days .*which may merge.*\(1 entries, 3 steps\)"
    ):
        found.to_dataframe(model(), batch)
    batch["codes_days"] = [None, None]
    with pytest.raises(ValueError, match="codes_days has another number of entries than there are samples"):
        found.to_dataframe(model(), batch)


def test_empty_steps_at_the_end_need_entries_only_where_they_can_be_seen():
    """A padded batch hides them; a sample of a dataset shows them."""
    long = {"codes": ([1.0, 0.0], [["A"], []]), "codes_days": [1.0, 2.0]}
    longer = {"codes": ([1.0] * 4, [["A"]] * 4), "codes_days": [1.0] * 4}
    labs = {"labs": ([1.0], [[1.0, 2.0]])}
    samples = [processed(each | labs) for each in (long, longer)]
    assert found_in(samples, loaded=False) == {}
    (fault,) = found_in(samples, loaded=True).values()
    assert "a padded batch hides empty steps at a sample's end: leave out their entries" in fault.reason
    for loaded in (False, True):
        assert found_in([samples[0] | {"codes_days": [1.0]}, samples[1]], loaded) == {}


def test_a_processor_that_makes_other_steps_than_the_record_has_is_told():
    """PyHealth's time series have one step per hour, whenever measurements were made."""
    times = [datetime(2024, 1, 1) + timedelta(hours=hour) for hour in (0, 3)]
    series = (times, np.array([[1.0, 2.0], [3.0, 4.0]]))
    samples = [{"patient_id": str(i), "series": series, "series_days": [0.0, 0.125], "label": i} for i in range(2)]
    data = create_sample_dataset(samples, {"series": "timeseries"}, {"label": "binary"}, in_memory=True)
    assert len(data[0]["series"]) == 4
    made = RNN(data, embedding_dim=4, hidden_dim=4)
    (group,) = stretch_of([data[i] for i in range(2)], 0, 0).groups
    found = faults(group, made)
    assert (
        "accepted: one entry per step that the feature's processor makes, which may merge, add or drop"
        in found[0].reason
    )
    assert "(2 entries, 4 steps)" in str(found[0])
    (group,) = stretch_of([dict(data[i]) | {"series_days": [0, None, None, 0.125]} for i in range(2)], 0, 0).groups
    assert faults(group, made) == {}


def test_a_feature_without_steps_is_one_step():
    samples = [
        {"patient_id": str(i), "codes": ["a"], "row": [1.0, 2.0, 3.0], "groups": ["x", "y"], "label": i}
        for i in range(2)
    ]
    samples[0] |= {"row_days": [2.0], "groups_stay": ["a"], "row_measured": [True, False, True]}
    samples[1] |= {"row_days": [2.0, 3.0, 4.0], "groups_stay": [], "row_measured": [True]}
    data = create_sample_dataset(
        samples, {"codes": "sequence", "row": "tensor", "groups": "multi_hot"}, {"label": "binary"}, in_memory=True
    )
    made = Transformer(data, embedding_dim=4, heads=1)
    for loaded in (False, True):
        few = [data[i] for i in range(2)]
        (group,) = stretch_of(few, 0, 0).groups
        if loaded:
            size, batch = regular(collate_fn_dict_with_padding(few), made, "the batch")
            group = PaddedGroup(np.arange(size), batch)
        found = faults(group, made)
        assert list(found) == [1]
        assert "row_days has another number of entries" in found[1].reason
