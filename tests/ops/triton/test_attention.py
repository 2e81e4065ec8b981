"""Attention's Triton kernels in the interpreter."""

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted_kernels import DTYPES, INTERPRETED, TOLERANCE, assert_close, launched, wide

from deeplift_fast.ops import naive
from deeplift_fast.ops.checks import computed

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.attention import attention, attention_backward, pair_offsets

pytestmark = INTERPRETED

NAMES = ("asked", "rows", "index", "starts", "queries")


def case(seed, lengths, asking, heads=2, width=5, dtype=torch.float64, some_unseen=True):
    """Both streams of a few samples; rows are in another order at the baseline, and two are no sample's."""
    draw = torch.Generator().manual_seed(seed)
    total, queries = sum(lengths), sum(asking)

    def numbers(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    ends = [torch.tensor([0, *sizes]).cumsum(0) for sizes in (lengths, asking)]
    stream = [
        {
            "asked": numbers(heads, queries, width), "rows": numbers(total + 2, width),
            "index": torch.randperm(total + 2, generator=draw)[:total], "starts": ends[0], "queries": ends[1],
        }
        for _ in range(2)
    ]  # fmt: skip
    masks = [torch.rand(n, generator=draw) < (0.7 if some_unseen else 2) for n in (queries, total)]
    return stream, masks, numbers(heads, queries, width), torch.arange(len(lengths))


def forward(function, stream, masks, pairs):
    return function(*(stream[name] for name in NAMES), *masks, pairs)


def assert_is_naive(stream, masks, m, where, half, masks0=None, largest_score=1.0):
    masks0, dtype, logs = masks0 or masks, m.dtype, []
    for each, seen in zip(stream, (masks, masks0), strict=True):
        pairs = int((each["starts"].diff() * each["queries"].diff()).sum())
        given = [each[name] for name in NAMES]
        mixed, log_p = launched(attention, *given, *seen, pairs)
        expected, expected_log = naive.attention(*wide(*given), *seen, pairs)
        assert_close(mixed, expected, dtype)
        assert_close(log_p, expected_log, computed(dtype), atol=TOLERANCE[computed(dtype)] * largest_score)
        logs.append(log_p)
    flat = [each[name] for name in NAMES for each in stream]
    given = (m, *flat, where, masks[0], *logs, half)
    found, expected = launched(attention_backward, *given), naive.attention_backward(*wide(*given))
    scale = 1 + max(float(each.abs().max()) if each.numel() else 0 for each in expected)
    assert_close(found, expected, dtype, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("half", [0.0, 0.5])
def test_every_dtype(half, dtype):
    assert_is_naive(*case(0, [3, 0, 9, 1], [2, 1, 3, 0], 3, 7, dtype), half)


SIZES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), min_size=1, max_size=4)


@given(sizes=SIZES, heads=st.integers(1, 3), width=st.sampled_from([1, 7, 16, 33]), seed=st.integers(0, 99))
@settings(max_examples=12)
def test_any_size(sizes, heads, width, seed):
    lengths, asking = ([size[i] for size in sizes] for i in (0, 1))
    assert_is_naive(*case(seed, lengths, asking, heads, width), 0.5)


def test_one_query_of_each_sample():
    assert_is_naive(*case(1, [40, 7, 300], [1, 1, 1], 1, 16), 0.5)


@pytest.mark.parametrize("width", [300, 600])
def test_rows_that_fill_a_tile(width):
    assert_is_naive(*case(2, [3, 2], [1, 2], 1, width), 0.5)


@pytest.mark.parametrize("samples", [0, 3])
def test_samples_without_rows_or_queries(samples):
    assert_is_naive(*case(3, [0] * samples, [0] * samples), 0.5)


def test_scores_far_apart_and_far_from_0():
    stream, masks, m, where = case(4, [12, 5], [2, 1], 1, 4, some_unseen=False)
    for each, offset in zip(stream, (1e3, -1e3), strict=True):
        each["rows"] += offset
        each["asked"] *= 30
    assert_is_naive(stream, masks, m, where, 0.0, largest_score=1e5)


def test_samples_may_share_a_baseline():
    (stream, stream0), masks, m, _ = case(5, [3, 3, 2], [1, 1, 2], some_unseen=False)
    stream0["asked"] = stream0["asked"][:, [0, 2, 3]].contiguous()
    stream0["index"] = stream0["index"][[0, 1, 2, 6, 7]]
    stream0 |= {"starts": torch.tensor([0, 3, 5]), "queries": torch.tensor([0, 1, 3])}
    masks0 = [torch.ones(n, dtype=torch.bool) for n in (3, 5)]
    assert_is_naive([stream, stream0], masks, m, torch.tensor([0, 0, 1]), 0.5, masks0)


def test_any_strides():
    (stream, stream0), masks, m, where = case(6, [3, 4], [2, 1])
    stream["asked"] = stream["asked"].mT.contiguous().mT
    stream0["rows"] = stream0["rows"].mT.contiguous().mT
    assert_is_naive([stream, stream0], masks, m.transpose(0, 1).contiguous().transpose(0, 1), where, 0.5)


def test_too_few_pairs_write_nothing_past_the_end():
    (stream, _), masks, _, _ = case(7, [9, 8], [2, 2])
    mixed, log_p = launched(attention, *(stream[name] for name in NAMES), *masks, 20)
    expected, expected_log = naive.attention(*(stream[name] for name in NAMES), *masks, 34)
    assert_close(mixed, expected, torch.float64)
    assert_close(log_p, expected_log[:40], torch.float64)


@pytest.mark.parametrize("samples", [0, 1, 1023, 1024, 1025, 2100])
def test_pair_offsets(samples):
    rows, asking = (torch.randint(0, 9, (samples,)) for _ in range(2))
    ends = [torch.nn.functional.pad(each.cumsum(0), (1, 0)) for each in (rows, asking)]
    expected = torch.nn.functional.pad((rows * asking).cumsum(0), (1, 0))
    assert launched(pair_offsets, *ends).equal(expected)


def test_an_offset_of_every_row_moves_no_score():
    stream, masks, m, where = case(5, [9, 4], [2, 3], dtype=torch.float32, some_unseen=False)
    pairs = 9 * 2 + 4 * 3
    logs = [launched(attention, *(each[name] for name in NAMES), *masks, pairs)[1] for each in stream]

    def multipliers(offset):
        far = [{**each, "rows": each["rows"] + offset} for each in stream]
        flat = [each[name] for name in NAMES for each in far]
        return launched(attention_backward, m, *flat, where, masks[0], *logs, 0.5)[0]

    near = multipliers(0)
    assert (near - multipliers(512)).abs().max() < 2e-3 * near.abs().max()
