"""The recurrent kernels in Triton's interpreter against plain torch in float64."""

import importlib.util

import pytest
import torch
from counted_launches import Launches
from guarded_memory import checked_memory, guarded
from interpreted_kernels import INTERPRETED
from interpreted_products import widen_products

from deeplift_fast.ops import naive
from deeplift_fast.ops.cells import COEFFICIENTS, GATES, SLOPES
from deeplift_fast.pyhealth.fused.recurrent import pack
from deeplift_fast.pyhealth.fused.sequences import RealSteps

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.recurrent import recurrent, recurrent_backward

pytestmark = INTERPRETED

CASES = [(cell, slope) for cell, slopes in SLOPES.items() for slope in slopes]
HALVES = (torch.float16, torch.bfloat16)
# Matrix products and states are rounded to the dtype at each of three steps; the interpreter truncates to bfloat16.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
NAMES = ("h", "h0", "log_p", "log_p0", "coefficients", "m_u")


@pytest.fixture(autouse=True)
def _true_products(monkeypatch):
    widen_products(monkeypatch)


def drawn(*shape, dtype=torch.float64, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return guarded((scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype))


def weights_of(cell, units, inputs, levels, dtype, panels=1):
    """Any weights of the right shapes, in the order of both ops."""
    (gates, from_input, from_state), lanes, wide = GATES[cell], units // panels, 4 * (inputs // 4 + 1)
    width = 2 * levels and 2 * levels + 1
    shapes = [
        (panels, inputs, from_input, lanes), (panels, units, from_state, lanes), (panels, gates, lanes),
        (inputs, width), (units, width), (width,),
        (1, panels, from_input * lanes, wide), (1, panels, from_state * lanes, 4 * units),
        (1, 2 * levels, wide), (1, 2 * levels, 4 * units),
    ]  # fmt: skip
    drawn_ = [drawn(*shape, dtype=dtype, seed=seed, scale=0.4) for seed, shape in enumerate(shapes)]
    return drawn_[:6], drawn_[6:]


def case(cell, units, inputs, levels, dtype, *, counts=(4, 3, 1), counts0=(2, 1, 1), where=(0, 0, 0, 1), panels=1):
    """Arguments of both ops but `slope` and `half`; by default sequences of 3, 2, 2 and 1 steps, and two baselines."""
    forward, back = weights_of(cell, units, inputs, levels, dtype, panels)
    rows, rows0 = sum(counts), sum(counts0)
    return {
        "u": drawn(rows, inputs, dtype=dtype, seed=11),
        "u0": drawn(rows0, inputs, dtype=dtype, seed=12),
        "where": torch.tensor(where, dtype=torch.int64),
        "counts": torch.tensor(counts, dtype=torch.int64),
        "counts0": torch.tensor(counts0, dtype=torch.int64),
        "forward": forward,
        "back": back,
        "m_h": drawn(rows, units, dtype=dtype, seed=13),
        "m_master": drawn(rows, levels, dtype=dtype, seed=14),
        "levels": levels,
        "cell": cell,
        "inputs": inputs,
    }


def through(ops, given, slope, half):
    """All that the two ops give."""
    forward, backward = ops
    u, levels, cell, counts = (given[name] for name in ("u", "levels", "cell", "counts"))
    k = torch.empty(len(u), COEFFICIENTS[cell], given["m_h"].shape[1], dtype=u.dtype)
    found = forward(
        u, given["u0"], given["where"], counts, given["counts0"], *given["forward"], k, levels, cell, slope, half
    )
    shares = found[2].exp()
    m_u = backward(given["m_h"], given["m_master"], k, shares, counts, *given["back"], levels, cell, given["inputs"])
    return (*found, k, m_u)


def in_float64(given):
    def wide(value):
        return value.double() if value.is_floating_point() else value

    return {
        name: [wide(each) for each in value]
        if isinstance(value, list)
        else wide(value)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in given.items()
    }


def assert_matches_naive(given, slope="secant", half=0.5):
    dtype = given["u"].dtype
    expected = through((naive.recurrent, naive.recurrent_backward), in_float64(given), slope, half)
    with checked_memory():
        found = through((recurrent, recurrent_backward), given, slope, half)
    for name, result, target in zip(NAMES, found, expected, strict=True):
        assert result.dtype == dtype
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(
            result.double(), target, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("half", [0.0, 0.5])
@pytest.mark.parametrize(("cell", "slope"), CASES)
def test_every_cell_and_slope(cell, slope, half):
    assert_matches_naive(case(cell, 15, 6, 3 if cell == "stagenet" else 0, torch.float64), slope, half)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("cell", SLOPES)
def test_every_dtype(cell, dtype):
    assert_matches_naive(case(cell, 18, 5, 2 if cell == "stagenet" else 0, dtype))


@pytest.mark.parametrize("levels", [1, 2, 4, 5])
def test_levels(levels):
    assert_matches_naive(
        case("stagenet", 3 * levels, 4, levels, torch.float64, counts=(2, 1), counts0=(1, 1), where=(0, 0))
    )


@pytest.mark.parametrize(("cell", "units"), [("stagenet", 1), ("stagenet", 67), ("gru", 1), ("lstm", 130), ("gru", 65)])
def test_units_below_and_above_a_tile(cell, units):
    levels = 1 if cell == "stagenet" else 0
    assert_matches_naive(case(cell, units, 3, levels, torch.float64, counts=(2, 1), counts0=(1, 1), where=(0, 0)))


def test_more_rows_than_a_tile():
    lengths = RealSteps.of(torch.arange(1, 4).repeat(8))
    given = case(
        "stagenet",
        6,
        3,
        2,
        torch.float64,
        counts=lengths.counts.tolist(),
        counts0=lengths.counts.tolist(),
        where=range(24),
    )
    assert_matches_naive(given)


@pytest.mark.parametrize("cell", ["stagenet", "lstm", "gru", "rnn_relu"])
def test_one_baseline_for_more_samples_than_a_tile_has(cell):
    levels, counts = 2 if cell == "stagenet" else 0, (34, 31)
    assert_matches_naive(case(cell, 4, 3, levels, torch.float64, counts=counts, counts0=(1, 1), where=[0] * 34))


@pytest.mark.parametrize("cell", ["stagenet", "gru"])
def test_larger_tiles_for_many_samples(cell, monkeypatch):
    monkeypatch.setattr("deeplift_fast.ops.triton.recurrent.MANY", 4)
    assert_matches_naive(case(cell, 20, 3, 2 if cell == "stagenet" else 0, torch.float32))


@pytest.mark.parametrize("where", [[*range(16), 3, 16], [0, *range(17)]])
def test_baselines_of_other_samples_and_longer_ones(where):
    """A tile of 16 samples, each with the baseline of its number, or not; more baselines than samples at a step."""
    given = case("stagenet", 4, 3, 2, torch.float64, counts=(18, 17), counts0=(35, 20), where=where)
    assert_matches_naive(given)


@pytest.mark.parametrize("cell", ["stagenet", "gru"])
def test_panels(cell):
    assert_matches_naive(case(cell, 12, 5, 3 if cell == "stagenet" else 0, torch.float64, panels=3))


@pytest.mark.parametrize("cell", ["stagenet", "gru", "rnn_relu"])
def test_packed_weights(cell):
    levels, (gates, from_input, from_state) = 3 if cell == "stagenet" else 0, GATES[cell]
    masters = (drawn(6, 6, seed=4), drawn(6, 9, seed=5), drawn(6, seed=6)) if levels else None
    parts = drawn(from_input, 9, 6, seed=1), drawn(from_state, 9, 9, seed=2), drawn(gates, 9, seed=3)
    found = []
    for one_panel in (False, True):
        packed = pack(cell, parts, 5, masters, levels, one_panel=one_panel)
        given = case(cell, packed.units, 6, levels, torch.float64)
        given |= {"forward": packed.forward, "back": packed.back, "inputs": 5}
        m = drawn(len(given["u"]), 9, seed=7)
        given["m_h"] = packed.padded(m)
        h, h0, log_p, log_p0, _, m_u = through((recurrent, recurrent_backward), given, "secant", 0.5)
        found.append((packed.unpadded(h), packed.unpadded(h0), log_p, log_p0, m_u[:, :5]))
    for by_panels, alone in zip(*found, strict=True):
        torch.testing.assert_close(by_panels, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", ["stagenet", "lstm", "rnn_tanh"])
def test_no_rows(cell):
    given = case(cell, 6, 3, 3 if cell == "stagenet" else 0, torch.float32, counts=(), counts0=(), where=())
    assert [each.numel() for each in through((recurrent, recurrent_backward), given, "secant", 0.5)] == [0] * 6


@pytest.mark.parametrize("turned", [False, True])
def test_streams_in_one_memory(turned):
    given = case("stagenet", 6, 5, 3, torch.float64)
    both = torch.cat([given["u0"], given["u"]] if turned else [given["u"], given["u0"]])
    parts = both.split([len(given["u0"]), len(given["u"])] if turned else [len(given["u"]), len(given["u0"])])
    assert_matches_naive(given | dict(zip(("u0", "u") if turned else ("u", "u0"), parts, strict=True)))


@pytest.mark.parametrize("inputs", [0, 1])
def test_few_inputs(inputs):
    assert_matches_naive(case("gru", 5, inputs, 0, torch.float64))


@pytest.mark.parametrize("cell", ["stagenet", "gru"])
def test_what_is_not_contiguous(cell):
    given = case(cell, 6, 5, 3 if cell == "stagenet" else 0, torch.float64)
    expected = through((recurrent, recurrent_backward), given, "secant", 0.5)

    def strided(x):
        return torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0] if x.is_floating_point() else x

    given = {
        name: [strided(each) for each in value]
        if isinstance(value, list)
        else strided(value)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in given.items()
    }
    for result, target in zip(through((recurrent, recurrent_backward), given, "secant", 0.5), expected, strict=True):
        torch.testing.assert_close(result, target, rtol=1e-12, atol=1e-12)


def test_coefficients_that_are_not_contiguous_are_written():
    given = case("rnn_tanh", 5, 3, 0, torch.float64)
    arguments = [given[name] for name in ("u", "u0", "where", "counts", "counts0")]
    found = []
    for k in (torch.empty(8, 1, 5, dtype=torch.float64), torch.empty(5, 1, 8, dtype=torch.float64).permute(2, 1, 0)):
        recurrent(*arguments, *given["forward"], k, 0, "rnn_tanh", "secant", 0.5)
        found.append(k)
    assert torch.equal(*found)


@pytest.mark.parametrize("cell", ["stagenet", "gru"])
def test_a_step_is_one_kernel(cell, monkeypatch):
    from deeplift_fast.ops.triton import recurrent as module

    launches = Launches(monkeypatch, [(module, "forward_kernel"), (module, "backward_kernel")])
    through(
        (recurrent, recurrent_backward), case(cell, 6, 3, 3 if cell == "stagenet" else 0, torch.float64), "secant", 0.5
    )
    steps, last = 3, int(cell == "stagenet")  # StageNet's master gates take one more after the steps
    assert launches.kernels == 2 * steps + last
    assert launches.products == 3  # of all steps: each stream's inputs, the inputs' multipliers
