"""Checks of numbers: those that set a size or an index, and the sizes of cells.

`VALUES` has one check for each op that needs one. It gets the sizes from `checks.check`, then the op's arguments, and
raises `ValueError`, or `IndexError` for a dimension. Tensors on other devices than the CPU are not checked, since a
check would wait for the device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from deeplift_fast.ops.cells import COEFFICIENTS, GATES, LANES, MOST_LAYERS, SLOPES, rows_per_sample

Sizes = Mapping[str, Any]


def require_within(what: str, index: Tensor, size: int) -> None:
    """Raise `IndexError` unless every number of `index` is within 0 to `size − 1`; PyTorch would accept −1."""
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise IndexError(f"{what} holds numbers outside 0 to {size - 1}")


def require_ends(what: str, ends: Tensor, total: int) -> None:
    """Raise `ValueError` unless `ends` rises from 0 to `total`."""
    found = ends.tolist()
    if not found or found[0] != 0 or found[-1] != total or found != sorted(found):
        raise ValueError(f"{what} must rise from 0 to {total}")


def _recurrent(sizes: Sizes, u: Tensor, u0: Tensor, where: Tensor, counts: Tensor, counts0: Tensor, *rest: Any) -> None:
    levels, cell, slope, _ = rest[-4:]
    _require_levels("recurrent", levels, cell)
    if slope not in SLOPES[cell]:
        raise ValueError(f"recurrent: slope is {slope!r}; accepted for {cell}: {', '.join(SLOPES[cell])}")
    panels, lanes, width, on_cpu = sizes["panels"], sizes["lanes"], sizes["width"], u.is_cpu
    _require_lanes("recurrent", u, lanes)
    if levels and (panels * lanes % levels or width < 2 * levels or (on_cpu and (panels % levels or width % lanes))):
        raise ValueError(f"recurrent: {panels} panels and {width} master columns do not fit {levels} levels")
    gates = tuple(sizes[name] for name in ("gates", "from_input", "from_state"))
    _require_cell("recurrent", cell, gates, GATES[cell], sizes["kept"])
    if counts.is_cpu and counts0.is_cpu:
        _require_counts("recurrent: counts", counts, sizes["rows"])
        _require_counts("recurrent: counts0", counts0, sizes["rows0"])
        _require_baselines(where, counts, counts0)


def _require_baselines(where: Tensor, counts: Tensor, counts0: Tensor) -> None:
    samples = counts.tolist()[0] if len(counts) else 0
    if len(where) != samples:
        raise ValueError(
            f"recurrent: where has shape {tuple(where.shape)}; accepted: ({samples},), the samples at the first step"
        )
    if samples and where.is_cpu:
        # A sample's baseline is at least as long: at each step, all samples name one of the step's baselines.
        furthest = where.cummax(0).values[counts - 1]
        if bool((furthest >= counts0).any()) or int(where.min()) < 0:
            raise ValueError("recurrent: where names a baseline that is shorter than the sample")


def _recurrent_backward(sizes: Sizes, m_h: Tensor, *rest: Any) -> None:
    op, counts, (levels, cell, inputs) = "recurrent_backward", rest[3], rest[-3:]
    _require_levels(op, levels, cell)
    units, panels, wide_u, wide_h = (sizes[name] for name in ("units", "panels", "wide_u", "wide_h"))
    if not panels or units % panels or inputs < 0 or (levels and units % levels):
        raise ValueError(
            f"{op}: {units} units have {panels} panels, levels is {levels} and inputs is {inputs}; accepted: panels "
            "and levels that divide the units, and 0 or more inputs"
        )
    lanes, (_, from_input, from_state) = units // panels, GATES[cell]
    _require_lanes(op, m_h, lanes)
    if m_h.is_cpu and not wide_u == wide_h == 4 * lanes:
        raise ValueError(f"{op}: weights are {wide_u} and {wide_h} wide; accepted: {4 * lanes}")
    given = sizes["from_u"], sizes["from_h"]
    _require_cell(op, cell, given, (lanes * from_input, lanes * from_state), sizes["kept"])
    if counts.is_cpu:
        _require_counts(f"{op}: counts", counts, sizes["rows"])


def _require_levels(op: str, levels: int, cell: str) -> None:
    if levels < 0 or (levels > 0) != (cell == "stagenet"):
        raise ValueError(f"{op}: levels is {levels}; accepted: 1 or more for stagenet, 0 for other cells")


def _require_lanes(op: str, tensor: Tensor, lanes: int) -> None:
    if tensor.is_cpu and lanes != LANES[tensor.dtype]:
        raise ValueError(
            f"{op}: weights have panels of {lanes} units; accepted on the CPU: {LANES[tensor.dtype]} for {tensor.dtype}"
        )


def _require_cell(op: str, cell: str, gates: tuple[int, ...], accepted: tuple[int, ...], kept: int) -> None:
    if gates != accepted:
        raise ValueError(f"{op}: weights have {gates} gates; accepted for {cell}: {accepted}")
    if kept != COEFFICIENTS[cell]:
        raise ValueError(f"{op}: coefficients has {kept} numbers for a unit; accepted for {cell}: {COEFFICIENTS[cell]}")


def _require_counts(what: str, counts: Tensor, rows: int) -> None:
    found = counts.tolist()
    if sum(found) != rows or found != sorted(found, reverse=True) or (found and found[-1] < 1):
        raise ValueError(f"{what} must fall from step to step, and sum to the rows ({rows})")


def _lockstep(sizes: Sizes, projected: Tensor, where: Tensor, steps: Sequence[int], *rest: Any) -> None:
    _require_layers("lockstep", sizes, steps)
    rows, samples = sizes["samples"] * rows_per_sample(steps), sizes["samples"]
    _require_turns("lockstep", sizes, samples, rest[2])
    if sizes["rows"] != rows:
        raise ValueError(f"lockstep: coefficients has {sizes['rows']} rows; accepted: {rows}, for steps {steps}")
    if samples and where.is_cpu and not 0 <= int(where.min()) <= int(where.max()) < samples:
        raise ValueError(f"lockstep: where names a baseline other than 0 to {samples - 1}")


def _lockstep_backward(sizes: Sizes, *given: Any) -> None:
    steps = given[4]
    _require_layers("lockstep_backward", sizes, steps)
    if sizes["rows"] % rows_per_sample(steps):
        raise ValueError(
            f"lockstep_backward: m_h has {sizes['rows']} rows; accepted: a multiple of {rows_per_sample(steps)}, for "
            f"steps {steps}"
        )
    _require_turns("lockstep_backward", sizes, sizes["rows"] // rows_per_sample(steps), given[7])


def _require_turns(op: str, sizes: Sizes, samples: int, column_of: Sequence[int]) -> None:
    turned, layers = sizes["turned"], sizes["layers"]
    if turned not in (0, samples) or (turned and layers > MOST_LAYERS):
        raise ValueError(
            f"{op}: order has {turned} rows; accepted: {samples}, one per sample, for up to {MOST_LAYERS} layers, or 0"
        )
    if sorted(column_of) != list(range(layers)):
        raise ValueError(f"{op}: column_of is {list(column_of)}; accepted: each number from 0 to {layers - 1} once")


def _require_layers(op: str, sizes: Sizes, steps: Sequence[int]) -> None:
    layers, units, columns, levels = (sizes[name] for name in ("layers", "units", "columns", "levels"))
    if levels < 1 or units % levels or columns < 4 * units + 2 * levels:
        raise ValueError(f"{op}: {columns} columns and {units} units do not fit {levels} levels")
    if len(steps) != layers or not layers or list(steps) != sorted(steps, reverse=True) or steps[-1] < 1:
        raise ValueError(f"{op}: steps is {list(steps)}; accepted: {layers} falling numbers, one per layer, from 1 on")


def _stage_window(sizes: Sizes, *given: Any, op: str = "stage_window") -> None:
    units, hidden, levels = sizes["units"], sizes["hidden"], sizes["levels"]
    if levels < 1 or units % levels or hidden % levels or hidden > units:
        raise ValueError(f"{op}: {hidden} of {units} units do not fit {levels} levels")


def _stage_window_backward(sizes: Sizes, *given: Any) -> None:
    _stage_window(sizes, op="stage_window_backward")


def _convergence(sizes: Sizes, totals: Tensor, *rest: Any) -> None:
    if not len(totals):
        shape = (1, sizes["batch"])
        raise ValueError(f"convergence: totals has shape {tuple(totals.shape)}; accepted: {shape} or more features")


def _log_mean_softmax(sizes: Sizes, z: Tensor, *rest: Any, op: str = "log_mean_softmax", name: str = "z") -> None:
    if not -max(z.dim(), 1) <= sizes["dim"] < max(z.dim(), 1):
        raise IndexError(f"{op}: dim is {sizes['dim']}; {name} has {z.dim()} dimensions")


def _log_mean_softmax_backward(sizes: Sizes, g: Tensor, *rest: Any) -> None:
    _log_mean_softmax(sizes, g, op="log_mean_softmax_backward", name="g")


def _target(sizes: Sizes, *given: Any) -> None:
    if not -1 <= sizes["chosen"] < sizes["classes"]:
        raise ValueError(f"target: chosen is {sizes['chosen']}; accepted: -1 to {sizes['classes'] - 1}, one per class")
    if not sizes["classes"]:
        raise ValueError("target: logits has 0 classes; accepted: 1 or more")


def _token_layers_backward(sizes: Sizes, *given: Any) -> None:
    seeds, rows = sizes["seeds"], sizes["rows"]
    if seeds not in (1, rows):
        raise ValueError(f"token_layers_backward: m has {seeds} rows; accepted: {rows}, one per sample, or 1 for all")


def _token_rows(sizes: Sizes, *given: Any) -> None:
    if not sizes["vocabulary"] or not sizes["slots"]:
        vocabulary, slots = sizes["vocabulary"], sizes["slots"]
        raise ValueError(f"token_rows: {vocabulary} embeddings and {slots} slots; accepted: 1 or more of each")


def _token_survey(sizes: Sizes, *given: Any) -> None:
    if not sizes["steps"] or not sizes["slots"]:
        steps, slots = sizes["steps"], sizes["slots"]
        raise ValueError(f"token_survey: tokens has {steps} steps and {slots} slots; accepted: 1 or more of each")


def _value_survey(sizes: Sizes, *given: Any) -> None:
    if not sizes["steps"]:
        raise ValueError("value_survey: values has 0 steps; accepted: 1 or more")


VALUES: dict[str, Callable[..., None]] = {
    check.__name__[1:]: check
    for check in (
        _recurrent, _recurrent_backward, _lockstep, _lockstep_backward, _stage_window, _stage_window_backward,
        _convergence, _log_mean_softmax, _log_mean_softmax_backward, _target, _token_layers_backward, _token_rows,
        _token_survey, _value_survey,
    )
}  # fmt: skip
