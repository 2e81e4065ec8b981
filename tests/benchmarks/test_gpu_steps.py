"""The cases of single steps, and their time on paper."""

import math
import re
from pathlib import Path

import gpu_estimate
import gpu_steps
import pytest
import torch
from gpu_calls import Maker
from gpu_steps import STEPS
from torch.utils.flop_counter import FlopCounterMode

from deeplift_fast.ops import naive

CPU = torch.device("cpu")
PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(gpu_steps, "UNITS", {"stagenet": 6, "lstm": 4, "gru": 4})


@pytest.mark.parametrize("name", [name for name in STEPS if name.endswith("batch 128")])
def test_every_case_runs(name, small):
    case = STEPS[name]
    call = case.make(Maker(torch.float32, CPU), batch=3, steps=2)
    assert all(torch.isfinite(each).all() for each in case.run(call))


def test_the_baseline_is_shared():
    call = gpu_steps.recurrent(Maker(torch.float32, CPU), "gru", 5, 2)
    _, u0, where, counts, counts0, *_ = call.arguments
    assert len(u0) == 2
    assert where.tolist() == [0] * 5
    assert (counts.tolist(), counts0.tolist()) == ([5, 5], [1, 1])


def test_a_step_is_the_difference_of_two_calls(small, monkeypatch):
    times = {gpu_steps.SHORT: 1e-3, gpu_steps.LONG: 1.8e-3}
    monkeypatch.setattr(gpu_steps, "_seconds", lambda case, steps, device, rounds: times[steps])
    assert gpu_steps.speed("recurrent, gru, batch 1024", CPU) == {"us a step": 100.0}
    row = gpu_steps.speed("recurrent_backward, stagenet, batch 1024", CPU)
    assert row["us on paper"] == pytest.approx(1e6 * gpu_estimate.tiled(1024, back=True), rel=1e-3)


def test_a_step_is_timed(small, monkeypatch):
    monkeypatch.setattr(gpu_steps, "LONG", gpu_steps.SHORT + 2)
    case = "lockstep_backward, two layers, batch 128"
    assert math.isfinite(gpu_steps.speed(case, CPU, rounds=1)["us a step"])


@pytest.mark.parametrize("shared", [True, False])
def test_flops_are_those_of_plain_torch(shared, monkeypatch):
    """One step more of StageNet's cell, whose inputs are gates already."""
    for name, value in {"UNITS": 6, "LEVELS": 3}.items():
        monkeypatch.setattr(gpu_estimate, name, value)
    monkeypatch.setattr(gpu_steps, "UNITS", {"stagenet": 6})
    samples, found = 5, []
    for steps in (1, 2):
        arguments = [*gpu_steps.recurrent(Maker(torch.float64, CPU), "stagenet", samples, steps).arguments]
        if not shared:
            arguments[1] = torch.zeros(samples * steps, 2, dtype=torch.float64)
            arguments[2], arguments[4] = torch.arange(samples), arguments[3]
        arguments = _without_padded_units(arguments)
        with FlopCounterMode(display=False) as counter:
            naive.recurrent(*arguments)
        found.append(counter.get_total_flops())
    rows = samples + (1 if shared else samples)
    of_inputs = 2 * rows * 2 * gpu_estimate.columns()
    assert found[1] - found[0] - of_inputs == gpu_estimate.flops(samples, shared)


def _without_padded_units(arguments):
    """The arguments of `recurrent` with plain matrices, whose product has the size of the estimate."""
    units, levels = 6, 3
    sizes = [(1, 2, 4, units), (1, units, 4, units), (1, 4, units), (2, 2 * levels), (units, 2 * levels), (2 * levels,)]
    arguments[5:11] = [torch.randn(size, dtype=torch.float64) for size in sizes]
    arguments[11] = torch.empty(len(arguments[0]), 8, units, dtype=torch.float64)
    return arguments


def test_bytes_are_those_of_tensors():
    batch, units = 7, gpu_estimate.UNITS
    written = [torch.empty(batch, 8, units), torch.empty(batch, units)]
    read = [torch.empty(batch, 4, units)]
    assert gpu_estimate.bytes_moved(batch) == sum(each.nbytes for each in (*written, *read))


def test_whole_tiles_take_longer_than_an_even_share():
    for batch in gpu_steps.BATCHES:
        for reached in gpu_estimate.REACHED:
            tiles = sum(gpu_estimate.tiled(batch, back, reached) for back in (False, True))
            assert gpu_estimate.even(batch, reached) < tiles
            assert tiles < gpu_estimate.apart(batch, gpu_estimate.REACHED_FLOAT32[0]) or batch == 128


def test_samples_by_length_end_together():
    lengths = [4, 1, 3, 1, 2, 1]
    assert gpu_estimate.working(lengths, 2) == (1 + 2 + 4) / 12
    assert gpu_estimate.working(lengths, 2, in_order=False) == (4 + 3 + 2) / 12


def test_the_page_has_these_shares():
    row = r"^\| ([\d,]+) \| (\d+), (\d+) \| (\d+), (\d+) \|$"
    draw, shown = torch.Generator().manual_seed(0), re.findall(row, PAGE.read_text(), re.MULTILINE)
    assert [int(batch.replace(",", "")) for batch, *_ in shown] == [*gpu_steps.BATCHES]
    for batch, *shares in shown:
        size = int(batch.replace(",", ""))
        high = (32 if size < 1024 else 64, 64)  # the samples of a program, forward and back
        alike = torch.randint(5, 121, (20, size), generator=draw)
        skewed = (0.8 * torch.randn(20, size, generator=draw) + math.log(20)).exp().clamp(1, 120).long()
        found = [[gpu_estimate.working(x.tolist(), n) for x in of] for of in (alike, skewed) for n in high]
        assert [100 * sum(each) / 20 for each in found] == pytest.approx([*map(int, shares)], abs=4)


def test_the_page_has_these_numbers():
    rows = re.findall(r"^\| ([\d,]+) \| (\d+)–(\d+) \| (\d+)–(\d+) \| (\d+)–(\d+) \|$", PAGE.read_text(), re.MULTILINE)
    assert [int(batch.replace(",", "")) for batch, *_ in rows] == [*gpu_steps.BATCHES]
    for batch, *shown in rows:
        size = int(batch.replace(",", ""))
        even = sorted(gpu_estimate.even(size, reached) for reached in gpu_estimate.REACHED)
        tiles = sorted(sum(gpu_estimate.tiled(size, b, r) for b in (False, True)) for r in gpu_estimate.REACHED)
        apart = sorted(gpu_estimate.apart(size, reached) for reached in gpu_estimate.REACHED_FLOAT32)
        assert [*map(int, shown)] == [round(1e6 * each) for each in (*even, *tiles, *apart)]
