"""LSTM, GRU and RNN layers as a whole: the op `recurrent` runs both streams and keeps coefficients for the way back.

The layer's own result is PyTorch's. The op starts from states of zero and knows no dropout and no projections.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.ops.cells import COEFFICIENTS, LANES
from deeplift_fast.rules.call import Call, whole

# The op's order of gates, as indices into PyTorch's order, for the weights of the input and of the state.
_ORDER = {"lstm": ([1, 0, 3, 2], [1, 0, 3, 2]), "gru": ([2, 0, 1], [0, 1, 2])}
_ALIGNED = 16  # of the units and columns in one panel


@dataclass(frozen=True)
class Options:
    """The arguments of `torch.lstm` and its like.

    Attributes:
        data: `[steps, batch, columns]`, `[batch, steps, columns]`, or packed, `[rows, columns]`.
        sizes: of a packed sequence, the samples at each step; otherwise `None`.
        states: the first states.
        weights: those of all layers.
        biased: whether there are biases.
        layers: the number of layers.
        drops: whether dropout is applied.
        both: whether there are two directions.
        batch_first: whether the batch is the first dimension.
    """

    data: Tensor
    sizes: Tensor | None
    states: tuple[Tensor, ...]
    weights: Sequence[Tensor]
    biased: bool
    layers: int
    drops: bool
    both: bool
    batch_first: bool

    @property
    def fit(self) -> bool:
        """Whether the op knows such layers."""
        per_layer = (4 if self.biased else 2) * self.layers * (2 if self.both else 1)
        return not self.drops and len(self.weights) == per_layer and not (self.both and self.sizes is not None)


def options(args: tuple[Any, ...]) -> Options:
    """Read the arguments of `torch.lstm`, `torch.gru`, `torch.rnn_tanh` or `torch.rnn_relu`."""
    if isinstance(args[3], bool | int):
        data, hx, weights, biased, layers, dropout, train, both, batch_first = args
        sizes = None
    else:
        data, sizes, hx, weights, biased, layers, dropout, train, both = args
        batch_first = False
    states = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    return Options(data, sizes, states, weights, biased, layers, bool(train and dropout > 0), both, batch_first)


def recurrent_layers(call: Call, in_parts: Callable[[Tensor], Any]) -> tuple[Any, str] | None:
    """Run recurrent layers at the input with their multipliers; arguments as :func:`deeplift_fast.rules.layers.run`."""
    ours = options(call.actual.args)
    if any(bool(state.any()) for state in ours.states):
        return None
    return RecurrentRule.apply(call, in_parts, *call.xs), "composed"


class RecurrentRule(torch.autograd.Function):
    """Recurrent layers whose backward is the chain of the rules of their operations."""

    @staticmethod
    def forward(ctx: Any, call: Call, in_parts: Callable[[Tensor], Any], x: Tensor) -> tuple[Tensor, ...]:
        """PyTorch's result at the input.

        Args:
            ctx: PyTorch's.
            call: the layers in both streams.
            in_parts: as for :func:`recurrent_layers`; it makes the multipliers of an LSTM's last cell states.
            x: the data at the input.
        """
        ours = options(call.actual.args)
        ctx.in_parts, ctx.options = in_parts, ours
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        ctx.rows, ctx.layers = _both_streams(call.name, ours, x, call.x0s[0])
        return tuple(whole(call.run(x), ()))

    @staticmethod
    def backward(ctx: Any, m: Tensor | None, *m_states: Tensor | None) -> tuple[None, None, Tensor]:
        """The multipliers of the data, from those of the outputs and of the last states."""
        (x,) = ctx.saved_tensors
        if len(m_states) == 2 and m_states[1] is not None:  # the op has no cell states
            return None, None, _by_parts(ctx.in_parts, x, (m, *m_states))
        rows: _Rows = ctx.rows
        found = None if m is None else rows.of_data(m, ctx.options)
        for index in reversed(range(len(ctx.layers))):
            found = _back(ctx.layers[index], rows, found, m_states[0], index)
        assert found is not None
        return None, None, rows.to_data(found, ctx.options).reshape(x.shape)


def _by_parts(in_parts: Callable[[Tensor], Any], x: Tensor, m: Sequence[Tensor | None]) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        pairs = [(y, each) for y, each in zip(in_parts(leaf.clone()), m, strict=True) if each is not None]
    return torch.autograd.grad([y for y, _ in pairs], leaf, [each for _, each in pairs])[0]


@dataclass(frozen=True)
class _Rows:
    """The rows of all steps, step by step.

    Attributes:
        counts: the samples at each step, int64 on the CPU.
        counts0: the distinct baseline sequences at each step.
        where: the baseline of each sample.
        last: the row of each sample's last step.
    """

    counts: Tensor
    counts0: Tensor
    where: Tensor
    last: Tensor

    def of_data(self, data: Tensor, given: Options) -> Tensor:
        """`[rows, columns]`, from the layout of the layer's data."""
        if given.sizes is not None:
            return data
        return (data.transpose(0, 1) if given.batch_first else data).flatten(0, 1)

    def to_data(self, rows: Tensor, given: Options) -> Tensor:
        """The inverse of :meth:`of_data`."""
        if given.sizes is not None:
            return rows
        by_step = rows.unflatten(0, (len(self.counts), -1))
        return by_step.transpose(0, 1) if given.batch_first else by_step

    def reversed(self, rows: Tensor) -> Tensor:
        """The rows with the last step first; not of packed data."""
        return rows.unflatten(0, (len(self.counts), -1)).flip(0).flatten(0, 1)


