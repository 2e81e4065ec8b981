"""What an op accepts: the checks that its Python implementations share."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

FUNCTIONS = ("relu", "sigmoid", "tanh")
VARIANTS = ("rescale", "pyhealth")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def computed(dtype: torch.dtype) -> torch.dtype:
    """What an op computes in: float32 for the half types."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_secant(x: Tensor, x0: Tensor, function: str, variant: str) -> None:
    """Raise `ValueError` or `TypeError` unless :func:`deeplift_fast.ops.secant` accepts the arguments."""
    if function not in FUNCTIONS:
        raise ValueError(f"secant: function is {function!r}; accepted: {', '.join(FUNCTIONS)}")
    if variant not in VARIANTS:
        raise ValueError(f"secant: variant is {variant!r}; accepted: {', '.join(VARIANTS)}")
    _require_alike("secant", x, x0, ("x", "x0"))


def check_log_mean_softmax(z: Tensor, z0: Tensor, dim: int, names: tuple[str, str]) -> None:
    """Raise unless :func:`deeplift_fast.ops.log_mean_softmax` accepts the arguments, or its backward with its names."""
    _require_alike("log_mean_softmax", z, z0, names)
    if not -max(z.dim(), 1) <= dim < max(z.dim(), 1):
        raise IndexError(f"log_mean_softmax: dim is {dim}; {names[0]} has {z.dim()} dimensions")


