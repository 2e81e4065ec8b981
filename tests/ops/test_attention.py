"""Ragged attention: kernels against plain torch, the gradient against autograd, the rules against completeness."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import NAMESPACE, naive

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}


def case(seed, lengths, asking, heads=2, width=5, dtype=torch.float64, some_unseen=True, in_order=False):
    """Both streams of a few samples; the baseline's rows are in another order, unless all lie `in_order`."""
    draw = torch.Generator().manual_seed(seed)
    total, queries = sum(lengths), sum(asking)

    def numbers(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    ends = [torch.tensor([0, *sizes]).cumsum(0) for sizes in (lengths, asking)]
    spare = 0 if in_order else 2
    index, index0 = (torch.randperm(total + spare, generator=draw)[:total] for _ in range(2))
    if in_order:
        index, index0 = index.sort().values, index0.sort().values
    looks = torch.rand(queries, generator=draw) < (0.8 if some_unseen else 2)
    seen = torch.rand(total, generator=draw) < (0.7 if some_unseen else 2)
    asked, asked0 = numbers(heads, queries, width), numbers(heads, queries, width)
    rows, rows0 = numbers(total + spare, width), numbers(total + spare, width)
    return {
        "asked": (asked, asked0), "rows": (rows, rows0), "index": (index, index0), "starts": (ends[0], ends[0]),
        "queries": (ends[1], ends[1]), "looks": looks, "seen": seen, "m": numbers(heads, queries, width),
        "where": torch.arange(len(lengths)),
    }  # fmt: skip


def forward(module, c, stream):
    given = [c[name][stream] for name in ("asked", "rows", "index", "starts", "queries")]
    return module.attention(*given, c["looks"], c["seen"])


def back(c, log_sums, half, function=ops.attention_backward, masks0=None):
    names = ("asked", "rows", "index", "starts", "queries")
    flat = (each for name in names for each in c[name])
    looks0, seen0 = masks0 or (c["looks"], c["seen"])
    return function(c["m"], *flat, c["where"], c["looks"], looks0, c["seen"], seen0, *log_sums, half)


SIZES = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 4)), min_size=1, max_size=5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(
    sizes=SIZES, heads=st.integers(1, 3), width=st.sampled_from([1, 7, 16, 33]), seed=st.integers(0, 99),
    half=st.sampled_from([0.0, 0.5]), in_order=st.booleans(),
)  # fmt: skip
@settings(max_examples=100)
def test_as_in_plain_torch(dtype, sizes, heads, width, seed, half, in_order):
    lengths, asking = ([size[i] for size in sizes] for i in (0, 1))
    c = case(seed, lengths, asking, heads, width, dtype, in_order=in_order)
    wide = {key: tuple(t.double() if t.is_floating_point() else t for t in v) if isinstance(v, tuple) else v
            for key, v in c.items()}  # fmt: skip
    wide["m"] = c["m"].double()
    expected = [forward(naive, wide, stream) for stream in (0, 1)]
    found = [forward(ops, c, stream) for stream in (0, 1)]
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype], "check_dtype": False}
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **close)
        assert ours[0].dtype == dtype
    m_expected = back(wide, [log_sums for _, log_sums in expected], half, naive.attention_backward)
    m_found = back(c, [log_sums for _, log_sums in found], half)
    torch.testing.assert_close(m_found, m_expected, **close)


def one_sample(asked, rows, looks, seen):
    """Written out for one sample: `[heads, queries, width]` and `[rows, width]`."""
    scores = asked @ rows.T
    scores = torch.where(seen, scores, -torch.inf) if seen.any() else scores * 0
    scores = torch.where(looks[:, None], scores, torch.zeros_like(scores))
    return torch.softmax(scores, -1) @ rows


@pytest.mark.parametrize("module", [ops, naive])
def test_gradient_is_autograds(module):
    c = case(3, [4, 1, 6], [2, 3, 1])
    asked, rows = (c[name][0].clone().requires_grad_() for name in ("asked", "rows"))
    parts = []
    for s in range(3):
        mine = slice(*c["starts"][0][s : s + 2].tolist())
        q = slice(*c["queries"][0][s : s + 2].tolist())
        parts.append(one_sample(asked[:, q], rows[c["index"][0][mine]], c["looks"][q], c["seen"][mine]))
    mixed = torch.cat(parts, 1)
    found, log_sums = forward(module, c, 0)
    torch.testing.assert_close(found, mixed.detach(), rtol=1e-11, atol=1e-11)
    expected = torch.autograd.grad(mixed, (asked, rows), c["m"])
    torch.testing.assert_close(
        back(c, (log_sums, log_sums), 0.0, module.attention_backward), expected, rtol=1e-10, atol=1e-11
    )


