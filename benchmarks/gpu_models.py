"""Times whole models on a device: ours by rule set and with CUDA graphs, PyHealth's DeepLift, and the forward pass."""

import functools
import warnings
from typing import Any

import torch
from gpu_timing import finished, peak_bytes
from model_cases import Case, first_batch, make_model
from model_results import FORWARD, GRAPHS, PYHEALTH, rounded
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from timing import Call, medians_in_turn, seconds
from torch import Tensor

from deeplift_fast import DeepLift

ROUNDS = 7


def measured(case: Case, dataset: Any, device: torch.device, rounds: int = ROUNDS) -> dict:
    """Medians of calls in turn, times of first calls, peak memory, and distances from float64 on the CPU."""
    model = make_model(case, dataset).to(device)
    on_cpu = first_batch(dataset, case.batch_size)
    batch = {name: _on(device, value) for name, value in on_cpu.items()}
    calls, first, memory = {}, {}, {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, call in _competitors(case, model, batch).items():
            calls[name] = finished(call, device)
            first[name], memory[name] = _first_calls(calls[name], device)
        medians = medians_in_turn(calls, rounds)
    return {
        "batch_size": case.batch_size,
        "ms": {name: rounded(1e3 * median) for name, median in medians.items()},
        "first_ms": {name: rounded(1e3 * time) for name, time in first.items()},
        "peak_MB": {name: rounded(peak / 1e6) for name, peak in memory.items() if peak is not None},
        "distance": {rules: rounded(_distance(case, dataset, model, batch, on_cpu, rules)) for rules in case.goals},
        "against": case.against,
        "warnings": sorted({str(warning.message) for warning in caught if "graph" in str(warning.message)}),
        "rounds": rounds,
    }


def _first_calls(call: Call, device: torch.device) -> tuple[float, int | None]:
    """Seconds of a first call, and the peak memory of it and a second one, which includes a CUDA graph."""
    times: list[float] = []

    def twice() -> None:
        times.append(seconds(call))
        call()

    peak = peak_bytes(twice, device)
    return times[0], peak


def _competitors(case: Case, model: Any, batch: dict[str, Any]) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for rules in case.goals:
        calls[rules] = functools.partial(DeepLift(model, rules=rules).attribute, **batch)
        if next(model.parameters()).is_cuda:
            graphed = DeepLift(model, rules=rules, cuda_graphs=True)
            calls[rules + GRAPHS] = functools.partial(graphed.attribute, **batch)
    if case.against == PYHEALTH:
        calls[PYHEALTH] = functools.partial(PyHealthDeepLift(model).attribute, **batch)
    calls[FORWARD] = torch.no_grad()(functools.partial(model, **batch))
    return calls


def _distance(case: Case, dataset: Any, model: Any, batch: dict, on_cpu: dict, rules: str) -> float:
    """The largest relative L2 distance of a sample's contributions from float64 on the CPU."""
    exact = make_model(case, dataset).double()
    wide = {name: _on(torch.device("cpu"), value, torch.float64) for name, value in on_cpu.items()}
    found, expected = DeepLift(model, rules=rules).attribute(**batch), DeepLift(exact, rules=rules).attribute(**wide)
    rows = [torch.cat([each.cpu().double().flatten(1) for each in by.values()], 1) for by in (found, expected)]
    return float(((rows[0] - rows[1]).norm(dim=1) / rows[1].norm(dim=1).clamp(min=1e-30)).max())


def _on(device: torch.device, value: Any, dtype: torch.dtype | None = None) -> Any:
    """A value of a batch on the device, with floating-point numbers in the dtype."""
    if isinstance(value, tuple | list):
        return type(value)(_on(device, part, dtype) for part in value)
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype if dtype and value.is_floating_point() else value.dtype)
