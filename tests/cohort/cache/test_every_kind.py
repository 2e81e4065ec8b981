"""Random samples of every kind of processor that the sequence models take: batches as PyHealth collates them."""

from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
from cache_cases import assert_same, assert_same_stretch, cached
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.processors import get_processor

from deeplift_fast.cohort.samples import stretch_of

MONDAY = datetime(2024, 1, 1)
QUICK = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])

code = st.sampled_from([f"code-{number}" for number in range(300)])
number = st.floats(-1e6, 1e6, width=32)
codes = st.lists(code, min_size=1, max_size=6)
visits = st.lists(st.lists(code, max_size=5), min_size=1, max_size=5)
rows = st.lists(st.lists(number, min_size=3, max_size=3), min_size=1, max_size=6)
floats = st.lists(st.lists(number, min_size=1, max_size=4), min_size=1, max_size=5)


def timed(values):
    """Pairs (times, values) with a time per step."""
    return values.flatmap(
        lambda given: st.tuples(st.lists(number, min_size=len(given), max_size=len(given)), st.just(given))
    )


RAW = {
    "sequence": codes,
    "nested_sequence": visits,
    "nested_sequence_floats": floats,
    "deep_nested_sequence": st.lists(visits, min_size=1, max_size=3),
    "deep_nested_sequence_floats": st.lists(floats, min_size=1, max_size=3),
    "nested_multihot": visits,
    "multi_hot": st.lists(st.sampled_from(["north", "south", "east"]), min_size=1, max_size=3),
    "tensor": st.lists(number, min_size=4, max_size=4),
    "tensor, of its own length": st.lists(number, min_size=1, max_size=6),
    "timeseries": rows.map(lambda given: ([MONDAY + timedelta(hours=i) for i in range(len(given))], np.array(given))),
    "stagenet": timed(codes),
    "stagenet, nested": timed(visits.filter(lambda given: all(given))),
    "stagenet_tensor": timed(rows),
    "stagenet_tensor, flat": timed(st.lists(number, min_size=1, max_size=6)),
    "stagenet_tensor, some untimed": st.one_of(timed(rows), st.tuples(st.none(), rows)),
    "stagenet_tensor, untimed": st.tuples(st.none(), rows),
}
LABELS = {
    "binary": st.integers(0, 1),
    "multiclass": st.sampled_from(["home", "ward", "icu"]),
    "multilabel": st.lists(st.sampled_from(["home", "ward", "icu"]), min_size=1, max_size=3),
    "regression": st.floats(-10, 10, width=32),
}
AT_LEAST = {"binary": [0, 1], "multiclass": ["home", "ward", "icu"], "multilabel": [["home", "ward", "icu"]]}


def processed(kind, values):
    """Values as a processor of this kind makes them, fitted on all of them."""
    processor = get_processor(kind.partition(",")[0])()
    processor.fit([{"x": value} for value in [*values, *AT_LEAST.get(kind, [])]], "x")
    return [processor.process(value) for value in values]


@st.composite
def samples_of(draw, kind):
    """Processed samples with a feature of this kind, a label and identifiers, and where to cut them."""
    count = draw(st.integers(1, 12))
    label = draw(st.sampled_from(sorted(LABELS)))
    features = processed(kind, draw(st.lists(RAW[kind], min_size=count, max_size=count)))
    labels = processed(label, draw(st.lists(LABELS[label], min_size=count, max_size=count)))
    names = draw(st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=count, max_size=count))
    samples = [
        {"patient_id": name, "visit_id": place, "x": feature, "label": label}
        for place, (name, feature, label) in enumerate(zip(names, features, labels, strict=True))
    ]
    return samples, draw(st.integers(1, 12)), draw(st.integers(1, 12))


def blocks(samples, size):
    return [stretch_of(samples[begin : begin + size], 0, begin) for begin in range(0, len(samples), size)]


@pytest.mark.parametrize("kind", RAW)
def test_batches_are_those_of_pyhealths_collate(tmp_path_factory, kind):
    folder = tmp_path_factory.mktemp("cache")

    @QUICK
    @given(samples_of(kind))
    def check(drawn):
        samples, written, read = drawn
        with cached(folder, blocks(samples, written), len(samples), short=read) as cache:
            for part, stretch in enumerate(cache.stretches(lambda part: True, read)):
                assert_same_stretch(stretch, stretch_of(samples[part * read : (part + 1) * read], part, part * read))
                for group in stretch.groups:
                    expected = collate_fn_dict_with_padding([samples[place] for place in group.numbers])
                    assert_same(group.batch(np.arange(len(group.numbers))), expected)

    check()


