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
    import triton
    import triton.language as tl

    from deeplift_fast.ops.triton.attention import attention, attention_backward
    from deeplift_fast.ops.triton.tiles import block_of

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


def assert_is_naive(stream, masks, m, where, half, masks0=None, largest_score=1.0):
    masks0, dtype, logs = masks0 or masks, m.dtype, []
    for each, seen in zip(stream, (masks, masks0), strict=True):
        given = [each[name] for name in NAMES]
        mixed, log_sums = launched(attention, *given, *seen)
        expected, expected_log = naive.attention(*wide(*given), *seen)
        assert_close(mixed, expected, dtype)
        assert_close(log_sums, expected_log, computed(dtype), atol=TOLERANCE[computed(dtype)] * largest_score)
        logs.append(log_sums)
    flat = [each[name] for name in NAMES for each in stream]
    given = (m, *flat, where, masks[0], masks0[0], masks[1], masks0[1], *logs, half)
    found, expected = launched(attention_backward, *given), naive.attention_backward(*wide(*given))
    scale = 1 + max(float(each.abs().max()) if each.numel() else 0 for each in expected)
    rounding = torch.finfo(dtype).eps * largest_score  # of scores, which the backward op computes again
    assert_close(found, expected, dtype, atol=(TOLERANCE[dtype] + rounding) * scale)


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
    assert_is_naive(*case(1, [40, 7, 70], [1, 1, 1], 1, 16), 0.5)


def test_rows_wider_than_a_tile():
    assert_is_naive(*case(2, [3, 2], [1, 2], 1, 40), 0.5)


def test_samples_of_several_blocks():
    assert_is_naive(*case(9, [35, 20], [12, 9], 2, 4, torch.float32), 0.5)


if importlib.util.find_spec("triton") is not None:

    @triton.jit
    def _find_blocks(ends, found, parts, halvings, times, SIZE: tl.constexpr):
        part, block = block_of(tl.program_id(0), ends, parts, halvings, times, SIZE)
        tl.store(found + 2 * tl.program_id(0), part)
        tl.store(found + 2 * tl.program_id(0) + 1, block)


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), times=st.integers(1, 3))
@settings(max_examples=15)
def test_programs_find_every_block_once(sizes, times):
    ends = torch.tensor([0, *sizes]).cumsum(0)
    programs = times * int(ends[-1]) // 16 + len(sizes)
    found = torch.zeros(programs, 2, dtype=torch.int64)
    _find_blocks[(programs,)](ends, found, len(sizes), len(sizes).bit_length(), times, 16)
    blocks = [tuple(each) for each in found.tolist()]
    needed = [(part, block) for part, size in enumerate(sizes) for block in range(-(-times * size // 16))]
    assert len({*blocks}) == programs
    assert {*needed} <= {*blocks}


@pytest.mark.parametrize("samples", [0, 3])
def test_samples_without_rows_or_queries(samples):
    assert_is_naive(*case(3, [0] * samples, [0] * samples), 0.5)


def test_no_visible_row():
    stream, masks, m, where = case(8, [6, 3], [2, 1])
    masks[1][:6] = False
    assert_is_naive(stream, masks, m, where, 0.5)


def test_blocks_of_padding_are_not_read():
    stream, masks, m, where = case(9, [70], [20], 1, 4)
    masks[0][:], masks[1][:] = True, torch.arange(70) < 20
    for each in stream:
        each["rows"][each["index"][32:]] = torch.nan  # two blocks of 16 rows hold the visible ones
    logs = []
    for each in stream:
        mixed, log_sums = launched(attention, *(each[name] for name in NAMES), *masks)
        assert mixed.isfinite().all()
        logs.append(log_sums)
    flat = [each[name] for name in NAMES for each in stream]
    m_asked, m_rows = launched(attention_backward, m, *flat, where, *[masks[0]] * 2, *[masks[1]] * 2, *logs, 0.5)
    assert m_asked.isfinite().all()
    assert not m_rows[stream[0]["index"][20:]].any()


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


@pytest.mark.parametrize("half", [0.0, 0.5])
def test_an_offset_of_every_row_moves_no_multiplier(half):
    stream, masks, m, where = case(5, [40, 4], [2, 3], dtype=torch.float32, some_unseen=False)
    for each in stream:
        each["asked"] -= each["asked"].mean(-1, keepdim=True)  # the offset adds 0 to scores

    def multipliers(offset):
        far = [{**each, "rows": each["rows"] + offset} for each in stream]
        logs = [launched(attention, *(each[name] for name in NAMES), *masks)[1] for each in far]
        flat = [each[name] for name in NAMES for each in far]
        looks, seen = masks
        return launched(attention_backward, m, *flat, where, looks, looks, seen, seen, *logs, half)[0]

    near = multipliers(0)
    assert (near - multipliers(512)).abs().max() < 2e-3 * near.abs().max()
