"""A cache is made of a whole dataset in order, or not at all; reasons are told once."""

import datetime
import warnings

import numpy as np
import pyarrow as pa
import pytest
import torch
from cache_cases import IDENTITY, assert_same_stretch

from deeplift_fast.cohort.cache import Cache, CacheWriter, open_cache, tensors, writer
from deeplift_fast.cohort.samples import PaddedGroup, Stretch, stretch_of
from deeplift_fast.errors import CacheWarning


def tried(folder, stretches, samples):
    """The path that writing gives, and what it warns of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with CacheWriter(folder, IDENTITY, samples) as made:
            for stretch in stretches:
                made.add(stretch)
            found = made.finish()
    assert {each.category for each in told} <= {CacheWarning}
    return found, [str(each.message) for each in told]


def some(begin, count, **fields):
    return stretch_of([{"x": torch.ones(2)} | fields for _ in range(count)], 0, begin)


@pytest.mark.parametrize("begins", [[0], [3, 0], [0, 6], [0, 3, 3], [3]])
def test_samples_that_are_missing_or_out_of_order_make_no_cache(tmp_path, begins):
    assert tried(tmp_path, [some(begin, 3) for begin in begins], 6) == (None, [])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_without_finish(tmp_path):
    with CacheWriter(tmp_path, IDENTITY, 3) as made:
        made.add(some(0, 3))
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
    made.add(some(3, 3))
    assert made.finish() is None


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
    "NumPy arrays of >f4": np.ones(1, ">f4"),
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


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_size_of_the_parts_makes_no_difference_to_the_file(tmp_path, size, monkeypatch):
    visits = [torch.arange(8)[None] % 3, torch.full((2, 8), 70000), torch.zeros(0, 8, dtype=torch.int64)]
    odd = {"measured": np.array([True]), "codes": torch.ones(3, 2), "note": None}
    samples = [{"visits": visits[place % 3], "note": f"é{place}", "visit_id": place} for place in range(20)]
    samples[7] |= odd
    samples[12]["note"] = ("a", 1)
    expected = stretch_of(samples, 0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "SHORT_SAMPLES", 8)
        path, told = tried(tmp_path, _cut(samples, size), 20)
        blocks = _blocks(path)
    assert told == []
    assert [begin for begin, _ in blocks][:1] == [0]
    assert all(end - begin >= 8 for begin, end in blocks if end < 20)
    with open_cache(tmp_path, IDENTITY) as cache:
        assert_same_stretch(cache.stretch(0, 20, 0), expected)
        assert_same_stretch(cache.stretch(6, 15, 2), stretch_of(samples[6:15], 2, 6))
    path, _ = tried(tmp_path, _cut(samples, size), 20)
    assert {*_blocks(path)} == {(0, 20)}
    monkeypatch.setattr(writer, "SHORT_BYTES", 1)
    path, _ = tried(tmp_path, _cut(samples, size), 20)
    assert len({*_blocks(path)}) == -(-20 // size)


def _cut(samples, size):
    return [stretch_of(samples[begin : begin + size], 0, begin) for begin in range(0, len(samples), size)]


def _blocks(path):
    with Cache(path) as cache:
        columns = cache._index.columns
        return list(zip(columns["begin"].tolist(), columns["end"].tolist(), strict=True))


def test_wide_visits_of_short_parts_are_joined_without_their_zeros(tmp_path, monkeypatch):
    """Zeros may take thousands of times the room of the codes."""
    visits = torch.zeros(2, 4096, dtype=torch.int64)
    visits[:, 1:3] = 70000
    with monkeypatch.context() as patch:
        patch.setattr(tensors.Trimmed, "flat", None)
        path, told = tried(tmp_path, _cut([{"x": visits}] * 9, 2), 9)
    assert told == []
    assert path.stat().st_size < 9 * 4096
    with open_cache(tmp_path, IDENTITY) as cache:
        assert_same_stretch(cache.stretch(0, 9, 0), stretch_of([{"x": visits}] * 9, 0, 0))


@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowMemoryError("realloc")])
def test_a_part_that_memory_cannot_hold(tmp_path, monkeypatch, error):
    def failing(*about):
        raise error

    monkeypatch.setattr(writer, "written", failing)
    found, (message,) = tried(tmp_path, [some(0, 3)], 3)
    assert found is None
    assert "memory is too short" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("note", ["a", ("a", 1), ["a"]])
def test_a_part_with_more_text_than_32_bits_count(tmp_path, monkeypatch, note):
    """Arrow cuts an array of more than 2 GiB of text into several."""
    whole = pa.array

    def cut(values, kind=None, **options):
        found = whole(values, kind, **options)
        return pa.chunked_array([found[:1], found[1:]]) if kind == pa.string() else found

    given = [stretch_of([{"x": torch.ones(2), "note": note, "patient_id": f"p{i}"} for i in range(3)], 0, 0)]
    with monkeypatch.context() as patch:
        patch.setattr(pa, "array", cut)
        _, told = tried(tmp_path, given, 3)
    assert told == []
    with open_cache(tmp_path, IDENTITY) as cache:
        assert_same_stretch(cache.stretch(0, 3, 0), given[0])


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