DTYPES = [torch.float16, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
DTYPES += [torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", [None, (), (3,), (2, 3), (0,), (1, 1)])
@pytest.mark.parametrize("short", [1, 4])
def test_tensors_of_any_dtype_and_shape_keep_their_bits(tmp_path, dtype, inner, short):
    draw = torch.Generator().manual_seed(0)
    shapes = [()] * 4 if inner is None else [(length, *inner) for length in (2, 0, 5, 1)]

    def tensor(shape):
        size = int(np.prod(shape)) * torch.empty(0, dtype=dtype).element_size()
        given = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=draw)
        return (given % 2).bool().reshape(shape) if dtype == torch.bool else given.view(dtype).reshape(shape)

    samples = [{"x": tensor(shape), "pair": (tensor(shape), tensor(shape))} for shape in shapes]
    cache = cached(tmp_path, blocks(samples, 3), 4, short=short)
    assert_same_stretch(cache.stretch(0, 4, 0), stretch_of(samples, 0, 0))
    assert_same_stretch(cache.stretch(1, 4, 1), stretch_of(samples[1:], 1, 1))


@pytest.mark.parametrize("short", [1, 3])
def test_integers_of_one_column_keep_their_bits_whatever_each_block_needs(tmp_path, short):
    unsigned = [[[7, 0]], [[300, 2**31 - 5]], [[2**53 + 1, 1]], [[2**63 + 1, 5]]]
    samples = [{"x": torch.tensor(each, dtype=torch.uint64)} for each in unsigned]
    cache = cached(tmp_path, blocks(samples, 1), 4, short=short)
    assert_same_stretch(cache.stretch(0, 4, 0), stretch_of(samples, 0, 0))


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(codec=None), max_size=4),
        st.floats(width=32).map(np.float32),
        st.integers(-9, 9).map(np.int16),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=2), st.integers(0, 3)), inner, max_size=3),
    ),
    max_leaves=8,
)
alike = st.sampled_from(
    [
        st.lists(st.one_of(st.none(), st.floats()), max_size=4),
        st.lists(st.text(max_size=3), max_size=4),
        st.lists(st.tuples(st.text(max_size=3), st.one_of(st.none(), st.floats(0, 9))), max_size=3),
        st.fixed_dictionaries({"label": st.text(max_size=3), "begin": st.integers()}),
        st.lists(st.lists(st.booleans(), max_size=3), max_size=3),
        st.lists(st.booleans(), max_size=5).map(np.array),
        st.lists(st.lists(st.floats(), min_size=2, max_size=2), min_size=1, max_size=3).map(np.array),
        st.integers(-(2**80), 2**80),
    ]
).flatmap(lambda kind: st.lists(st.one_of(st.none(), kind), min_size=1, max_size=9))


def test_other_fields_come_back_equal_and_of_the_same_type(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")

    @settings(max_examples=60, deadline=None)
    @example(["\ud800", None, "a"], 2, 3)
    @example([["\ud800"], [], None], 2, 3)
    @example([{"\ud800": 1.0, "begin": None}] * 3, 2, 3)
    @example(["\ud83d\ude00", "\U0001f600", ["\ud83d\ude00"]], 2, 3)
    @example([{"\ud83d\ude00": 1.0}, {"\ud83d\ude00": 2.0}], 2, 3)
    @example([2**63, -1, None], 1, 3)
    @example([(), (1,), ((),)], 3, 2)
    @example([np.array([True]), np.ones((2, 2), np.float32) * np.nan, None, np.array(1), [np.arange(2)]], 1, 4)
    @given(st.one_of(st.lists(plain, min_size=1, max_size=9), alike), st.integers(1, 9), st.integers(1, 9))
    def check(values, written, read):
        samples = [{"x": torch.ones(1), "field": value} for value in values]
        with cached(folder, blocks(samples, written), len(samples), short=read) as cache:
            for part, stretch in enumerate(cache.stretches(lambda part: True, read)):
                few = samples[part * read : (part + 1) * read]
                assert_same_stretch(stretch, stretch_of(few, part, part * read))

    check()
