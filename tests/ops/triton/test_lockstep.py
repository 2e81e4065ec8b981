"""StageNet's recurrences of several layers in Triton's interpreter: against plain torch in float64, and launches."""

import importlib.util

import pytest
import torch
from counted_launches import Launches
from guarded_memory import checked_memory, guarded
from interpreted_kernels import INTERPRETED
from interpreted_products import widen_products

from deeplift_fast.ops import naive
from deeplift_fast.ops.cells import rows_per_sample

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.lockstep import lockstep, lockstep_backward

pytestmark = INTERPRETED

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
NAMES = ("h", "h0", "log_p", "log_p0", "coefficients", "d")


@pytest.fixture(autouse=True)
def _true_products(monkeypatch):
    widen_products(monkeypatch)


def drawn(*shape, dtype=torch.float64, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return guarded((scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype))


def case(steps, samples, units, levels, dtype=torch.float64, further=3, where=None, ends=None):
    """Arguments of both ops but `slope` and `half`, with columns past the gates; `ends` holds lengths by layer."""
    layers, columns = len(steps), 4 * units + 2 * levels + further
    rows = samples * rows_per_sample(steps)
    order = lengths = torch.zeros(0, layers, dtype=torch.int64)
    if ends is not None:  # the layers' columns in reverse
        lengths, order = torch.tensor(ends[::-1]).T.contiguous().sort(0, descending=True)
    return {
        "turns": [order, lengths, [*reversed(range(layers))]],
        "projected": drawn(2 * rows, columns, dtype=dtype, seed=1),
        "where": torch.arange(samples) if where is None else torch.tensor(where),
        "steps": list(steps),
        "weight": drawn(layers, units, columns, dtype=dtype, seed=2, scale=0.4),
        "bias": drawn(layers, columns, dtype=dtype, seed=3, scale=0.4),
        "m_h": drawn(rows, units, dtype=dtype, seed=4),
        "m_master": drawn(rows, levels, dtype=dtype, seed=5),
        "levels": levels,
    }


def through(ops, given, slope="secant", half=0.5):
    """All that the two ops give in rows of layers."""
    forward, backward = ops
    projected, where, steps, weight, levels = (given[n] for n in ("projected", "where", "steps", "weight", "levels"))
    rows, units = given["m_h"].shape
    k, turns = projected.new_full((rows, 8, units), torch.nan), given["turns"]
    found = forward(projected, where, steps, *turns, weight, given["bias"], k, levels, slope, half)
    d = backward(given["m_h"], given["m_master"], k, found[2].exp(), steps, *turns, weight, levels)
    samples = len(where)
    firsts = [i * samples * steps[0] for i in range(len(steps))]
    real = torch.cat([torch.arange(first, first + samples * n) for first, n in zip(firsts, steps, strict=True)])
    return [each[real] for each in (*found, k, d[:, : 4 * units + 2 * levels])]


def in_float64(given):
    return {n: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for n, v in given.items()}


def assert_matches_naive(given, slope="secant", half=0.5):
    expected = through((naive.lockstep, naive.lockstep_backward), in_float64(given), slope, half)
    with checked_memory():
        found = through((lockstep, lockstep_backward), given, slope, half)
    tolerance = TOLERANCE[given["projected"].dtype]
    for name, result, target in zip(NAMES, found, expected, strict=True):
        assert result.dtype == given["projected"].dtype
        torch.testing.assert_close(
            result.double(), target, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("steps", [(1,), (3,), (3, 1), (2, 2), (4, 3, 1), (3, 3, 1), (3, 1, 1)])
def test_layers_of_any_lengths(steps):
    assert_matches_naive(case(steps, 3, 6, 2))


@pytest.mark.parametrize("half", [0.0, 0.5])
@pytest.mark.parametrize("slope", ["secant", "pyhealth"])
def test_slopes_and_rules(slope, half):
    assert_matches_naive(case((3, 2), 2, 6, 3), slope, half)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_dtype(dtype):
    assert_matches_naive(case((3, 2), 3, 10, 2, dtype))


@pytest.mark.parametrize(("units", "levels"), [(1, 1), (67, 1), (15, 5), (8, 4)])
def test_sizes(units, levels):
    assert_matches_naive(case((2, 1), 2, units, levels, further=0))


@pytest.mark.parametrize("samples", [1, 24])
def test_samples_below_and_above_a_tile(samples):
    assert_matches_naive(case((2, 1), samples, 6, 2))


def test_one_baseline_for_several_samples():
    assert_matches_naive(case((3, 2), 4, 6, 2, where=(0, 2, 2, 1)))


@pytest.mark.parametrize(("samples", "units"), [(0, 6), (2, 0)])
def test_nothing(samples, units):
    found = through((lockstep, lockstep_backward), case((2, 1), samples, units, 2))
    assert all(each.numel() == 0 for each in found[:2])


def test_what_is_not_contiguous():
    given = case((3, 2), 2, 6, 2)
    expected = through((lockstep, lockstep_backward), given)
    strided = {
        n: torch.stack([v, torch.full_like(v, torch.nan)], -1)[..., 0] if torch.is_tensor(v) and v.dim() > 1 else v
        for n, v in given.items()
    }
    for result, target in zip(through((lockstep, lockstep_backward), strided), expected, strict=True):
        torch.testing.assert_close(result, target, rtol=1e-12, atol=1e-12)


def test_coefficients_that_are_not_contiguous_are_written():
    given, found = case((2, 1), 2, 6, 2), []
    arguments = [given["projected"], given["where"], given["steps"], *given["turns"], given["weight"], given["bias"]]
    for k in (torch.zeros(6, 8, 6).double(), torch.zeros(6, 8, 6).double().permute(2, 1, 0)):
        lockstep(*arguments, k, 2, "secant", 0.5)
        found.append(k)
    assert torch.equal(*found)
    assert found[0].any()


ENDS = [[4, 1, 2, 4, 3], [1, 2, 2, 1, 1]]  # of two layers


def before_the_ends(steps, ends):
    """Whether each row of the layers, as `through` gives them, is before its sample's end."""
    return torch.cat(
        [(torch.arange(n)[:, None] < torch.tensor(of)).flatten() for n, of in zip(steps, ends, strict=True)]
    )


@pytest.mark.parametrize("times", [1, 7])  # tiles of samples that end at different steps, and one after the other
@pytest.mark.parametrize("half", [0.0, 0.5])
def test_nothing_is_computed_past_the_ends(half, times):
    steps, ends = (4, 2), [each * times for each in ENDS]
    given, real = case(steps, 5 * times, 6, 2, ends=ends), before_the_ends(steps, ends)
    rows = torch.cat([torch.arange(5 * times * n) + i * 20 * times for i, n in enumerate(steps)])
    expected = through((naive.lockstep, naive.lockstep_backward), given, half=half)
    for name in ("m_h", "m_master"):
        given[name][rows[~real]] = torch.nan
    given["projected"][rows[~real]] = torch.nan
    with checked_memory():
        found = through((lockstep, lockstep_backward), given, half=half)
    for result, target in zip(found, expected, strict=True):
        torch.testing.assert_close(result[real], target[real], rtol=1e-11, atol=1e-11)
    assert not found[-1][~real].any()  # the multipliers
    assert found[4][~real].isnan().all()  # nothing is written there


@pytest.mark.parametrize("samples", [1, 24])
def test_an_order_changes_no_bit(samples):
    given = case((3, 2), samples, 6, 2)
    every = [[3] * samples, [2] * samples]
    turned = case((3, 2), samples, 6, 2, ends=every)
    turned["turns"][0] = turned["turns"][0].flip(0)
    for result, target in zip(*(through((lockstep, lockstep_backward), each) for each in (turned, given)), strict=True):
        assert torch.equal(result, target)


def test_a_step_of_all_layers_is_one_kernel(monkeypatch):
    from deeplift_fast.ops.triton import recurrent as module

    kernels = [(module, "forward_kernel"), (module, "backward_kernel")]
    launches = Launches(monkeypatch, kernels, products=("mm", "addmm", "bmm"))
    through((lockstep, lockstep_backward), case((4, 3, 1), 2, 6, 2))
    assert launches.kernels == 2 * 4 + 1  # and the first step's master gates
    assert launches.products == 0