def _require_alike(op: str, x: Tensor, x0: Tensor, names: tuple[str, str]) -> None:
    """Two tensors of one shape, dtype and device."""
    name, name0 = names
    for each, value in ((name, x), (name0, x0)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{op}: {each} is a {type(value).__name__}; accepted: a tensor")
    if x.shape != x0.shape:
        raise ValueError(
            f"{op}: {name} has shape {tuple(x.shape)} and {name0} {tuple(x0.shape)}; they must be equal "
            "(nothing is broadcast: expand the smaller one first)"
        )
    if x.dtype != x0.dtype:
        raise TypeError(f"{op}: {name} is {x.dtype} and {name0} {x0.dtype}; convert one to the other's dtype")
    if x.dtype not in DTYPES:
        raise TypeError(f"{op}: {name} is {x.dtype}; accepted: {', '.join(str(d) for d in DTYPES)}")
    if x.device != x0.device:
        raise ValueError(f"{op}: {name} is on {x.device} and {name0} on {x0.device}; move one to the other's device")


SLOPES = {
    "stagenet": ("secant", "pyhealth"),
    "lstm": ("secant", "derivative"),
    "gru": ("secant", "derivative"),
    "rnn_tanh": ("secant", "derivative"),
    "rnn_relu": ("secant", "derivative"),
}
GATES = {"stagenet": (4, 4, 4), "lstm": (4, 4, 4), "gru": (4, 3, 3), "rnn_tanh": (1, 1, 1), "rnn_relu": (1, 1, 1)}
LANES = {torch.float32: 16, torch.float64: 8}  # units of a panel that the CPU's kernels want
SAMPLES_AT_ONCE = 1024  # whose sums a program of `convergence` on CUDA takes
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
    on_cpu = _require_float("recurrent", u, "u")
    _require_dimensions("recurrent", {"u": (u, 2), "u0": (u0, 2), "counts": (counts, 1), "counts0": (counts0, 1)})
    _require_many("recurrent: weights", weights, 6)
    _require_dimensions("recurrent: weights", {"bias": (weights[2], 3), "master_bias": (weights[5], 1)})
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
    _require("recurrent: weights", weights, shapes, u.dtype, on_cpu)
    _require("recurrent: coefficients", [coefficients], [(len(u), COEFFICIENTS[cell], units)], u.dtype, on_cpu)
    _require("recurrent: u, u0", [u, u0], [tuple(u.shape), (u0.shape[0], inputs)], u.dtype, on_cpu)
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
    _require("recurrent: where", [where], [(samples,)], torch.int64, dense=on_cpu)
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
    on_cpu = _require_float("recurrent_backward", m_h, "m_h")
    _require_dimensions("recurrent_backward", {"m_h": (m_h, 2), "counts": (counts, 1)})
    _require_many("recurrent_backward: weights", weights, 4)
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
    _require("recurrent_backward: m_h, m_master, coefficients, shares and weights", given, shapes, m_h.dtype, on_cpu)


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
    on_cpu = _require_float("lockstep", projected, "projected")
    _require_dimensions("lockstep", {"projected": (projected, 2), "where": (where, 1), "weight": (weight, 3)})
    _require_layers("lockstep", weight, steps, levels)
    (layers, units, columns), samples = weight.shape, len(where)
    rows = samples * rows_per_sample(steps)
    shapes = [(2 * rows, columns), (layers, units, columns), (layers, columns), (rows, COEFFICIENTS["stagenet"], units)]
    given = [projected, weight, bias, coefficients]
    _require("lockstep: projected, weight, bias and coefficients", given, shapes, projected.dtype, on_cpu)
    _require("lockstep: where", [where], [(samples,)], torch.int64, dense=on_cpu)
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
    on_cpu = _require_float("lockstep_backward", m_h, "m_h")
    _require_dimensions("lockstep_backward", {"m_h": (m_h, 2), "weight": (weight, 3)})
    _require_layers("lockstep_backward", weight, steps, levels)
    rows, units = len(m_h), weight.shape[1]
    if rows % rows_per_sample(steps):
        raise ValueError(
            f"lockstep_backward: m_h has {rows} rows; accepted: as many for each sample, for steps {steps}"
        )
    shapes = [(rows, units), (rows, levels), (rows, COEFFICIENTS["stagenet"], units), (rows, 2 * levels)]
    given = [m_h, m_master, coefficients, shares, weight]
    names = "lockstep_backward: m_h, m_master, coefficients, shares and weight"
    _require(names, given, [*shapes, tuple(weight.shape)], m_h.dtype, on_cpu)


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
    _require_float("stage_window", h[0], "h")
    _require_stages("stage_window", h, places, rows, real, levels, hidden)
    shapes = [(len(each), 2 * levels) for each in log_p]
    _require("stage_window: log_p", log_p, shapes, h[0].dtype, dense=False)


def check_stage_window_backward(
    m_local: Tensor,
    m_mean: Tensor,
    m_last: Tensor,
    h: tuple[Tensor, Tensor],
    places: tuple[Tensor, Tensor],
    rows: Tensor,
    real: Tensor,
    log_stage: Tensor,
    levels: int,
) -> None:
    """Raise unless :func:`deeplift_fast.ops.stage_window_backward` accepts the arguments."""
    op = "stage_window_backward"
    _require_float(op, h[0], "h")
    if m_local.dim() != 3:
        raise ValueError(f"{op}: m_local has shape {tuple(m_local.shape)}; accepted: [samples, window, hidden]")
    samples, _, hidden = m_local.shape
    _require_stages(op, h, places, (rows,), real, levels, hidden)
    given, stages = (m_local, m_mean, m_last, log_stage), tuple(real.shape)
    shapes = ((*stages, hidden), (samples, hidden), (samples, hidden), (2, *stages))
    _require(f"{op}: m_local, m_mean, m_last and log_stage", given, shapes, h[0].dtype, dense=False)


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
    _require(f"{op}: h", h, [(len(each), units) for each in h], h[0].dtype, dense=False)
    index = (*places, *rows)
    _require(f"{op}: places and rows", index, [tuple(real.shape)] * len(index), torch.int64, dense=False)


def check_attention(
    asked: Tensor,
    rows: Tensor,
    index: Tensor,
    starts: Tensor,
    queries: Tensor,
    looks: Tensor,
    seen: Tensor,
    pairs: int,
) -> None:
    """Raise unless :func:`deeplift_fast.ops.attention` accepts the arguments."""
    _require_float("attention", asked, "asked")
    _require_dimensions("attention", {"asked": (asked, 3), "rows": (rows, 2), "starts": (starts, 1), "seen": (seen, 1)})
    _require("attention: asked", [asked], [tuple(asked.shape)], asked.dtype, beside=asked)
    _require("attention: rows", [rows], [(len(rows), asked.shape[2])], asked.dtype, beside=asked)
    _require("attention: index", [index], [(len(seen),)], torch.int64, beside=asked)
    _require("attention: looks, seen", [looks, seen], [(asked.shape[1],), (len(seen),)], torch.bool, beside=asked)
    _require("attention: starts, queries", [starts, queries], [tuple(starts.shape)] * 2, torch.int64, beside=asked)
    if pairs < 0:
        raise ValueError(f"attention: pairs is {pairs}; accepted: the sum of the samples' rows · queries")


def check_attention_backward(
    m: Tensor,
    asked: tuple[Tensor, Tensor],
    rows: tuple[Tensor, Tensor],
    index: tuple[Tensor, Tensor],
    starts: tuple[Tensor, Tensor],
    queries: tuple[Tensor, Tensor],
    where: Tensor,
    looks: Tensor,
    log_p: tuple[Tensor, Tensor],
) -> None:
    """Raise unless :func:`deeplift_fast.ops.attention_backward` accepts the arguments."""
    _require_float("attention_backward", m, "m")
    _require_dimensions("attention_backward", {"m": (m, 3)})
    names = ("asked", "rows", "index", "starts", "queries")
    for name, pair in zip(names, (asked, rows, index, starts, queries), strict=True):
        _require_many(f"attention_backward: {name}", pair, 2)
        dimensions = {"asked": 3, "rows": 2}.get(name, 1)
        _require_dimensions("attention_backward", {name: (pair[0], dimensions), f"{name}0": (pair[1], dimensions)})
        sizes = {"asked": (len(m), -1, m.shape[2]), "rows": (-1, m.shape[2])}.get(name, (-1,))
        shapes = [tuple(n if n >= 0 else own for n, own in zip(sizes, each.shape, strict=True)) for each in pair]
        dtype = m.dtype if name in ("asked", "rows") else torch.int64
        _require(f"attention_backward: {name}", pair, shapes, dtype, beside=m)
    _require_many("attention_backward: log_p", log_p, 2)
    _require_dimensions("attention_backward", {"log_p": (log_p[0], 1), "log_p0": (log_p[1], 1)})
    _require("attention_backward: m", [m], [tuple(asked[0].shape)], m.dtype, beside=m)
    _require("attention_backward: looks", [looks], [(m.shape[1],)], torch.bool, beside=m)
    _require("attention_backward: where", [where], [(len(starts[0]) - 1,)], torch.int64, beside=m)
    _require("attention_backward: log_p", log_p, [(each.numel(),) for each in log_p], computed(m.dtype), beside=m)


def check_gelu(x: Tensor, x0: Tensor, where: Tensor) -> None:
    """Raise unless :func:`deeplift_fast.ops.gelu` accepts the arguments."""
    _require_float("gelu", x, "x")
    _require_dimensions("gelu", {"x": (x, 2), "x0": (x0, 2)})
    _require("gelu: x, x0", [x, x0], [tuple(x.shape), (len(x0), x.shape[1])], x.dtype, beside=x)
    _require("gelu: where", [where], [(len(x),)], torch.int64, beside=x)


def check_layer_norm_backward(
    m: Tensor,
    x: Tensor,
    x0: Tensor,
    where: Tensor,
    averages: tuple[Tensor, Tensor],
    scales: tuple[Tensor, Tensor],
    weight: Tensor,
) -> None:
    """Raise unless :func:`deeplift_fast.ops.layer_norm_backward` accepts the arguments."""
    _require_float("layer_norm_backward", x, "x")
    _require_dimensions("layer_norm_backward", {"x": (x, 2), "x0": (x0, 2)})
    _require_many("layer_norm_backward: averages", averages, 2)
    _require_many("layer_norm_backward: scales", scales, 2)
    (rows, size), rows0 = x.shape, len(x0)
    _require(
        "layer_norm_backward",
        [m, x, x0, weight],
        [(rows, size), (rows, size), (rows0, size), (size,)],
        x.dtype,
        beside=x,
    )
    shapes = [(rows, 1), (rows0, 1)] * 2
    _require("layer_norm_backward: averages, scales", [*averages, *scales], shapes, computed(x.dtype), beside=x)
    _require("layer_norm_backward: where", [where], [(rows,)], torch.int64, beside=x)


def check_token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> None:
    """Raise unless :func:`deeplift_fast.ops.token_contributions` accepts the arguments."""
    _require_float("token_contributions", weight, "weight")
    _require_dimensions("token_contributions", {"weight": (weight, 2), "tokens": (tokens, 2)})
    shape = tuple(tokens.shape)
    _require("token_contributions: tokens, baseline", [tokens, baseline], [shape, shape], torch.int64, beside=weight)
    given = [weight, multipliers]
    shapes = [tuple(weight.shape), (len(tokens), weight.shape[1])]
    _require("token_contributions: weight, multipliers", given, shapes, weight.dtype, beside=weight)


def check_gated_sum(a: Tensor, b: Tensor, c: Tensor, variant: str) -> None:
    """Raise unless :func:`deeplift_fast.ops.gated_sum` accepts the arguments."""
    if variant not in VARIANTS:
        raise ValueError(f"gated_sum: variant is {variant!r}; accepted: {', '.join(VARIANTS)}")
    for name, each in (("b", b), ("c", c)):
        _require_alike("gated_sum", a, each, ("a", name))
    if a.dim() == 0 or len(a) != 2:
        raise ValueError(f"gated_sum: a has shape {tuple(a.shape)}; accepted: [2, …], the input and the baseline")


def check_convergence(totals: Tensor, output: Tensor, output0: Tensor) -> None:
    """Raise unless :func:`deeplift_fast.ops.convergence` accepts the arguments."""
    _require_float("convergence", output, "output")
    _require_alike("convergence", output, output0, ("output", "output0"))
    _require_dimensions("convergence", {"totals": (totals, 2), "output": (output, 1)})
    shape = (max(len(totals), 1), len(output))
    _require("convergence: totals", [totals], [shape], torch.float64, beside=output)


def _require_cell(op: str, cell: str, levels: int) -> None:
    if cell not in SLOPES:
        raise ValueError(f"{op}: cell is {cell!r}; accepted: {', '.join(SLOPES)}")
    if levels < 0 or (levels > 0) != (cell == "stagenet"):
        raise ValueError(f"{op}: levels is {levels}; accepted: 1 or more for stagenet, 0 for other cells")


def _require_float(op: str, tensor: Tensor, name: str) -> bool:
    """Whether the device wants what is contiguous: the CPU; another one copies, and takes the half types too."""
    _require_tensor(f"{op}: {name}", tensor)
    on_cpu = tensor.device.type == "cpu"
    accepted = tuple(LANES) if on_cpu else DTYPES
    if tensor.dtype not in accepted:
        raise TypeError(f"{op}: {name} is {tensor.dtype}; accepted: {', '.join(map(str, accepted))}")
    return on_cpu


def _require_lanes(op: str, tensor: Tensor, lanes: int) -> None:
    if tensor.device.type == "cpu" and lanes != LANES[tensor.dtype]:
        raise ValueError(
            f"{op}: weights have panels of {lanes} units; accepted on the CPU: {LANES[tensor.dtype]} in {tensor.dtype}"
        )


def _require_tensor(what: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} is a {type(value).__name__}; accepted: a tensor")


def _require_many(what: str, tensors: Sequence[Tensor], count: int) -> None:
    if len(tensors) != count:
        raise ValueError(f"{what} holds {len(tensors)} tensors; accepted: {count}")


def _require_dimensions(op: str, tensors: Mapping[str, tuple[Tensor, int]]) -> None:
    for name, (tensor, dimensions) in tensors.items():
        _require_tensor(f"{op}: {name}", tensor)
        if tensor.dim() != dimensions:
            raise ValueError(f"{op}: {name} has shape {tuple(tensor.shape)}; accepted: {dimensions} dimension(s)")


def _require_counts(what: str, counts: Tensor, rows: int) -> None:
    _require(what, [counts], [tuple(counts.shape)], torch.int64)
    found = counts.tolist()
    if sum(found) != rows or found != sorted(found, reverse=True) or (found and found[-1] < 1):
        raise ValueError(f"{what} must fall from step to step, and sum to the rows ({rows})")


def _require(
    what: str,
    tensors: Sequence[Tensor],
    shapes: Sequence[tuple[int, ...]],
    dtype: torch.dtype,
    dense: bool = True,
    beside: Tensor | None = None,
) -> None:
    """Of these shapes and dtype, and contiguous; or on the device of `beside`, and contiguous if that is the CPU."""
    for tensor, shape in zip(tensors, shapes, strict=True):
        if not isinstance(tensor, Tensor):
            _require_tensor(f"{what}: one", tensor)
        if tensor.shape != shape:
            raise ValueError(f"{what}: a tensor has shape {tuple(tensor.shape)}; accepted: {shape}")
        if tensor.dtype != dtype:
            raise TypeError(f"{what}: a tensor is {tensor.dtype}; accepted: {dtype}")
        if beside is not None and tensor.device != beside.device:
            raise ValueError(
                f"{what}: a tensor is on {tensor.device}; move it to {beside.device}, where the others are"
            )
        if (dense if beside is None else tensor.device.type == "cpu") and not tensor.is_contiguous():
            raise ValueError(f"{what}: a tensor of shape {shape} is not contiguous")


def require_within(what: str, index: Tensor, size: int) -> None:
    """Raise `IndexError` unless every number of `index` is one of 0 to `size − 1`; indexing itself takes −1."""
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise IndexError(f"{what} holds numbers outside 0 to {size - 1}")


def require_ends(what: str, ends: Tensor, total: int) -> None:
    """Raise `ValueError` unless `ends` rises from 0 to `total`."""
    found = ends.tolist()
    if not found or found[0] != 0 or found[-1] != total or found != sorted(found):
        raise ValueError(f"{what} must rise from 0 to {total}")
