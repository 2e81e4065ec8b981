"""One step of recurrent layers at PyHealth's sizes: the cases, and their time inside a CUDA graph.

All samples share one baseline, as codes do under `"removed"`. The time of a step is the difference between calls of
:data:`LONG` and :data:`SHORT` steps, divided by their number. It includes the product of one input and the time.
"""

from functools import partial

import gpu_estimate
import torch
from gpu_calls import Call, Maker
from gpu_cases import Case
from gpu_timing import kernel_seconds
from model_results import rounded

from deeplift_fast.ops.cells import COEFFICIENTS, GATES
from deeplift_fast.pyhealth.fused.recurrent import Packed, pack

SHORT, LONG = 4, 12
BATCHES = (128, 1024, 4096)
UNITS = {"stagenet": 384, "lstm": 128, "gru": 128}
LEVELS = 3
ROUNDS = 10


def _weights(make: Maker, cell: str) -> Packed:
    units, levels = UNITS[cell], LEVELS if cell == "stagenet" else 0
    gates, from_input, from_state = GATES[cell]
    scale = units**-0.5
    of_input = make.normal(from_input, units, 2, scale=scale)
    of_state, bias = make.normal(from_state, units, units, scale=scale), make.normal(gates, units)
    masters = None
    if levels:
        kinds = 2 * levels
        masters = make.normal(kinds, 2), make.normal(kinds, units, scale=scale), make.normal(kinds)
    return pack(cell, (of_input, of_state, bias), 1, masters, levels)


def _repeated(make: Maker, rows: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """One row of normal numbers, `rows` times."""
    return make.normal(1, *shape, scale=scale).expand(rows, *shape).contiguous()


def recurrent(make: Maker, cell: str, batch: int, steps: int = LONG) -> Call:
    """A call of `recurrent` under `"complete"`; all samples have `steps` steps and one baseline."""
    weights, rows = _weights(make, cell), batch * steps
    u, u0 = make.normal(rows, 2), make.normal(steps, 2)
    where = torch.zeros(batch, dtype=torch.int64, device=make.device)
    counts, counts0 = torch.full((steps,), batch), torch.ones(steps, dtype=torch.int64)
    k = torch.empty(rows, COEFFICIENTS[cell], weights.units, dtype=make.dtype, device=make.device)
    return Call((u, u0, where, counts, counts0, *weights.forward, k, weights.levels, cell, "secant", 0.5))


def recurrent_backward(make: Maker, cell: str, batch: int, steps: int = LONG) -> Call:
    """A call of `recurrent_backward`."""
    weights, rows = _weights(make, cell), batch * steps
    k = _repeated(make, rows, COEFFICIENTS[cell], weights.units, scale=0.3)
    m_h, m_master = _repeated(make, rows, weights.units), _repeated(make, rows, weights.levels)
    shares = torch.full_like(_repeated(make, rows, 2 * weights.levels), 1 / LEVELS)
    given = (m_h, m_master, k, shares, torch.full((steps,), batch), *weights.back)
    return Call((*given, weights.levels, cell, weights.inputs))


def _lockstep(make: Maker, batch: int, steps: int) -> tuple[list[int], int, torch.Tensor]:
    """Steps, rows and weights of two layers of StageNet's cell."""
    units = UNITS["stagenet"]
    columns = -(-(4 * units + 2 * LEVELS) // 16) * 16
    return [steps, steps], 2 * steps * batch, make.normal(2, units, columns, scale=units**-0.5)


def _turns(make: Maker) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """The samples of two layers in their own order; all have every step."""
    every = torch.zeros(0, 2, dtype=torch.int64, device=make.device)
    return every, every, [0, 1]


def lockstep(make: Maker, batch: int, steps: int = LONG) -> Call:
    """A call of `lockstep` with two layers; each sample has its own baseline."""
    both, rows, weight = _lockstep(make, batch, steps)
    units, columns = weight.shape[1:]
    projected, bias = _repeated(make, 2 * rows, columns), make.normal(2, columns)
    k = torch.empty(rows, COEFFICIENTS["stagenet"], units, dtype=make.dtype, device=make.device)
    where = torch.arange(batch, device=make.device)
    return Call((projected, where, both, *_turns(make), weight, bias, k, LEVELS, "secant", 0.5))


def lockstep_backward(make: Maker, batch: int, steps: int = LONG) -> Call:
    """A call of `lockstep_backward` with two layers."""
    both, rows, weight = _lockstep(make, batch, steps)
    units = weight.shape[1]
    k, m_h = _repeated(make, rows, COEFFICIENTS["stagenet"], units, scale=0.3), _repeated(make, rows, units)
    shares = torch.full_like(_repeated(make, rows, 2 * LEVELS), 1 / LEVELS)
    return Call((m_h, _repeated(make, rows, LEVELS), k, shares, both, *_turns(make), weight, LEVELS))


def _cases() -> dict[str, Case]:
    found = {}
    for batch in BATCHES:
        for cell in UNITS:
            for op, make in (("recurrent", recurrent), ("recurrent_backward", recurrent_backward)):
                found[f"{op}, {cell}, batch {batch}"] = Case(op, cell, partial(make, cell=cell, batch=batch))
        for op, make in (("lockstep", lockstep), ("lockstep_backward", lockstep_backward)):
            found[f"{op}, two layers, batch {batch}"] = Case(op, "two layers", partial(make, batch=batch))
    return found


STEPS = _cases()


def speed(name: str, device: torch.device, rounds: int = ROUNDS) -> dict:
    """Microseconds of a step of the case, and those on paper for StageNet's cell."""
    case = STEPS[name]
    seconds = [_seconds(case, steps, device, rounds) for steps in (SHORT, LONG)]
    row = {"us a step": rounded(1e6 * (seconds[1] - seconds[0]) / (LONG - SHORT))}
    if case.form == "stagenet":
        batch, back = case.make.keywords["batch"], case.op.endswith("backward")
        row["us on paper"] = rounded(1e6 * gpu_estimate.tiled(batch, back))
    return row


def _seconds(case: Case, steps: int, device: torch.device, rounds: int) -> float:
    call = case.make(Maker(torch.float32, device), steps=steps)
    return kernel_seconds(lambda: case.returned(call), device, rounds)
