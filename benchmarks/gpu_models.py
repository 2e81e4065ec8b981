"""Times whole models on a device: ours by rule set and with CUDA graphs, PyHealth's DeepLift, the forward pass, and
plain torch under `torch.compile`. Measures their peak memory. Needs PyHealth.
"""

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import gpu_batches
import torch
from gpu_batches import on
from gpu_compiled import compiled_rules
from gpu_timing import finished, peak_bytes
from model_cases import Case, make_model
from model_results import COMPILED, FORWARD, GRAPHS, PYHEALTH, rounded
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from timing import Call, medians_in_turn, seconds

from deeplift_fast import DeepLift

RULES = ("rescale", "complete")
COMPARED = 128  # the batch whose numbers are compared with float64 on the CPU, which takes seconds
# Rounds by the slowest call's seconds.
MANY, SOME, FEW = (7, 0.1), (5, 0.5), 3


def measured(case: Case, size: int, device: torch.device, drawn: int = gpu_batches.DRAWN) -> dict:
    """Medians of calls in turn, times of first calls, and distances from float64 on the CPU."""
    model, on_cpu = _model(case, device, drawn), gpu_batches.batch_of(case, size, drawn)
    batch = on(device, on_cpu)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        calls = {name: finished(call, device) for name, call in competitors(case, model, batch).items()}
        row = _timed(calls, size)
        if size <= COMPARED:
            distances = {rules: _distance(case, model, batch, on_cpu, rules, drawn) for rules in RULES}
            row["distance"] = {rules: rounded(distance) for rules, distance in distances.items()}
    row["warnings"] += sorted({str(warning.message) for warning in caught if "graph" in str(warning.message)})
    return row


def compiled(case: Case, size: int, device: torch.device, drawn: int = gpu_batches.DRAWN, **options: Any) -> dict:
    """Medians and the first call of plain torch under `torch.compile`.

    Args:
        case: the model.
        size: the batch's.
        device: the device.
        drawn: patients.
        **options: those of `compiled_rules`.
    """
    model, batch = _model(case, device, drawn), on(device, gpu_batches.batch_of(case, size, drawn))
    with warnings.catch_warnings(), compiled_rules(**options):
        warnings.simplefilter("ignore")
        call = functools.partial(DeepLift(model, rules="complete").attribute, **batch)
        return _timed({COMPILED: finished(call, device)}, size)


def memory(case: Case, size: int, device: torch.device, drawn: int = gpu_batches.DRAWN) -> dict:
    """The peak memory of a first and a second call in MB, above that of model and batch; the second has a graph."""
    model, batch = _model(case, device, drawn), on(device, gpu_batches.batch_of(case, size, drawn))
    peaks, without = {}, list[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, call in competitors(case, model, batch).items():
            with _out_of_memory(name, without):
                peaks[name] = peak_bytes(functools.partial(_twice, call), device)
    found = {name: rounded(peak / 1e6) for name, peak in peaks.items() if peak is not None}
    return {"peak_MB": found, "warnings": without}


def competitors(case: Case, model: Any, batch: dict[str, Any]) -> dict[str, Call]:
    """All calls by name, but for plain torch under `torch.compile`."""
    calls: dict[str, Call] = {}
    for rules in RULES:
        calls[rules] = functools.partial(DeepLift(model, rules=rules).attribute, **batch)
        if next(model.parameters()).is_cuda:
            graphed = DeepLift(model, rules=rules, cuda_graphs=True)
            calls[rules + GRAPHS] = functools.partial(graphed.attribute, **batch)
    if case.against == PYHEALTH:
        calls[PYHEALTH] = functools.partial(PyHealthDeepLift(model).attribute, **batch)
    calls[FORWARD] = torch.no_grad()(functools.partial(model, **batch))
    return calls


def _model(case: Case, device: torch.device, drawn: int) -> Any:
    return make_model(case, gpu_batches.dataset(case.data, drawn)).to(device)


def _twice(call: Call) -> None:
    call()
    call()


@contextlib.contextmanager
def _out_of_memory(name: str, without: list[str]) -> Iterator[None]:
    """Notes a competitor that the device is too small for; the others are measured."""
    try:
        yield
    except torch.OutOfMemoryError:
        without.append(f"{name}: out of memory")
        torch.cuda.empty_cache()


def _timed(calls: dict[str, Call], size: int) -> dict:
    first, second, without = {}, {}, list[str]()
    for name, call in calls.items():
        with _out_of_memory(name, without):
            first[name], second[name] = seconds(call), seconds(call)
    slowest = max(second.values(), default=0.0)
    rounds = next((rounds for rounds, longest in (MANY, SOME) if slowest < longest), FEW)
    medians = medians_in_turn({name: calls[name] for name in first}, rounds)
    return {
        "batch_size": size,
        "ms": {name: rounded(1e3 * median) for name, median in medians.items()},
        "first_ms": {name: rounded(1e3 * time) for name, time in first.items()},
        "rounds": rounds,
        "warnings": without,
    }


def _distance(case: Case, model: Any, batch: dict, on_cpu: dict, rules: str, drawn: int) -> float:
    """The largest relative L2 distance of a sample's contributions from float64 on the CPU."""
    cpu = torch.device("cpu")
    exact, wide = _model(case, cpu, drawn).double(), on(cpu, on_cpu, torch.float64)
    found, expected = DeepLift(model, rules=rules).attribute(**batch), DeepLift(exact, rules=rules).attribute(**wide)
    rows = [torch.cat([each.cpu().double().flatten(1) for each in by.values()], 1) for by in (found, expected)]
    return float(((rows[0] - rows[1]).norm(dim=1) / rows[1].norm(dim=1).clamp(min=1e-30)).max())
