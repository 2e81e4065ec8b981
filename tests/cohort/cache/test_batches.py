"""What a cache reads, next to what the dataset reads."""

import numpy as np
import pytest
from cache_cases import assert_same, assert_same_stretch, cached, source_of, stretches
from cohort_cases import cohort
from pyhealth.datasets.utils import collate_fn_dict_with_padding


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