def _rows_of(given: Options, x0: Tensor) -> tuple[_Rows, Tensor]:
    """The rows, and the baseline's rows `[rows0, columns]`: one sequence if all samples have the same."""
    device = x0.device
    if given.sizes is None:
        steps, batch = x0.shape[:2] if not given.batch_first else (x0.shape[1], x0.shape[0])
        counts = torch.full((steps,), batch, device="cpu")
    else:
        counts = given.sizes.cpu()
    batch = int(counts[0])
    starts = counts.cumsum(0) - counts
    lengths = (counts[:, None] > torch.arange(batch, device="cpu")).sum(0)
    last = (starts[lengths - 1] + torch.arange(batch, device="cpu")).to(device)
    alone = _Rows(counts, counts, torch.arange(batch, device=device), last)
    rows0 = alone.of_data(x0, given)
    first = starts.to(device)
    shared = rows0.index_select(0, first)
    if not torch.equal(rows0, shared.repeat_interleave(counts.to(device), 0)):
        return alone, rows0
    return _Rows(counts, torch.ones_like(counts), torch.zeros_like(alone.where), last), shared


@dataclass(frozen=True)
class _Direction:
    """One layer in one direction.

    Attributes:
        cell: the cell's name.
        size: the number of units.
        columns: the number of its inputs.
        coefficients: of the op.
        back: the weights of the backward op.
    """

    cell: str
    size: int
    columns: int
    coefficients: Tensor
    back: tuple[Tensor, ...]


def _both_streams(cell: str, given: Options, x: Tensor, x0: Tensor) -> tuple[_Rows, list[list[_Direction]]]:
    """Run all layers in both streams, and keep the coefficients of their multipliers."""
    rows, u0 = _rows_of(given, x0)
    u = rows.of_data(x.detach(), given)
    directions, per = 2 if given.both else 1, 4 if given.biased else 2
    layers = []
    for layer in range(given.layers):
        made, outputs = [], []
        for direction in range(directions):
            start = (layer * directions + direction) * per
            weights = [each.detach() for each in given.weights[start : start + per]]
            turned = [rows.reversed(each) if direction else each for each in (u, u0)]
            found, states = _direction(cell, weights, turned, rows)
            made.append(found)
            outputs.append([rows.reversed(each) if direction else each for each in states])
        u, u0 = (torch.cat(parts, 1) if len(parts) > 1 else parts[0] for parts in zip(*outputs, strict=True))
        layers.append(made)
    return rows, layers


