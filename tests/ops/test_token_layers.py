"""The mean of embeddings with the layers after it, and the way back, against the same steps written out."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import naive

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


def arguments(rows, slots, sizes, seed=0):
    """Float64: embeddings of 7 tokens, both streams' tokens, which of them are real, and the weights of two layers."""
    generator = torch.Generator().manual_seed(seed)
    dim, hidden, width = sizes

    def numbers(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    tokens, baseline = (torch.randint(0, 7, (rows, slots), generator=generator) for _ in range(2))
    real = torch.arange(slots).expand(rows, slots) <= torch.randint(0, 5, (rows, 1), generator=generator)
    return (
        numbers(7, dim),
        tokens,
        baseline,
        real,
        numbers(hidden, dim),
        numbers(hidden),
        numbers(width, hidden),
        (numbers(width)),
    )


def in_dtype(given, dtype):
    return [each.to(dtype) if each.is_floating_point() else each for each in given]


def forward_written_out(table, tokens, baseline, real, weight, bias, weight2, bias2, begin, end, function):
    x, x0 = (table[each].sum(1) / real.sum(1, keepdim=True) for each in (tokens, baseline))
    inner = [F.linear(x0 + at * (x - x0), weight, bias) for at in (end, begin)]
    outer = [F.linear(getattr(torch, function)(each), weight2, bias2) for each in inner]
    return torch.cat(outer), ops.secant(*inner, function)[2]


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(
    rows=st.integers(0, 9), slots=st.integers(1, 5), seed=st.integers(0, 9),
    sizes=st.tuples(*[st.sampled_from([1, 15, 16, 33])] * 3), segment=st.sampled_from([(0.0, 1.0), (0.25, 0.5)]),
    function=st.sampled_from(["relu", "sigmoid", "tanh"]),
)  # fmt: skip
def test_is_the_layers_written_out(dtype, rows, slots, sizes, seed, segment, function):
    tensors = arguments(rows, slots, sizes, seed)
    expected = forward_written_out(*tensors, *segment, function)
    for op in (ops.token_layers, naive.token_layers):
        found = op(*in_dtype(tensors, dtype), *segment, function, "rescale")
        for each, right, scale in zip(found, expected, (sum(sizes), 10), strict=True):
            assert each.dtype == dtype
            torch.testing.assert_close(each.double(), right, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(
    rows=st.integers(0, 9), slots=st.integers(0, 5), seed=st.integers(0, 9), alike=st.booleans(),
    sizes=st.tuples(*[st.sampled_from([1, 15, 16, 33])] * 3),
)  # fmt: skip
def test_the_way_back_is_the_chain_written_out(dtype, rows, slots, sizes, seed, alike):
    table, tokens, baseline, real, weight, _, weight2, _ = arguments(rows, slots, sizes, seed)
    slope, m = torch.rand(rows, sizes[1]).double(), torch.randn(1 if alike else rows, sizes[2]).double()
    pooled = (m @ weight2 * slope) @ weight / real.sum(1, keepdim=True)
    expected = torch.einsum("rsd,rd->rs", table[tokens] - table[baseline], pooled)
    given = in_dtype((m, weight2, slope, weight, table, tokens, baseline, real), dtype)
    for op in (ops.token_layers_backward, naive.token_layers_backward):
        found = op(*given)
        assert found.dtype == dtype
        chosen = slice(None) if slots else slice(0)  # a mean over no slot is no number
        torch.testing.assert_close(found.double()[chosen], expected[chosen], rtol=0, atol=TOLERANCE[dtype] * 1e3)


def test_contributions_sum_to_the_difference():
    table, tokens, baseline, real, *layers = arguments(4, 5, (16, 33, 3))
    out, slope = ops.token_layers(table, tokens, baseline, real, *layers, 0.0, 1.0, "tanh", "rescale")
    for column in range(3):
        m = torch.eye(3, dtype=torch.float64)[column : column + 1]
        found = ops.token_layers_backward(m, layers[2], slope, layers[0], table, tokens, baseline, real)
        torch.testing.assert_close(found.sum(1), (out[:4] - out[4:])[:, column], rtol=0, atol=1e-12)


@pytest.mark.parametrize("function", ["relu", "tanh"])
def test_pyhealths_variant_has_the_multipliers_of_the_secant_op(function):
    table, tokens, baseline, real, weight, bias, weight2, bias2 = arguments(3, 4, (16, 16, 2))
    layers = (weight * 9, bias, weight2, bias2)  # so that some units are saturated
    slope = ops.token_layers(table, tokens, baseline, real, *layers, 0.0, 1.0, function, "pyhealth")[1]
    x, x0 = (F.linear(table[each].sum(1) / real.sum(1, keepdim=True), *layers[:2]) for each in (tokens, baseline))
    torch.testing.assert_close(slope, ops.secant(x, x0, function, "pyhealth")[2], rtol=1e-9, atol=1e-9)


def test_a_sample_without_real_tokens_has_no_mean():
    table, tokens, baseline, _, *layers = arguments(2, 3, (4, 5, 2))
    real = torch.tensor([[False] * 3, [True] * 3])
    for op in (ops.token_layers, naive.token_layers):
        out, slope = op(table, tokens, baseline, real, *layers, 0.0, 1.0, "tanh", "rescale")
        assert [bool(row.isfinite().all()) for row in (*out, *slope)] == [False, True, False, True, False, True]


@pytest.mark.parametrize(
    ("op", "change", "error", "message"),
    [
        ("token_layers", {"real": torch.ones(2, 3)}, TypeError, "real is torch.float32; accepted: torch.bool"),
        ("token_layers", {"weight2": torch.zeros(2, 4)}, ValueError, r"weight2 has shape \(2, 4\); accepted: \(2, 5\)"),
        ("token_layers", {"function": "gelu"}, ValueError, "accepted: relu, sigmoid, tanh"),
        ("token_layers_backward", {"m": torch.zeros(3, 2)}, ValueError, "m has 3 rows; accepted: 2, one per sample"),
    ],
)
def test_errors_name_the_argument(op, change, error, message):
    table, tokens, baseline, real, weight, bias, weight2, bias2 = in_dtype(arguments(2, 3, (4, 5, 2)), torch.float32)
    common = {"table": table, "tokens": tokens, "baseline": baseline, "real": real, "weight": weight}
    if op == "token_layers":
        rest = {"bias": bias, "weight2": weight2, "bias2": bias2, "begin": 0.0, "end": 1.0, "function": "relu"}
        rest["variant"] = "rescale"
    else:
        rest = {"m": torch.zeros(1, 2), "weight2": weight2, "slope": torch.zeros(2, 5)}
    with pytest.raises(error, match=message):
        getattr(ops, op)(**{**common, **rest, **change})


@pytest.mark.parametrize("op", ["token_layers", "token_layers_backward"])
def test_a_token_outside_the_table_is_refused(op):
    table, tokens, baseline, real, weight, bias, weight2, bias2 = arguments(2, 3, (4, 5, 2))
    entry = table, tokens + 7, baseline, real
    if op == "token_layers":
        given = (*entry, weight, bias, weight2, bias2, 0.0, 1.0, "relu", "rescale")
    else:
        given = (torch.zeros(1, 2).double(), weight2, torch.zeros(2, 5).double(), weight, *entry)
    for function in (getattr(ops, op), getattr(naive, op)):
        with pytest.raises((RuntimeError, IndexError)):
            function(*given)


def test_registered_as_pytorch_expects():
    table, tokens, baseline, real, weight, bias, weight2, bias2 = arguments(2, 3, (4, 5, 2))
    given = (table, tokens, baseline, real, weight, bias, weight2, bias2, 0.25, 0.5, "tanh", "rescale")
    torch.library.opcheck(torch.ops.deeplift_fast.token_layers, given)
    slope = torch.rand(2, 5).double()
    back = (torch.ones(1, 2).double(), weight2, slope, weight, table, tokens, baseline, real)
    torch.library.opcheck(torch.ops.deeplift_fast.token_layers_backward, back)
