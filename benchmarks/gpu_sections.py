"""The sections of `gpu.py`, in the order of their worth: the name and the measurement of each case."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import gpu_graphs
import gpu_ops
import gpu_races
import gpu_steps
import gpu_warm_up
import torch
from gpu_budget import Budget, NotRun
from gpu_cases import CASES

Measurement = Callable[[], dict]
Cases = Iterator[tuple[str, Measurement]]


@dataclass(frozen=True)
class Run:
    """What a run measures with.

    Attributes:
        device: the device.
        matching: only cases whose names hold this text.
        budget: the time that is left.
    """

    device: torch.device
    matching: str
    budget: Budget


def compiles(run: Run) -> Cases:
    yield "first calls", lambda: gpu_warm_up.warm_up(run.device, run.matching, run.budget.at_most(gpu_warm_up.LONGEST))


def numbers(run: Run) -> Cases:
    for name, case in CASES.items():
        yield name, partial(gpu_ops.numbers, case, run.device)


def graphs(run: Run) -> Cases:
    for name, case in CASES.items():
        yield name, partial(gpu_graphs.checked, case, run.device)
    yield "pinned memory in another thread", partial(gpu_graphs.pinned, run.device)
    if torch.cuda.device_count() > 1:
        yield "the second device", gpu_graphs.second_device


def graphs_of_models(run: Run) -> Cases:
    import gpu_batches
    import gpu_model_graphs

    for name, case in gpu_batches.CASES.items():
        yield name, partial(gpu_model_graphs.checked, case, run.device)


def speed(run: Run) -> Cases:
    """Ops that the bandwidth bounds come first."""
    for name, case in sorted(CASES.items(), key=lambda item: item[1].op not in gpu_ops.ELEMENTWISE):
        yield name, partial(gpu_ops.speed, case, run.device)


def steps(run: Run) -> Cases:
    for name in gpu_steps.STEPS:
        yield name, partial(gpu_steps.speed, name, run.device)


def models(run: Run) -> Cases:
    import gpu_batches
    import gpu_models

    for name, case in gpu_batches.CASES.items():
        for size in gpu_batches.SIZES:
            yield f"{name}, batch {size}", partial(gpu_models.measured, case, size, run.device)


def models_compiled(run: Run) -> Cases:
    import gpu_batches
    import gpu_models

    for name, case in gpu_batches.CASES.items():
        for size in gpu_batches.SIZES:
            yield f"{name}, batch {size}, torch.compile", partial(gpu_models.compiled, case, size, run.device)


def memory(run: Run) -> Cases:
    import gpu_batches
    import gpu_models

    for name, case in gpu_batches.CASES.items():
        for size in gpu_batches.SIZES:
            yield f"{name}, batch {size}", partial(gpu_models.memory, case, size, run.device)


def races(run: Run) -> Cases:
    program = gpu_races.tool()
    if program is None:
        raise NotRun(gpu_races.MISSING)
    for name in gpu_races.WATCHED:
        yield name, lambda name=name: gpu_races.checked(program, name, run.device, run.budget.left())


@dataclass(frozen=True)
class Part:
    """Cases of a section.

    Attributes:
        section: the name of their table.
        cases: gives them.
        seconds: the longest that one may take; none begins with less time left.
    """

    section: str
    cases: Callable[[Run], Cases]
    seconds: float


# In the order of their worth; `torch.compile` may take two minutes for one model.
PARTS = (
    Part("compiles", compiles, 10),
    Part("numbers", numbers, 5),
    Part("graphs", graphs, 5),
    Part("graphs", graphs_of_models, 20),
    Part("speed", speed, 5),
    Part("steps", steps, 5),
    Part("models", models, 20),
    Part("memory", memory, 10),
    Part("models", models_compiled, 120),
    Part("races", races, 20),
)
SECTIONS = tuple(dict.fromkeys(part.section for part in PARTS))