def _direction(
    cell: str, weights: Sequence[Tensor], inputs: Sequence[Tensor], rows: _Rows
) -> tuple[_Direction, list[Tensor]]:
    u, u0 = (each.contiguous() for each in inputs)
    size, columns = weights[1].shape[1], u.shape[1]
    forward, back = _packed(cell, weights)
    units = forward[2].shape[0] * forward[2].shape[2]
    coefficients = u.new_empty(len(u), COEFFICIENTS[cell], units)
    h, h0, _, _ = ops.recurrent(
        u, u0, rows.where, rows.counts, rows.counts0, *forward, coefficients, 0, cell, "secant", 0.5
    )
    return _Direction(cell, size, columns, coefficients, back), [h[:, :size], h0[:, :size]]


def _back(layer: list[_Direction], rows: _Rows, m: Tensor | None, m_last: Tensor | None, index: int) -> Tensor:
    """Multipliers of a layer's inputs, `[rows, columns]`, from those of its outputs and of the last states."""
    total: Tensor | None = None
    for place, each in enumerate(layer):
        m_h = each.coefficients.new_zeros(len(each.coefficients), each.coefficients.shape[2])
        if m is not None:
            part = m[:, place * each.size : (place + 1) * each.size]
            m_h[:, : each.size] = rows.reversed(part) if place else part
        if m_last is not None:
            m_h[rows.last, : each.size] += m_last[index * len(layer) + place]
        none = m_h.new_zeros(len(m_h), 0)
        found = ops.recurrent_backward(
            m_h, none, each.coefficients, none, rows.counts, *each.back, 0, each.cell, each.columns
        )[:, : each.columns]
        found = rows.reversed(found) if place else found
        total = found if total is None else total + found
    assert total is not None
    return total


def _packed(cell: str, weights: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The weights of the op and of its backward op."""
    weight_u, weight_h, *biases = weights
    size, columns = weight_h.shape[1], weight_u.shape[1]
    on_cpu = weight_u.device.type == "cpu"
    n = LANES[weight_u.dtype] if on_cpu else _ALIGNED
    units = -(-size // n) * n
    lanes = n if on_cpu else units
    b_u, b_h = biases if biases else (weight_u.new_zeros(len(weight_u)),) * 2
    order_u, order_h = _ORDER.get(cell, ([0], [0]))
    (w_u, b_u), (w_h, b_h) = (
        (w.unflatten(0, (-1, size))[order], b.unflatten(0, (-1, size))[order])
        for w, b, order in ((weight_u, b_u, order_u), (weight_h, b_h, order_h))
    )
    bias = torch.stack([b_u[0], b_u[1] + b_h[0], b_u[2] + b_h[1], b_h[2]]) if cell == "gru" else b_u + b_h
    more = units - size
    w_u, w_h, bias = F.pad(w_u, (0, 0, 0, more)), F.pad(w_h, (0, more, 0, more)), F.pad(bias, (0, more))
    of_u, of_h = (w.unflatten(1, (-1, lanes)).permute(1, 3, 0, 2).contiguous() for w in (w_u, w_h))
    bias = bias.unflatten(1, (-1, lanes)).transpose(0, 1).contiguous()
    wide_u, wide_h = (4 * n, 4 * n) if on_cpu else (-(-columns // _ALIGNED) * _ALIGNED, units)
    back = tuple(
        _panels(w.unflatten(1, (-1, lanes)).transpose(0, 1).flatten(1, 2), wide)
        for w, wide in ((w_u, wide_u), (w_h, wide_h))
    )
    masters = [weight_u.new_zeros(shape) for shape in ((columns, 0), (units, 0), (0,))]  # StageNet's
    back_masters = [each.new_zeros(each.shape[0], 0, each.shape[-1]) for each in back]
    return (of_u, of_h, bias, *masters), (*back, *back_masters)


def _panels(w: Tensor, wide: int) -> Tensor:
    """`[panels, gates, columns]` as `[panels of columns, panels, gates, wide]`, padded with 0."""
    w = F.pad(w, (0, -w.shape[-1] % wide))
    return w.unflatten(-1, (-1, wide)).movedim(-2, 0).contiguous()
