"""A cache is made of a whole dataset in order, or not at all; reasons are told once."""

import datetime
import warnings

import numpy as np
import pytest
import torch
from cache_cases import IDENTITY

from deeplift_fast.cohort.cache import CacheWriter, open_cache
from deeplift_fast.cohort.samples import PaddedGroup, Stretch, stretch_of
from deeplift_fast.errors import CacheWarning


def tried(folder, stretches, samples):
    """The path that writing gives, and what it warns of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with CacheWriter(folder, IDENTITY, samples) as writer:
            for stretch in stretches:
                writer.add(stretch)
            found = writer.finish()
    assert {each.category for each in told} <= {CacheWarning}
    return found, [str(each.message) for each in told]


def some(begin, count, **fields):
    return stretch_of([{"x": torch.ones(2)} | fields for _ in range(count)], 0, begin)


@pytest.mark.parametrize("begins", [[0], [3, 0], [0, 6], [0, 3, 3], [3]])
def test_samples_that_are_missing_or_out_of_order_make_no_cache(tmp_path, begins):
    assert tried(tmp_path, [some(begin, 3) for begin in begins], 6) == (None, [])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_without_finish(tmp_path):
    with CacheWriter(tmp_path, IDENTITY, 3) as writer:
        writer.add(some(0, 3))
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
    writer.add(some(3, 3))
    assert writer.finish() is None


def test_a_dataset_without_samples(tmp_path):
    path, told = tried(tmp_path, [], 0)
    assert told == []
    with open_cache(tmp_path, IDENTITY) as cache:
        assert cache.path == path
        assert cache.samples == 0
        assert list(cache.stretches(lambda part: True, 5)) == []


UNKNOWN = {
    "a datetime.datetime": datetime.datetime(2024, 1, 1),
    "a torch.Tensor": [torch.ones(1)],
    "a set": {1},
    "an int of thousands of digits": [10**6000],
    "NumPy arrays of object": np.array([None]),
    "NumPy arrays of different dtypes or shapes": np.array(1.0),
    "a numpy.str_": np.str_("secret-name"),
}
ODD = {
    "a sparse tensor (sparse_coo)": torch.ones(2, 2).to_sparse(),
    "bfloat16, which tables cannot hold (convert it with .float())": torch.ones(2, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("said", [*UNKNOWN, *ODD])
def test_a_kind_that_is_not_known_is_named_with_its_field_and_not_quoted(tmp_path, said):
    value = UNKNOWN[said] if said in UNKNOWN else ODD[said]
    found, (message,) = tried(tmp_path, [some(0, 2), some(2, 2, field=value), some(4, 2)], 6)
    assert found is None
    assert message.startswith(f"no cache is made: field 'field' {'is' if said in ODD else 'holds'} {said}")
    assert "every run reads the samples from the dataset itself" in message
    assert "secret" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_holds_itself(tmp_path):
    endless = []
    endless.append(endless)
    found, (message,) = tried(tmp_path, [some(0, 2, field=endless)], 2)
    assert found is None
    assert "a list in itself, or nested too deeply" in message


def test_batches_of_a_loader(tmp_path):
    group = PaddedGroup(np.arange(2), {"x": torch.ones(2, 2)})
    found, (message,) = tried(tmp_path, [Stretch(0, 0, 2, [group], {})], 2)
    assert found is None
    assert "batches of a loader" in message


def test_samples_of_too_many_shapes(tmp_path):
    samples = [{"x": torch.ones(2, width)} for width in range(70)]
    found, (message,) = tried(tmp_path, [stretch_of(samples, 0, 0)], 70)
    assert found is None
    assert "70 of 70 samples" in message


def test_visits_take_the_room_of_their_codes(tmp_path):
    """PyHealth pads each visit to the widest one of the data set."""
    narrow, wide = torch.ones(4, 8, dtype=torch.int64), torch.ones(4, 4096, dtype=torch.int64)
    wide[:, 8:] = 0
    sizes = []
    for visits in (narrow, wide):
        path, _ = tried(tmp_path, [stretch_of([{"x": visits}] * 50, 0, 0)], 50)
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] < 64
