"""How an op's numbers and speed are taken, on the CPU in place of a GPU."""

from dataclasses import replace
from functools import partial

import gpu_calls
import gpu_ops
import pytest
import torch
from gpu_cases import CASES, Case, worst_error
from gpu_timing import copy_seconds, kernel_seconds, peak_bytes

CPU = torch.device("cpu")
# At both sizes the small one.
CASE = Case("secant", "tanh", lambda make: gpu_calls.secant(replace(make, large=False), "tanh", "rescale"))


def test_numbers():
    row = gpu_ops.numbers(CASE, CPU)
    assert list(row["errors"]) == ["float32, small", "float32, large", "float64, small"]
    assert row["right"]
    assert row["backend"] in ("C++", "naive")


def test_wrong_numbers(monkeypatch):
    right = Case.run

    def wrong_in_float32(self, call):
        return [each * 1.01 if each.dtype == torch.float32 else each for each in right(self, call)]

    monkeypatch.setattr(Case, "run", wrong_in_float32)
    row = gpu_ops.numbers(CASE, CPU)
    assert not row["right"]
    assert row["errors"]["float32, small"] > 1 > row["errors"]["float64, small"]


def test_large_numbers_are_compared_on_the_device():
    """Without the op's own kernel there, which would be compared with itself."""
    devices = []

    def make(maker):
        devices.append((maker.device.type, maker.dtype, maker.large))
        return gpu_calls.secant(replace(maker, large=False, device=CPU), "tanh", "rescale")

    case = Case("secant", "tanh", make)
    for large in (False, True):
        assert worst_error(case, torch.float32, "cuda:0", large) <= 1
    float32, float64 = torch.float32, torch.float64
    assert devices[:2] == [("cuda", float32, False), ("cpu", float64, False)]
    assert devices[2:] == [("cuda", float32, True), ("cuda", float64, True)]


def test_numbers_that_are_not_finite_are_wrong(monkeypatch):
    right = Case.run
    monkeypatch.setattr(Case, "run", lambda self, call: [each / 0 for each in right(self, call)])
    assert gpu_ops.numbers(CASE, CPU)["errors"]["float32, small"] == float("inf")


def test_speed():
    row = gpu_ops.speed(CASE, CPU, rounds=3, large=False)
    assert row["MB"] == pytest.approx(5 * 4 * 1537 / 1e6, rel=1e-3)
    assert row["GB/s"] == pytest.approx(row["MB"] / row["ms"], rel=1e-2)
    assert row["share of a copy's speed"] == pytest.approx(row["copy, ms"] / row["ms"], rel=1e-2)
    assert "TFLOP/s" not in row


def test_speed_of_products():
    case = CASES["recurrent_backward, lstm"]
    row = gpu_ops.speed(case, CPU, rounds=1, large=False)
    flops = case.call(torch.float32, CPU).flops
    assert row["TFLOP/s"] == pytest.approx(flops / row["ms"] / 1e9, rel=1e-2)


def test_medians_are_of_calls():
    calls = []
    assert kernel_seconds(partial(calls.append, 1), CPU, 5) > 0
    assert len(calls) == 5 + 3
    assert copy_seconds(1 << 20, CPU, 3) > 0


def test_the_cpu_is_not_asked_for_its_peak():
    calls = []
    assert peak_bytes(partial(calls.append, 1), CPU) is None
    assert calls == [1]
