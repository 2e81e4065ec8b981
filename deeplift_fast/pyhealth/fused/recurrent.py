"""Recurrent layers: their weights packed for the op, and the pass of both streams forward and back."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.ops.cells import COEFFICIENTS, LANES
from deeplift_fast.pyhealth.fused import buffers
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Pair, shares
from deeplift_fast.pyhealth.fused.sequences import Steps

_ALIGNED = 16  # in one panel a level has a multiple of so many units, which aligns each row for the widest loads


@dataclass(frozen=True)
class Packed:
    """A cell's weights in the order of :func:`deeplift_fast.ops.recurrent`.

    Attributes:
        cell: the cell's name in that op.
        levels: StageNet's levels, or 0.
        slots: the position of each unit among the padded units, int64 `[units]`.
        forward: the weights of the op.
        back: the weights of its backward op.
        inputs: the number of columns with multipliers; further columns (times) have none.
    """

    cell: str
    levels: int
    slots: Tensor
    forward: tuple[Tensor, ...]
    back: tuple[Tensor, ...]
    inputs: int

    @property
    def units(self) -> int:
        """The number of padded units."""
        return self.forward[2].shape[0] * self.forward[2].shape[2]

    def unpadded(self, x: Tensor) -> Tensor:
        """`[…, padded units]` to `[…, units]`."""
        return x if len(self.slots) == self.units else x[..., self.slots]

    def padded(self, x: Tensor) -> Tensor:
        """`[…, units]` to `[…, padded units]`, with 0 at the padding."""
        if len(self.slots) == self.units:
            return x
        found = x.new_zeros(*x.shape[:-1], self.units)
        found[..., self.slots] = x
        return found


Weights = tuple[Tensor, Tensor, Tensor]


def pack(
    cell: str,
    gates: Weights,
    inputs: int,
    masters: Weights | None = None,
    levels: int = 0,
    one_panel: bool | None = None,
) -> Packed:
    """Pack a cell's weights.

    Args:
        cell: as for :func:`deeplift_fast.ops.recurrent`.
        gates: `[gates of the input, units, columns]`, `[gates of the state, units, units]`, bias `[gates, units]`.
        inputs: the number of columns with multipliers.
        masters: StageNet's master gates: `[2·levels, columns]`, `[2·levels, units]`, `[2·levels]`.
        levels: StageNet's levels.
        one_panel: whether all units form one panel, so that the weights are plain matrices; by default `True` on every
            device but the CPU.
    """
    size, device = gates[0].shape[1], gates[0].device
    if one_panel is None:
        one_panel = device.type != "cpu"
    n = _ALIGNED if one_panel else LANES[gates[0].dtype]
    chunk = size // max(levels, 1)
    wide = -(-chunk // n) * n
    slots = torch.arange(max(levels, 1), device=device)[:, None] * wide + torch.arange(chunk, device=device)
    slots = slots.flatten()
    units = wide * max(levels, 1)
    (w_u, w_h, b), (m_u, m_h, m_b) = _padded(gates, masters, slots, units)
    lanes = units if one_panel else n
    of_u, of_h = (
        (w.reshape(len(w), -1, lanes, w.shape[2]).permute(1, 3, 0, 2).contiguous(), _widened(m.t(), n))
        for w, m in ((w_u, m_u), (w_h, m_h))
    )
    wide_u, wide_h = (-(-inputs // _ALIGNED) * _ALIGNED or _ALIGNED, units) if one_panel else (4 * n, 4 * n)
    back_u, back_h = (
        (_panels(_by_panel(w, lanes), wide), _panels(m, wide))
        for w, m, wide in ((w_u[..., :inputs], m_u[:, :inputs], wide_u), (w_h, m_h, wide_h))
    )
    if one_panel and levels:  # one matrix product takes units and masters
        of_u, of_h = (_in_one_memory(w, w[0].flatten(1), m, 1) for w, m in (of_u, of_h))
        back_u, back_h = (_in_one_memory(w, w[0, 0], m, 0) for w, m in (back_u, back_h))
    bias = b.reshape(len(b), -1, lanes).permute(1, 0, 2).contiguous()
    weights = (of_u[0], of_h[0], bias, of_u[1], of_h[1], _widened(m_b[None], n)[0])
    return Packed(cell, levels, slots, weights, (back_u[0], back_h[0], back_u[1], back_h[1]), inputs)


def _padded(gates: Weights, masters: Weights | None, slots: Tensor, units: int) -> tuple[Weights, Weights]:
    """The weights of gates and master gates for `units` padded units; 0 outside `slots`."""
    weight_u, weight_h, bias = gates
    w_u = weight_u.new_zeros(len(weight_u), units, weight_u.shape[2])
    w_u[:, slots] = weight_u
    w_h = weight_h.new_zeros(len(weight_h), units, units)
    w_h[:, slots[:, None], slots] = weight_h
    b = bias.new_zeros(len(bias), units)
    b[:, slots] = bias
    if masters is None:
        masters = weight_u.new_zeros(0, weight_u.shape[2]), weight_u.new_zeros(0, len(slots)), weight_u.new_zeros(0)
    m_u, from_state, m_b = masters
    m_h = m_u.new_zeros(len(m_u), units)
    m_h[:, slots] = from_state
    return (w_u, w_h, b), (m_u, m_h, m_b)


def _in_one_memory(units: Tensor, matrix: Tensor, masters: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Units and masters as views of one matrix: `matrix` holds the units, and the masters follow along `dim`."""
    after = masters.reshape(-1, masters.shape[-1])
    first, last = torch.cat([matrix, after], dim).split([matrix.shape[dim], after.shape[dim]], dim)
    return first.reshape(units.shape), last.reshape(masters.shape)


