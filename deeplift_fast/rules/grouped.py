"""Reductions of elements into groups that an index names: scatter_reduce, index_reduce and segment_reduce.

All take one form: elements, the group of each, and at least one element in every group (the value at its place before,
or a neutral value). Maxima and minima follow the winner rule, products are taken pair by pair under the product rule,
and sums and means are linear.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.rules.call import Arguments, Call
from deeplift_fast.rules.product import ProductRule
from deeplift_fast.rules.winner import WinnerRule

NAMES = frozenset(("scatter_reduce", "index_reduce", "segment_reduce"))
_LINEAR = ("sum", "mean")
_NEUTRAL = {"amax": -torch.inf, "max": -torch.inf, "amin": torch.inf, "min": torch.inf, "prod": 1.0}


@dataclass(frozen=True, slots=True)
class _Grouped:
    """Elements `[n]`, the group of each, int64 `[n]`, and the result's shape; each element of the result is a group."""

    elements: Tensor
    group: Tensor
    shape: torch.Size


def reduced(call: Call) -> tuple[Tensor, str]:
    """Run a reduction at the input with the multipliers of its rule.

    Args:
        call: of an operation in :data:`NAMES`, on real numbers, with equal indices in both streams.

    Returns:
        The reduction's result, and the name of the rule.
    """
    how = _argument(call.actual, 1 if call.name == "segment_reduce" else 4, "reduce")
    if how in _LINEAR:
        return call.as_it_is().clone(), "linear"  # PyTorch saves the result, and the model may write to it
    ours, theirs = (_grouped(call.name, arguments, how) for arguments in (call.actual, call.baseline))
    if how == "prod":
        return _product(ours, theirs), "midpoint"
    sign = -1 if how in ("amin", "min") else 1
    with torch.no_grad():
        y, y0 = (sign * each.run(call.func).reshape(-1) for each in (call.actual, call.baseline))
        x, x0 = sign * ours.elements, sign * theirs.elements
        at, at0 = (_winners(each, ours.group, best) for each, best in ((x, y), (x0, y0)))
    pieces = (each.unsqueeze(0) for each in (sign * ours.elements, x0, y, y0, at, at0))
    return (sign * WinnerRule.apply(*pieces)).reshape(ours.shape), "winner"


def _winners(elements: Tensor, group: Tensor, best: Tensor) -> Tensor:
    """The first element of each group that equals its result; the last element of all if there is none (NaN)."""
    places = torch.where(elements == best[group], torch.arange(len(group), device=group.device), len(group) - 1)
    first = torch.full_like(best, len(group) - 1, dtype=torch.int64)
    return first.scatter_reduce_(0, group, places, "amin")


def _product(ours: _Grouped, theirs: _Grouped) -> Tensor:
    """Multiply neighbours in a group until each group has one number."""
    order = torch.argsort(ours.group, stable=True)
    group, x, x0 = ours.group[order], ours.elements[order], theirs.elements[order]
    left = torch.bincount(group, minlength=ours.shape.numel())
    while len(group) > ours.shape.numel():
        place = torch.arange(len(group), device=group.device) - (left.cumsum(0) - left)[group]
        first = place % 2 == 0
        alone = (place + 1 == left[group])[first]
        second, second0 = (torch.cat([each[1:], each.new_ones(1)])[first].masked_fill(alone, 1.0) for each in (x, x0))
        x, x0 = ProductRule.apply(x[first], x0[first], second, second0), x0[first] * second0
        group, left = group[first], (left + 1) // 2
    return x.reshape(ours.shape)


def _grouped(name: str, arguments: Arguments, how: str) -> _Grouped:
    if name == "segment_reduce":
        return _segments(arguments, how)
    into, dim, index = (_argument(arguments, i, key) for i, key in enumerate(("input", "dim", "index")))
    source = _argument(arguments, 3, "src" if name == "scatter_reduce" else "source")
    shape = into.shape
    if not into.dim():
        into, index, source = into.reshape(1), index.reshape(-1), source.reshape(-1)
    dim, index = dim % into.dim(), index.long()
    if name == "index_reduce":
        index = _along(index.reshape(-1), dim, into.dim()).expand(source.shape)
    source = source[tuple(slice(size) for size in index.shape)]
    group = _places(index, dim, into.shape).reshape(-1)
    stays = torch.ones(into.numel(), dtype=torch.bool, device=into.device)
    if not arguments.kwargs.get("include_self", True):
        stays[group] = False
    elements = torch.cat([into.reshape(-1)[stays], source.reshape(-1)])
    return _Grouped(elements, torch.cat([stays.nonzero()[:, 0], group]), shape)


def _segments(arguments: Arguments, how: str) -> _Grouped:
    data, options = _argument(arguments, 0, "data"), arguments.kwargs
    ends = options.get("offsets")
    if ends is None:
        ends = torch.nn.functional.pad(options["lengths"].cumsum(-1), (1, 0))
    axis, count = ends.dim() - 1, ends.shape[-1] - 1
    shape = torch.Size((*data.shape[:axis], count, *data.shape[axis + 1 :]))
    steps = torch.arange(data.shape[axis], dtype=ends.dtype, device=data.device).expand(*data.shape[: axis + 1])
    index = torch.searchsorted(ends.contiguous(), steps.contiguous(), right=True) - 1
    inside = (index >= 0) & (index < count)
    more = [1] * (data.dim() - axis - 1)
    index, inside = (each.reshape(*each.shape, *more).expand(data.shape) for each in (index, inside))
    initial = options.get("initial")
    start = data.new_full((shape.numel(),), _NEUTRAL[how] if initial is None else initial)
    inside = inside.reshape(-1)
    group = _places(index, axis, shape).reshape(-1)[inside]
    own = torch.arange(len(start), device=data.device)
    return _Grouped(torch.cat([start, data.reshape(-1)[inside]]), torch.cat([own, group]), shape)


def _places(index: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """The flat positions in a tensor of `shape` that an index along a dimension points to."""
    places = torch.zeros_like(index)
    for d in range(len(shape)):
        stride = shape[d + 1 :].numel()
        along = index if d == dim else _along(torch.arange(index.shape[d], device=index.device), d, len(shape))
        places = places + along * stride
    return places


def _along(numbers: Tensor, dim: int, dims: int) -> Tensor:
    return numbers.reshape([-1 if d == dim else 1 for d in range(dims)])


def _argument(arguments: Arguments, position: int, name: str) -> Any:
    if len(arguments.args) > position:
        return arguments.args[position]
    return arguments.kwargs.get(name, arguments.kwargs.get("self"))
