"""Caches of small datasets, and exact comparison of what they read."""

import numpy as np
import pytest
import torch

from deeplift_fast.cohort.cache import CacheWriter, open_cache, writer
from deeplift_fast.cohort.reading import DatasetSource

IDENTITY = {"class": "a dataset", "length": 1, "input_schema": {}, "output_schema": {}, "content": "of some samples"}


def source_of(data, model):
    return DatasetSource(data, model)


def stretches(data, model, part_samples):
    return list(source_of(data, model).stretches(lambda part: True, part_samples, 0))


def cached(folder, given, samples, identity=IDENTITY, short=1):
    """The opened cache of some stretches, whose blocks hold `short` samples or more."""
    with pytest.MonkeyPatch.context() as patch, CacheWriter(folder, identity, samples) as made:
        patch.setattr(writer, "SHORT_SAMPLES", short)
        for stretch in given:
            made.add(stretch)
        assert made.finish() is not None
    return open_cache(folder, identity, required=True)


def assert_same(found, expected):
    """Equal values, types, dtypes, shapes and bits."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.contiguous().numpy().tobytes() == expected.contiguous().numpy().tobytes()
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert_same(list(found), list(expected))
        assert_same(list(found.values()), list(expected.values()))
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert repr(found) == repr(expected)  # which tells -0.0 from 0.0, and finds NaN equal


def assert_same_stretch(found, expected):
    """Equal numbers, identifiers, groups, lengths and batches."""
    assert (found.part, found.begin, found.end) == (expected.part, expected.begin, expected.end)
    assert_same(*({key: list(texts) for key, texts in each.identifiers.items()} for each in (found, expected)))
    for one, other in zip(found.groups, expected.groups, strict=True):
        assert one.numbers.tolist() == other.numbers.tolist()
        keys = list(other.fields)
        assert one.lengths(keys).tolist() == other.lengths(keys).tolist()
        for key in keys:
            assert_same(
                [(each.entries, each.owner, each.lengths) for each in one.tensors(key)],
                [(each.entries, each.owner, each.lengths) for each in other.tensors(key)],
            )
        size = len(other.numbers)
        for which in (np.arange(size), np.arange(size)[::-2], np.zeros(3, np.int64)):
            assert_same(one.batch(which), other.batch(which))
