"""What a cache reads, next to what the dataset reads."""

import pickle

import numpy as np
import pytest
import torch
from cache_cases import IDENTITY, assert_same, assert_same_stretch, cached, source_of, stretches
from cohort_cases import cohort
from pyhealth.datasets.utils import collate_fn_dict_with_padding

from deeplift_fast.cohort.samples import stretch_of
from deeplift_fast.errors import CacheError


@pytest.mark.parametrize("kind", ["StageNet", "Transformer", "MLP, nested", "Transformer, one row"])
@pytest.mark.parametrize("part_samples", [5, 7, 23])
def test_windows_are_those_of_the_dataset_whatever_their_size(tmp_path, kind, part_samples):
    data, model = cohort(kind)
    cache = cached(tmp_path, stretches(data, model, 7), 23)
    found = list(cache.stretches(lambda part: part != 1, part_samples))
    expected = list(source_of(data, model).stretches(lambda part: part != 1, part_samples, 0))
    for one, other in zip(found, expected, strict=True):
        assert_same_stretch(one, other)


@pytest.mark.parametrize("kind", ["StageNet", "Transformer", "MLP, nested", "Transformer, one row"])
def test_a_batch_is_what_pyhealth_collates(tmp_path, kind):
    data, model = cohort(kind)
    cache = cached(tmp_path, stretches(data, model, 9), 23)
    (group,) = cache.stretch(0, 23, 0).groups
    for which in ([0], [22, 3, 3], list(range(23))):
        expected = collate_fn_dict_with_padding([data[i] for i in which])
        found = group.batch(np.array(which))
        assert list(found) == list(expected)
        assert_same(found, expected)


def test_odd_samples_stand_apart_in_the_order_of_the_window(tmp_path):
    kinds = {"a": torch.ones(2, 3), "b": (None, torch.ones(2)), "c": torch.ones(4, 1), "n": None}
    samples = [{"x": kinds[kind], "visit_id": f"v{place}"} for place, kind in enumerate("abcaannbbcab")]
    cache = cached(tmp_path, [stretch_of(samples[begin : begin + 5], 0, begin) for begin in (0, 5, 10)], 12)
    for begin in range(12):
        for end in range(begin + 1, 13):
            assert_same_stretch(cache.stretch(begin, end, 3), stretch_of(samples[begin:end], 3, begin))


@pytest.mark.parametrize(("begin", "end"), [(-1, 3), (3, 3), (4, 2), (0, 24), (23, 24)])
def test_a_window_that_the_cache_does_not_have(tmp_path, begin, end):
    data, model = cohort("MLP")
    cache = cached(tmp_path, stretches(data, model, 9), 23)
    with pytest.raises(ValueError, match="accepted: 0 <= begin < end <= 23"):
        cache.stretch(begin, end, 0)


def test_only_the_first_samples(tmp_path):
    data, model = cohort("MLP")
    cache = cached(tmp_path, stretches(data, model, 9), 23)
    found = list(cache.stretches(lambda part: True, 9, total=12))
    assert [(each.part, each.begin, each.end) for each in found] == [(0, 0, 9), (1, 9, 12)]
    assert len(list(cache.stretches(lambda part: True, 9, total=99))) == 3


def test_a_cache_can_be_sent_to_another_process(tmp_path):
    data, model = cohort("StageNet")
    cache = cached(tmp_path, stretches(data, model, 9), 23)
    with pickle.loads(pickle.dumps(cache)) as copy:
        assert (copy.samples, copy.identity) == (23, cache.identity)
        one, other = copy.stretch(3, 20, 1), cache.stretch(3, 20, 1)
    cache.close()
    assert_same_stretch(one, pickle.loads(pickle.dumps(other)))  # they outlive the file's closing


def test_a_sent_cache_is_refused_where_another_has_taken_its_place(tmp_path):
    data, model = cohort("MLP")
    content = pickle.dumps(cached(tmp_path, stretches(data, model, 9), 23))
    cached(tmp_path, stretches(data, model, 9)[:1], 9, IDENTITY | {"content": "of other samples"})
    with pytest.raises(CacheError, match="has been replaced, and holds other samples now"):
        pickle.loads(content)