def _by_panel(w: Tensor, lanes: int) -> Tensor:
    """`[gates, units, columns]` as `[panels, gates · lanes, columns]`."""
    return w.reshape(len(w), -1, lanes, w.shape[2]).transpose(0, 1).flatten(1, 2)


def _widened(w: Tensor, n: int) -> Tensor:
    """Columns padded with 0 to a multiple of `n`."""
    return torch.nn.functional.pad(w, (0, -w.shape[-1] % n)).contiguous()


def _panels(w: Tensor, width: int) -> Tensor:
    """`[…, columns]` as `[panels of columns, …, width]`."""
    w = _widened(w, width)
    return w.unflatten(-1, (w.shape[-1] // width, width)).movedim(-2, 0).contiguous()


@dataclass(frozen=True)
class States:
    """A layer's states at every step.

    Attributes:
        h: `[rows, padded units]` in both streams.
        log_p: logarithms of the softmax below StageNet's master gates, in both streams.
        back: from the multipliers of `h` and of the forget master gates to those of the inputs; for one call only.
    """

    h: Pair
    log_p: Pair
    back: Callable[[Tensor, Tensor | None], Tensor]


def run(packed: Packed, u: Pair, steps: Steps, arithmetic: Arithmetic, slope: str, share: bool = True) -> States:
    """A recurrent layer over the rows of `steps`.

    Args:
        packed: the layer.
        u: its inputs, `[rows, columns]` in both streams, a baseline row for each row of the input.
        steps: the sample and the step of each row.
        arithmetic: the rule set.
        slope: the multiplier of activations, as for :func:`deeplift_fast.ops.recurrent`.
        share: whether equal sequences of the baseline may be computed once.
    """
    shared = steps.shared(u.x0, share)
    coefficients = buffers.take((len(u.x), COEFFICIENTS[packed.cell], packed.units), u.x.dtype, u.x.device)
    h, h0, log_p, log_p0 = ops.unchecked.recurrent(
        u.x.contiguous(), shared.rows.contiguous(), shared.where, steps.counts, shared.counts,
        *packed.forward, coefficients, packed.levels, packed.cell, slope, arithmetic.half,
    )  # fmt: skip
    logs = Pair(log_p, log_p0, shared.facing)
    mean = shares(logs, packed.levels, arithmetic) if packed.levels else log_p

    def back(m_h: Tensor, m_master: Tensor | None) -> Tensor:
        if m_master is None:
            m_master = m_h.new_zeros(len(m_h), packed.levels)
        found = ops.unchecked.recurrent_backward(
            m_h, m_master, coefficients, mean, steps.counts, *packed.back, packed.levels, packed.cell, packed.inputs
        )
        buffers.give(coefficients)
        return found[:, : packed.inputs]

    return States(Pair(h, h0, shared.facing), logs, back)
