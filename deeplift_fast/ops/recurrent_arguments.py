"""What the ops of recurrent layers accept: the checks that their Python implementations share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from deeplift_fast.ops.requirements import LANES, require, require_dimensions, require_float, require_many

SLOPES = {
    "stagenet": ("secant", "pyhealth"),
    "lstm": ("secant", "derivative"),
    "gru": ("secant", "derivative"),
    "rnn_tanh": ("secant", "derivative"),
    "rnn_relu": ("secant", "derivative"),
}
GATES = {"stagenet": (4, 4, 4), "lstm": (4, 4, 4), "gru": (4, 3, 3), "rnn_tanh": (1, 1, 1), "rnn_relu": (1, 1, 1)}
COEFFICIENTS = {"stagenet": 8, "lstm": 6, "gru": 5, "rnn_tanh": 1, "rnn_relu": 1}


def check_recurrent(
    u: Tensor,
    u0: Tensor,
    where: Tensor,
    counts: Tensor,
    counts0: Tensor,
    weights: Sequence[Tensor],
    coefficients: Tensor,
    levels: int,
    cell: str,
    slope: str,
) -> None:
    """Raise `ValueError` or `TypeError` unless :func:`deeplift_fast.ops.recurrent` accepts the arguments.

    Numbers that lie on another device than the CPU are not looked at: the device would have to be waited for.
    """
    _require_cell("recurrent", cell, levels)
    if slope not in SLOPES[cell]:
        raise ValueError(f"recurrent: slope is {slope!r}; accepted for {cell}: {', '.join(SLOPES[cell])}")
    on_cpu = require_float("recurrent", u, "u")
    require_dimensions("recurrent", {"u": (u, 2), "u0": (u0, 2), "counts": (counts, 1), "counts0": (counts0, 1)})
    require_many("recurrent: weights", weights, 6)
    require_dimensions("recurrent: weights", {"bias": (weights[2], 3), "master_bias": (weights[5], 1)})
    _, _, bias, *masters = weights
    (panels, _, lanes), (gates, from_input, from_state) = bias.shape, GATES[cell]
    _require_lanes("recurrent", u, lanes)
    inputs, units, width = u.shape[1], panels * lanes, masters[-1].shape[-1]
    if levels and (units % levels or width < 2 * levels or (on_cpu and (panels % levels or width % lanes))):
        raise ValueError(f"recurrent: {panels} panels and {width} master columns do not fit {levels} levels")
    shapes = (
        (panels, inputs, from_input, lanes), (panels, units, from_state, lanes), (panels, gates, lanes),
        (inputs, width), (units, width), (width,),
    )  # fmt: skip
    require("recurrent: weights", weights, shapes, u.dtype, on_cpu)
    require("recurrent: coefficients", [coefficients], [(len(u), COEFFICIENTS[cell], units)], u.dtype, on_cpu)
    require("recurrent: u, u0", [u, u0], [tuple(u.shape), (u0.shape[0], inputs)], u.dtype, on_cpu)
    on_host = counts.device.type == counts0.device.type == "cpu"
    for name, each, rows in (("counts", counts, u), ("counts0", counts0, u0)) if on_host else ():
        _require_counts(f"recurrent: {name}", each, len(rows))
    _check_where(where, counts, counts0)


def _check_where(where: Tensor, counts: Tensor, counts0: Tensor) -> None:
    if counts.shape != counts0.shape:
        raise ValueError(f"recurrent: counts has {len(counts)} steps and counts0 {len(counts0)}; they must be as many")
    if not counts.device.type == counts0.device.type == "cpu":
        return
    samples = counts.tolist()[0] if len(counts) else 0
    on_cpu = where.device.type == "cpu"
    require("recurrent: where", [where], [(samples,)], torch.int64, dense=on_cpu)
    if samples and on_cpu:
        # A sample's baseline lasts as long as the sample: the largest index among a step's samples is in its rows.
        furthest = where.cummax(0).values[counts - 1]
        if bool((furthest >= counts0).any()) or int(where.min()) < 0:
            raise ValueError("recurrent: where names a baseline that is shorter than the sample")


def check_recurrent_backward(
    m_h: Tensor,
    m_master: Tensor,
    coefficients: Tensor,
    shares: Tensor,
    counts: Tensor,
    weights: Sequence[Tensor],
    levels: int,
    cell: str,
    inputs: int,
) -> None:
    """Raise unless :func:`deeplift_fast.ops.recurrent_backward` accepts the arguments, as :func:`check_recurrent`."""
    _require_cell("recurrent_backward", cell, levels)
    on_cpu = require_float("recurrent_backward", m_h, "m_h")
    require_dimensions("recurrent_backward", {"m_h": (m_h, 2), "counts": (counts, 1)})
    require_many("recurrent_backward: weights", weights, 4)
    (rows, units), (back_u, back_h) = m_h.shape, weights[:2]
    if counts.device.type == "cpu":
        _require_counts("recurrent_backward: counts", counts, rows)
    panels = back_h.shape[1] if back_h.dim() == 4 else 0
    if not panels or units % panels:
        raise ValueError(
            f"recurrent_backward: back_h has shape {tuple(back_h.shape)}; accepted: [panels of columns, panels, rows, "
            f"width], with panels that divide {units} units"
        )
    if inputs < 0 or (levels and units % levels):
        raise ValueError(
            f"recurrent_backward: m_h has shape {tuple(m_h.shape)}, levels is {levels} and inputs {inputs}; accepted: "
            "as many units for each level, and 0 or more inputs"
        )
    lanes, (_, from_input, from_state) = units // panels, GATES[cell]
    _require_lanes("recurrent_backward", m_h, lanes)
    wide_u, wide_h = back_u.shape[-1], back_h.shape[-1]
    if on_cpu and not wide_u == wide_h == 4 * lanes:
        raise ValueError(f"recurrent_backward: weights are {wide_u} and {wide_h} wide; accepted: {4 * lanes}")
    across_u, across_h = -(-inputs // wide_u), -(-units // wide_h)
    given = [m_h, m_master, coefficients, shares, *weights]
    shapes = [
        (rows, units), (rows, levels), (rows, COEFFICIENTS[cell], units), (rows, 2 * levels),
        (across_u, panels, lanes * from_input, wide_u), (across_h, panels, lanes * from_state, wide_h),
        (across_u, 2 * levels, wide_u), (across_h, 2 * levels, wide_h),
    ]  # fmt: skip
    require("recurrent_backward: m_h, m_master, coefficients, shares and weights", given, shapes, m_h.dtype, on_cpu)


def going_at(step: int, steps: Sequence[int]) -> int:
    """How many layers of :func:`deeplift_fast.ops.lockstep` have a step."""
    return sum(step < each for each in steps)


def rows_per_sample(steps: Sequence[int]) -> int:
    """Of :func:`deeplift_fast.ops.lockstep`: each layer but the last has as many rows as the first."""
    return (len(steps) - 1) * steps[0] + steps[-1]


def check_lockstep(
    projected: Tensor,
    where: Tensor,
    steps: Sequence[int],
    weight: Tensor,
    bias: Tensor,
    coefficients: Tensor,
    levels: int,
    slope: str,
) -> None:
    """Raise `ValueError` or `TypeError` unless :func:`deeplift_fast.ops.lockstep` accepts the arguments."""
    if slope not in SLOPES["stagenet"]:
        raise ValueError(f"lockstep: slope is {slope!r}; accepted: {', '.join(SLOPES['stagenet'])}")
    on_cpu = require_float("lockstep", projected, "projected")
    require_dimensions("lockstep", {"projected": (projected, 2), "where": (where, 1), "weight": (weight, 3)})
    _require_layers("lockstep", weight, steps, levels)
    (layers, units, columns), samples = weight.shape, len(where)
    rows = samples * rows_per_sample(steps)
    shapes = [(2 * rows, columns), (layers, units, columns), (layers, columns), (rows, COEFFICIENTS["stagenet"], units)]
    given = [projected, weight, bias, coefficients]
    require("lockstep: projected, weight, bias and coefficients", given, shapes, projected.dtype, on_cpu)
    require("lockstep: where", [where], [(samples,)], torch.int64, dense=on_cpu)
    if samples and on_cpu and not 0 <= int(where.min()) <= int(where.max()) < samples:
        raise ValueError(f"lockstep: where names a baseline other than 0 to {samples - 1}")


def check_lockstep_backward(
    m_h: Tensor,
    m_master: Tensor,
    coefficients: Tensor,
    shares: Tensor,
    steps: Sequence[int],
    weight: Tensor,
    levels: int,
) -> None:
    """Raise unless :func:`deeplift_fast.ops.lockstep_backward` accepts the arguments."""
    on_cpu = require_float("lockstep_backward", m_h, "m_h")
    require_dimensions("lockstep_backward", {"m_h": (m_h, 2), "weight": (weight, 3)})
    _require_layers("lockstep_backward", weight, steps, levels)
    rows, units = len(m_h), weight.shape[1]
    if rows % rows_per_sample(steps):
        raise ValueError(
            f"lockstep_backward: m_h has {rows} rows; accepted: as many for each sample, for steps {steps}"
        )
    shapes = [(rows, units), (rows, levels), (rows, COEFFICIENTS["stagenet"], units), (rows, 2 * levels)]
    given = [m_h, m_master, coefficients, shares, weight]
    names = "lockstep_backward: m_h, m_master, coefficients, shares and weight"
    require(names, given, [*shapes, tuple(weight.shape)], m_h.dtype, on_cpu)


def _require_layers(op: str, weight: Tensor, steps: Sequence[int], levels: int) -> None:
    layers, units, columns = weight.shape
    if levels < 1 or units % levels or columns < 4 * units + 2 * levels:
        raise ValueError(f"{op}: {columns} columns and {units} units do not fit {levels} levels")
    if len(steps) != layers or not layers or list(steps) != sorted(steps, reverse=True) or steps[-1] < 1:
        raise ValueError(f"{op}: steps is {list(steps)}; accepted: 1 or more of each of {layers} layers, falling")


def check_stage_window(
    h: tuple[Tensor, Tensor],
    log_p: tuple[Tensor, Tensor],
    places: tuple[Tensor, Tensor],
    rows: tuple[Tensor, Tensor],
    real: Tensor,
    levels: int,
    hidden: int,
) -> None:
    """Raise unless :func:`deeplift_fast.ops.stage_window` accepts the arguments."""
    require_float("stage_window", h[0], "h")
    _require_stages("stage_window", h, places, rows, real, levels, hidden)
    shapes = [(len(each), 2 * levels) for each in log_p]
    require("stage_window: log_p", log_p, shapes, h[0].dtype, dense=False)


def check_stage_window_backward(
    m_local: Tensor,
    m_mean: Tensor,
    m_last: Tensor,
    h: tuple[Tensor, Tensor],
    places: tuple[Tensor, Tensor],
    rows: Tensor,
    real: Tensor,
    log_stage: Tensor,
    log_p: Tensor,
    levels: int,
) -> None:
    """Raise unless :func:`deeplift_fast.ops.stage_window_backward` accepts the arguments."""
    op = "stage_window_backward"
    require_float(op, h[0], "h")
    if m_local.dim() != 3:
        raise ValueError(f"{op}: m_local has shape {tuple(m_local.shape)}; accepted: [samples, window, hidden]")
    samples, _, hidden = m_local.shape
    _require_stages(op, h, places, (rows,), real, levels, hidden)
    given, stages = (m_local, m_mean, m_last, log_stage), tuple(real.shape)
    shapes = ((*stages, hidden), (samples, hidden), (samples, hidden), (2, *stages))
    require(f"{op}: m_local, m_mean, m_last and log_stage", given, shapes, h[0].dtype, dense=False)
    require_dimensions(op, {"log_p": (log_p, 2)})
    require(f"{op}: log_p", [log_p], [(len(log_p), 2 * levels)], h[0].dtype, dense=False)


def _require_stages(
    op: str,
    h: tuple[Tensor, Tensor],
    places: tuple[Tensor, Tensor],
    rows: tuple[Tensor, ...],
    real: Tensor,
    levels: int,
    hidden: int,
) -> None:
    if real.dim() != 2 or real.dtype != torch.bool:
        raise ValueError(
            f"{op}: real has shape {tuple(real.shape)} and is {real.dtype}; accepted: bool [samples, window]"
        )
    units = h[0].shape[-1]
    if levels < 1 or units % levels or hidden % levels or hidden > units:
        raise ValueError(f"{op}: {hidden} of {units} units do not fit {levels} levels")
    require(f"{op}: h", h, [(len(each), units) for each in h], h[0].dtype, dense=False)
    index = (*places, *rows)
    require(f"{op}: places and rows", index, [tuple(real.shape)] * len(index), torch.int64, dense=False)


def _require_cell(op: str, cell: str, levels: int) -> None:
    if cell not in SLOPES:
        raise ValueError(f"{op}: cell is {cell!r}; accepted: {', '.join(SLOPES)}")
    if levels < 0 or (levels > 0) != (cell == "stagenet"):
        raise ValueError(f"{op}: levels is {levels}; accepted: 1 or more for stagenet, 0 for other cells")


def _require_lanes(op: str, tensor: Tensor, lanes: int) -> None:
    if tensor.device.type == "cpu" and lanes != LANES[tensor.dtype]:
        raise ValueError(
            f"{op}: weights have panels of {lanes} units; accepted on the CPU: {LANES[tensor.dtype]} in {tensor.dtype}"
        )


def _require_counts(what: str, counts: Tensor, rows: int) -> None:
    require(what, [counts], [tuple(counts.shape)], torch.int64)
    found = counts.tolist()
    if sum(found) != rows or found != sorted(found, reverse=True) or (found and found[-1] < 1):
        raise ValueError(f"{what} must fall from step to step, and sum to the rows ({rows})")
