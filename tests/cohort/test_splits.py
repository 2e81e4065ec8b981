"""The split of each sample, as a run is given it."""

import numpy as np
import pytest
import torch
from cohort_cases import cohort, manifest, run, table
from hypothesis import given
from hypothesis import strategies as st
from metadata_cases import dataset, stagenet

from deeplift_fast.cohort import CohortError
from deeplift_fast.cohort.splits import Splits, checked_splits


@given(st.lists(st.sampled_from(["train", "validation", "test", None]), max_size=30), st.data())
def test_every_sample_has_its_split_however_the_numbers_come(names, data):
    forms = [list, tuple, set, np.array, lambda numbers: torch.tensor(numbers, dtype=torch.int64), iter]
    splits = {
        name: data.draw(st.sampled_from(forms))([number for number, mine in enumerate(names) if mine == name])
        for name in {*names} - {None}
    }
    found = checked_splits(splits)
    numbers = np.arange(len(names))
    assert found.of(numbers) == names
    assert found.merged(numbers, names) == found.merged(numbers, [None] * len(names)) == names
    again = {name: [number for number, mine in enumerate(names) if mine == name][::-1] for name in splits}
    assert checked_splits(dict(reversed(again.items()))).digest == found.digest


def test_other_splits_have_another_digest():
    digests = {
        checked_splits(each).digest
        for each in ({"train": [0, 1]}, {"train": [0]}, {"test": [0, 1]}, {"train": [0], "test": [1]})
    }
    assert len(digests) == 4
    assert checked_splits(None).digest == checked_splits({}).digest == Splits().digest == "none"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([0, 1], "splits is a list; accepted: a dict"),
        ({1: [0]}, "splits has a key that is a int"),
        ({"train": 3}, r"splits\['train'\] is a int"),
        ({"train": "01"}, r"splits\['train'\] holds something else than ints"),
        ({"train": {"a": 1}}, r"splits\['train'\] holds something else than ints"),
        ({"train": [0.5]}, r"splits\['train'\] holds something else than ints"),
        ({"train": [True, False]}, r"splits\['train'\] holds something else than ints"),
        ({"train": [[0], [1]]}, r"splits\['train'\] holds something else than ints"),
        ({"train": [[0], [1, 2]]}, r"splits\['train'\] is a list"),
        ({"train": [-1]}, r"splits\['train'\] has the number -1"),
        ({"train": [0, 3], "test": [3]}, "splits has sample 3 in 'train' and 'test'"),
        ({"train": [23]}, r"splits\['train'\] has the number 23; accepted: 0 to 22"),
    ],
)
def test_splits_that_fit_nothing_are_refused_before_anything_is_written(wrong, said, tmp_path):
    data, model = cohort()
    with pytest.raises(CohortError, match=said):
        run(model, data, tmp_path / "out", splits=wrong)
    assert not (tmp_path / "out").exists()


def test_a_run_writes_the_splits_and_another_run_with_others_is_refused(tmp_path):
    data, model = cohort()
    splits = {"train": range(15), "validation": [], "test": np.array([17, 16, 15])}
    run(model, data, tmp_path, splits=splits, limit=10)
    run(model, data, tmp_path, splits=splits)
    found = table(tmp_path, "samples").to_pydict()
    expected = ["train"] * 15 + ["test"] * 3 + [None] * 5
    assert dict(zip(found["sample"], found["split"], strict=True)) == dict(enumerate(expected))
    assert len(manifest(tmp_path)["identity"]["splits"]) == 64
    with pytest.raises(CohortError, match=r"splits: [0-9a-f]{12}… there, \"none\" now"):
        run(model, data, tmp_path)


def test_a_sample_may_say_its_split_itself(tmp_path):
    data = dataset()
    model = stagenet(data)
    run(model, data, tmp_path / "both", splits={"train": [0, 1]})  # sample 1 does not say
    assert table(tmp_path / "both", "samples")["split"].to_pylist() == ["train", "train", "test"]
    with pytest.raises(CohortError, match="splits has sample 2 in another split than the sample's own field 'split'"):
        run(model, data, tmp_path / "other", splits={"train": [0, 2]})
    assert not table(tmp_path / "both", "failures").num_rows
