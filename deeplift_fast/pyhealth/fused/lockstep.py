"""StageNet layers of one size, run together on a GPU: one kernel per step and direction serves all features.

Samples go by falling length within each layer. A kernel then does nothing for samples that have ended, though no
length is known on the host.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.core.constants import ramp, ramps
from deeplift_fast.ops.cells import COEFFICIENTS, MOST_LAYERS, rows_per_sample
from deeplift_fast.pyhealth.fused import buffers
from deeplift_fast.pyhealth.fused.buffers import wait_for
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Pair, shares
from deeplift_fast.pyhealth.fused.sequences import AllSteps
from deeplift_fast.pyhealth.fused.stagenet_convolution import whole
from deeplift_fast.pyhealth.fused.stagenet_layer import Given, Prepared, Tail, Windows, inputs, slope_of, staged

_ALIGNED = 16  # rows have a multiple of so many columns, which aligns each row for the widest loads
Back = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Cells:
    """Cells' weights in the order of :func:`deeplift_fast.ops.lockstep`.

    Attributes:
        inputs: the weights of each layer's inputs, `[columns of u, columns]`.
        weight: the weights of the states, `[layers, units, columns]`.
        bias: `[layers, columns]`.
    """

    inputs: list[Tensor]
    weight: Tensor
    bias: Tensor

    @staticmethod
    def of(layers: Sequence[Prepared]) -> "Cells":
        """The cells of the layers, in their order."""
        found: tuple[list[Tensor], ...] = ([], [], [])
        for layer in layers:
            weight_u, weight_h, bias, *masters = layer.cell.forward
            gates = weight_u.permute(1, 2, 0, 3), weight_h.permute(1, 2, 0, 3), bias.transpose(0, 1)[None]
            for to, of_gates, of_masters in zip(found, gates, masters, strict=True):
                both = [of_gates.flatten(1), of_masters.reshape(len(of_gates), -1)[:, : 2 * layer.cell.levels]]
                missing = -sum(each.shape[1] for each in both) % _ALIGNED
                to.append(torch.cat([*both, both[0].new_zeros(len(of_gates), missing)], 1))
        return Cells(found[0], torch.stack(found[1]), torch.cat(found[2]))


class Group:
    """Layers that run in lockstep.

    Args:
        layers: layers of one size, in the order of the features.
    """

    def __init__(self, layers: Sequence[Prepared]) -> None:
        self._layers, self._window = layers, layers[0].module.conv_size
        tails = [layer.tail for layer in layers]
        scale, rescale = (_in_one([getattr(tail, name) for tail in tails]) for name in ("scale", "rescale"))
        self._convolutions = [layer.convolution.by_place() for layer in layers]
        weight, bias = torch.stack(self._convolutions), torch.stack([layer.module.nn_conv.bias for layer in layers])

        def convolution(local: Tensor, real: Tensor, static: bool) -> tuple[Pair, Callable[[Tensor], Tensor]]:
            return whole(local, weight, bias)

        self._tail = Tail(tails[0].levels, tails[0].hidden, scale, rescale, convolution)
        self._cells: dict[tuple[int, ...], Cells] = {}
        wait_for([scale[0]])

    @staticmethod
    def of(layers: Sequence[Prepared]) -> "Group | None":
        """A group of the layers; `None` for layers of different sizes, or without a bias."""
        sizes = {_sizes(layer) for layer in layers}
        return Group(layers) if len(sizes) == 1 and None not in sizes.pop() else None

    def is_outdated(self) -> bool:
        """Whether the weights of a convolution on the CPU have changed since they were packed."""
        now = [layer.convolution.by_place() for layer in self._layers]
        return any(a is not b for a, b in zip(now, self._convolutions, strict=True))

    def run(
        self, given: Sequence[Given], ends: Tensor, arithmetic: Arithmetic, segment: tuple[float, float]
    ) -> tuple[Pair, Back]:
        """The layers' last outputs side by side, `[samples, layers · hidden]`, and `back` to contributions by layer.

        Args:
            given: the batch, in the order of the layers.
            ends: one past the step whose output is kept, int64 `[samples, layers]`.
            arithmetic: the rule set.
            segment: the part of the line from baseline to input.
        """
        samples, longest = given[0].mask.shape[0], max(each.mask.shape[1] for each in given)
        order = sorted(range(len(given)), key=lambda i: -given[i].mask.shape[1])
        cells, steps = self._ordered(tuple(order)), [given[i].mask.shape[1] for i in order]
        projected = cells.weight.new_empty(2, samples * rows_per_sample(steps), cells.weight.shape[2])
        starts, entered = [order.index(i) * samples * longest for i in range(len(given))], []
        for i, start in enumerate(starts):
            to_gates = cells.inputs[order.index(i)]
            entered.append(self._projected(i, given[i], to_gates, projected[:, start:], segment))
        turns = *_by_falling_length(ends), order
        h, log_p, states_back = self._states(projected, steps, turns, cells, arithmetic)
        windows = _windows(ends, starts, self._window)
        out, out_back = staged(self._tail, h, windows.rows, windows, log_p, arithmetic)

        def back(m: Tensor) -> list[Tensor]:
            d = states_back(*out_back(m.view(-1, self._tail.hidden)))
            return [each(d[start:]) for each, start in zip(entered, starts, strict=True)]

        assert out.both is not None
        return Pair.stacked(out.both.view(2 * samples, -1)), back

    def _projected(
        self, i: int, given: Given, to_gates: Tensor, out: Tensor, segment: tuple[float, float]
    ) -> Callable[[Tensor], Tensor]:
        """Write a layer's inputs times `to_gates` to the first rows of `out`, and return the way back."""
        u, entered = inputs(given, AllSteps.of(given.ends, given.mask.shape[1]), segment)
        rows, cell = len(u.x), self._layers[i].cell
        by_stream = torch.stack((u.x, u.x0)) if u.both is None else u.both.unflatten(0, (2, rows))
        torch.bmm(by_stream, to_gates.expand(2, -1, -1), out=out[:, :rows])
        gates = 4 * cell.units + 2 * cell.levels
        return lambda d: entered(d[:rows, :gates] @ to_gates[: cell.inputs, :gates].T)

    def _states(
        self,
        projected: Tensor,
        steps: list[int],
        turns: tuple[Tensor, Tensor, list[int]],
        cells: Cells,
        arithmetic: Arithmetic,
    ) -> tuple[Pair, Pair, Callable[[Tensor, Tensor], Tensor]]:
        """States, the logarithms below the master gates, and `back` from their multipliers to those of `projected`."""
        levels, rows = self._tail.levels, projected.shape[1]
        shape = rows, COEFFICIENTS["stagenet"], cells.weight.shape[1]
        coefficients = buffers.take(shape, projected.dtype, projected.device)
        where = ramp(rows // rows_per_sample(steps), 1, projected.device)
        slope, half = slope_of(arithmetic), arithmetic.half
        h, h0, log_p, log_p0 = ops.lockstep(
            projected.flatten(0, 1), where, steps, *turns, cells.weight, cells.bias, coefficients, levels, slope, half
        )
        mean = shares(Pair(log_p, log_p0), levels, arithmetic)

        def back(m_h: Tensor, m_master: Tensor) -> Tensor:
            found = ops.lockstep_backward(m_h, m_master, coefficients, mean, steps, *turns, cells.weight, levels)
            buffers.give(coefficients)
            return found

        return Pair(h, h0), Pair(log_p, log_p0), back

    def _ordered(self, order: tuple[int, ...]) -> Cells:
        """The cells by falling number of steps, which differs between batches; each order is stacked once."""
        if order not in self._cells:
            cells = Cells.of([self._layers[i] for i in order])
            wait_for([cells.weight])
            self._cells[order] = cells
        return self._cells[order]


def _by_falling_length(ends: Tensor) -> tuple[Tensor, Tensor]:
    """The samples of each layer by falling length, and these lengths; no rows for more layers than the op orders."""
    if ends.shape[1] > MOST_LAYERS:
        return ends[:0], ends[:0]
    lengths, order = torch.sort(ends, dim=0, descending=True)
    return order, lengths


def _sizes(layer: Prepared) -> tuple[Any, ...]:
    """The sizes that must be equal; they hold `None` for a layer without bias."""
    tail = layer.tail
    weights = [*tail.scale, *tail.rescale, layer.convolution.by_place(), layer.convolution.bias]
    shapes = [None if each is None else each.shape for each in weights]
    return (tail.levels, layer.cell.units, layer.module.conv_size, *shapes)


def _in_one(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The weights and biases of small layers as one layer from all inputs to all outputs, with 0 between the layers.

    One product with its bias is one launch; a batched product would copy the bias first.
    """
    return torch.block_diag(*(weight for weight, _ in layers)), torch.cat([bias for _, bias in layers])


def _windows(ends: Tensor, starts: Sequence[int], size: int) -> Windows:
    """The windows of each sample in each layer, sample by sample; `starts` are the first rows of the layers."""
    samples, device = len(ends), ends.device
    # A row is `start + step · samples + sample`.
    before = ramps(size * samples, tuple(start - size * samples for start in starts), device)
    before = before.view(-1, size, samples).permute(2, 0, 1)
    ends = ends.unsqueeze(-1)
    rows = torch.add(before, ends, alpha=samples, out=ends.new_empty(before.shape)).flatten(0, 1)
    real = (ends >= ramp(size, -1, device, first=size)).flatten(0, 1)
    return Windows(Pair(rows, rows), real.unsqueeze(-1))