@given(sizes=SIZES, seed=st.integers(0, 99))
def test_complete(sizes, seed):
    c = case(seed, [n + 1 for n, _ in sizes], [q for _, q in sizes])
    (mixed, log_sums), (mixed0, log_sums0) = (forward(ops, c, stream) for stream in (0, 1))
    m_asked, m_rows = back(c, (log_sums, log_sums0), 0.5)
    (a, a0), (b, b0) = c["asked"], c["rows"]
    facing = b.clone()
    facing[c["index"][0]] = b0[c["index"][1]]
    contributed = (m_asked * (a - a0)).sum() + (m_rows * (b - facing)).sum()
    torch.testing.assert_close(contributed, (c["m"] * (mixed - mixed0)).sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("module", [ops, naive])
def test_complete_where_no_row_is_visible(module):
    c = case(13, [4, 3], [2, 1])
    c["seen"], c["looks"] = torch.zeros(7, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    (mixed, log_sums), (mixed0, log_sums0) = (forward(module, c, stream) for stream in (0, 1))
    m_asked, m_rows = back(c, (log_sums, log_sums0), 0.5, module.attention_backward)
    assert not m_asked.any()  # all rows have the same weight in both streams
    b, b0 = (c["rows"][stream][c["index"][stream]] for stream in (0, 1))
    contributed = (m_rows[c["index"][0]] * (b - b0)).sum()
    torch.testing.assert_close(contributed, (c["m"] * (mixed - mixed0)).sum())


def test_samples_may_share_a_baseline():
    c = case(1, [3, 3, 2], [1, 1, 2], some_unseen=False)
    shared = {**c, "where": torch.tensor([0, 0, 1])}
    shared["asked"] = (c["asked"][0], c["asked"][1][:, [0, 2, 3]].contiguous())
    shared["index"] = (c["index"][0], c["index"][1][[0, 1, 2, 6, 7]])
    shared["starts"], shared["queries"] = (
        (c[name][0], torch.tensor(ends)) for name, ends in (("starts", [0, 3, 5]), ("queries", [0, 1, 3]))
    )
    full = {**c, "index": (c["index"][0], c["index"][1][[0, 1, 2, 0, 1, 2, 6, 7]])}
    full["asked"] = (c["asked"][0], c["asked"][1][:, [0, 0, 2, 3]].contiguous())

    def found(given, queries, rows):
        looks, seen = torch.ones(queries, dtype=torch.bool), torch.ones(rows, dtype=torch.bool)
        baseline = forward(ops, {**given, "looks": looks, "seen": seen}, 1)
        return back(given, (forward(ops, given, 0)[1], baseline[1]), 0.5, masks0=(looks, seen))

    torch.testing.assert_close(found(shared, 3, 5), found(full, 4, 8))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rows": torch.zeros(4, 3)}, ValueError, "rows"),
        ({"asked": torch.zeros(2, 2, 5, dtype=torch.float16)}, TypeError, "float16"),
        ({"index": torch.tensor([0, 9])}, (RuntimeError, IndexError), "0 to 3"),
        ({"index": torch.tensor([0, 1], dtype=torch.int32)}, TypeError, "int32"),
        ({"starts": torch.tensor([0, 1])}, (RuntimeError, ValueError), "starts"),
        ({"queries": torch.tensor([0, 3])}, (RuntimeError, ValueError), "queries"),
        ({"looks": torch.ones(3, dtype=torch.bool)}, ValueError, "looks"),
        ({"asked": torch.zeros(2, 5, 2).mT}, ValueError, "contiguous"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    ends = torch.tensor([0, 2])
    given = {
        "asked": torch.zeros(2, 2, 5), "rows": torch.zeros(4, 5), "index": torch.tensor([0, 1]), "starts": ends,
        "queries": ends, "looks": torch.ones(2, dtype=torch.bool), "seen": torch.ones(2, dtype=torch.bool),
    }  # fmt: skip
    with pytest.raises(error, match=message):
        ops.attention(**{**given, **change})


def test_a_baseline_of_another_length_is_refused():
    c = case(0, [3, 2], [1, 1])
    log_sums = [forward(ops, c, stream)[1] for stream in (0, 1)]
    with pytest.raises((RuntimeError, ValueError), match="differ"):
        back({**c, "where": torch.tensor([1, 0])}, log_sums, 0.5)


def test_registered_as_pytorch_expects():
    c = case(0, [3, 2], [1, 2])
    op = getattr(torch.ops, NAMESPACE)
    names = ("asked", "rows", "index", "starts", "queries")
    given = [c[name][0] for name in names]
    torch.library.opcheck(op.attention, (*given, c["looks"], c["seen"]))
    log_sums = [forward(ops, c, stream)[1] for stream in (0, 1)]
    flat = [each for name in names for each in c[name]]
    torch.library.opcheck(
        op.attention_backward, (c["m"], *flat, c["where"], *[c["looks"]] * 2, *[c["seen"]] * 2, *log_sums, 0.5)
    )


@pytest.mark.parametrize("half", [0.0, 0.5])
@pytest.mark.parametrize("module", [ops, naive])
def test_an_offset_of_every_row_moves_no_multiplier(module, half):
    c = case(5, [9, 4], [2, 3], dtype=torch.float32, some_unseen=False)
    c["asked"] = tuple(asked - asked.mean(-1, keepdim=True) for asked in c["asked"])  # the offset adds 0 to scores
    far = {**c, "rows": tuple(rows + 512 for rows in c["rows"])}
    near, found = (
        back(each, [forward(module, each, stream)[1] for stream in (0, 1)], half, module.attention_backward)[0]
        for each in (c, far)
    )
    assert (near - found).abs().max() < 2e-3 * near.abs().max()
