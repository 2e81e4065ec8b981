"""StageNetLayer: its cell at every step, and what it makes of the last steps where a sample ends.

Gao et al. 2020, "StageNet: Stage-Aware Neural Networks for Health Risk Prediction"; the chain of operations is that of
PyHealth 2.1's `StageNetLayer.forward`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.pyhealth.fused import recurrent
from deeplift_fast.pyhealth.fused.buffers import ramp
from deeplift_fast.pyhealth.fused.entries import Contributions, Entry, between
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Back, Pair, activation, gated_sum, linear
from deeplift_fast.pyhealth.fused.recurrent import Packed, States
from deeplift_fast.pyhealth.fused.sequences import Ragged

Last = tuple[Pair, Callable[[Tensor], tuple[Tensor, Tensor | None]]]


@dataclass(frozen=True)
class Tail:
    """What follows the cell; of several layers, each tensor with one more dimension in front, and samples in turn.

    Attributes:
        levels: of the cell.
        hidden: its units without padding.
        scale: weight and bias of the theme's first layer.
        rescale: of its second one.
        convolution: of the convolution over a whole window, `[hidden, window · hidden]`.
    """

    levels: int
    hidden: int
    scale: tuple[Tensor, Tensor]
    rescale: tuple[Tensor, Tensor]
    convolution: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Prepared:
    """A layer's weights, packed.

    Attributes:
        module: the layer.
        cell: its cell.
        convolution: as in :class:`Tail`.
    """

    module: Any
    cell: Packed
    convolution: Tensor

    @property
    def tail(self) -> Tail:
        """What follows the cell."""
        module = self.module
        scale, rescale = ((each.weight, each.bias) for each in (module.nn_scale, module.nn_rescale))
        return Tail(self.cell.levels, module.hidden_dim, scale, rescale, (self.convolution, module.nn_conv.bias))


@dataclass(frozen=True)
class Given:
    """What a batch gives a layer.

    Attributes:
        layer: see :func:`prepare`.
        entry: the feature.
        ends: one past the step whose output is kept, int64 `[samples]`.
        mask: of steps, `[samples, steps]`.
        times: of each step, `[samples, steps]`.
    """

    layer: Prepared
    entry: Entry
    ends: Tensor
    mask: Tensor
    times: Tensor


def prepare(module: Any, embed: Any) -> Prepared:
    """Pack a `StageNetLayer` (or the attention variant), with the linear layer `embed` merged into its inputs."""
    levels, hidden = module.levels, module.hidden_dim
    kernel, state = module.kernel, module.recurrent_kernel
    weight, time = kernel.weight[:, :-1], kernel.weight[:, -1:] + state.weight[:, -1:]
    bias = weight.new_zeros(len(weight)) if kernel.bias is None else kernel.bias
    bias = bias if state.bias is None else bias + state.bias
    if embed is not None:
        bias = bias if embed.bias is None else bias + weight @ embed.bias
        weight = weight @ embed.weight
    columns = torch.cat([weight, time], 1)
    masters, gates = slice(0, 2 * levels), slice(2 * levels, None)
    packed = recurrent.pack(
        "stagenet",
        (
            columns[gates].reshape(4, hidden, -1),
            state.weight[gates, :-1].reshape(4, hidden, hidden),
            bias[gates].reshape(4, hidden),
        ),
        weight.shape[1],
        (columns[masters], state.weight[masters, :-1], bias[masters]),
        levels,
    )
    return Prepared(module, packed, module.nn_conv.weight.permute(0, 2, 1).reshape(hidden, -1).contiguous())


@dataclass(frozen=True)
class Windows:
    """The last steps of each sample that the convolution sees.

    Attributes:
        rows: theirs, `[samples, window]` in both streams; below 0, or 0, where a sample is shorter.
        real: whether there is such a step, `[samples, window, 1]`.
    """

    rows: Pair
    real: Tensor

    @staticmethod
    def of(steps: Ragged, ends: Tensor, states: States, size: int) -> "Windows":
        """Those of `size` steps before `ends`."""
        if steps.static:
            count = len(ends)
            # A row is `step · count + sample`: below 0 where the step is.
            before = ramp(size * count, 1, ends.device, first=-size * count).view(size, count).T
            rows = torch.add(before, ends[:, None], alpha=count, out=ends.new_empty(count, size))
            return Windows(Pair(rows, rows), (rows >= 0).unsqueeze(-1))
        samples = ramp(len(ends), 1, ends.device)
        step = ends[:, None] + ramp(size, 1, ends.device, first=-size)
        real, step = step >= 0, step.clamp(min=0)
        place = samples[:, None].expand_as(step)
        rows = steps.rows(place, step)
        rows0 = states.steps0.rows(states.where[place], step)
        return Windows(Pair(rows, rows0), real.unsqueeze(-1))


def run(
    given: Given,
    lengths: Tensor,
    arithmetic: Arithmetic,
    segment: tuple[float, float],
    finish: Callable[..., Last],
) -> tuple[Pair, Callable[[Tensor], Tensor]]:
    """The layer's last output, `[samples, hidden]`, in the batch's order.

    Args:
        given: the layer and its input.
        lengths: steps that are needed, 1 or more, int64 `[samples]`.
        arithmetic: the rule set.
        segment: the part of the line from baseline to input.
        finish: what the layer makes of its states: :func:`finish` or that of the attention variant.
    """
    layer, longest = given.layer, given.entry.baseline.shape[1]
    steps = Ragged.every(lengths, longest) if arithmetic.static else Ragged.of(lengths)
    u, entered = inputs(given, steps, segment)
    states = recurrent.run(layer.cell, u, steps, arithmetic, slope_of(arithmetic), share=segment[0] == 0)
    last, last_back = finish(layer, steps, steps.sorted(given.ends), steps.sorted(given.mask), states, arithmetic)

    def back(m: Tensor) -> Tensor:
        m_h, m_master = last_back(steps.sorted(m))
        return entered(states.back(m_h, m_master))

    return steps.unsorted(last), back


def slope_of(arithmetic: Arithmetic) -> str:
    """The cell's activations' multipliers, as for :func:`deeplift_fast.ops.recurrent`."""
    return "pyhealth" if arithmetic.rules == "pyhealth" else "secant"


def inputs(given: Given, steps: Ragged, segment: tuple[float, float]) -> tuple[Pair, Contributions]:
    """The cell's inputs, `[rows, columns]`, and from the multipliers of all but the time to contributions."""
    rows, entered = given.entry.enter(steps.at)
    return _with_time(between(rows, *segment), given.times, steps), entered


def _with_time(rows: Pair, times: Tensor, steps: Ragged) -> Pair:
    """Each row with its time as one more column."""
    if rows.both is None:
        time = steps.at.take(times).unsqueeze(-1).to(rows.x.dtype)
        return rows.map(lambda x: torch.cat([x, time], -1))
    by_step = rows.both.unflatten(0, (2, *times.T.shape))
    time = times.T[None, :, :, None].to(by_step.dtype).expand(*by_step.shape[:-1], 1)
    return Pair.stacked(torch.cat([by_step, time], -1).flatten(0, 2))


def finish(layer: Prepared, steps: Ragged, ends: Tensor, mask: Tensor, states: States, arithmetic: Arithmetic) -> Last:
    """The last output of a `StageNetLayer`.

    Args:
        layer: the layer.
        steps: its rows; samples go in its order here.
        ends: one past the step whose output is kept.
        mask: of steps, `[samples, steps]`.
        states: of its cell.
        arithmetic: the rule set.

    Returns:
        `[samples, hidden]`, and `back` to the multipliers of the states and of the forget master gates.
    """
    windows = Windows.of(steps, ends, states, layer.module.conv_size)
    return staged(layer.tail, states.h, windows.rows, windows, states.log_p, arithmetic)


def staged(
    tail: Tail, h: Pair, places: Pair, windows: Windows, log_p: Pair, arithmetic: Arithmetic
) -> tuple[Pair, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """The re-weighted convolution over each window, times its theme, plus the state at its end.

    Args:
        tail: of the layer.
        h: states, `[…, units]` in both streams.
        places: where in `h` each window's states stand, `[samples, window]` in both streams.
        windows: of which steps they are.
        log_p: from the cell, whose master gates make the stages.
        arithmetic: the rule set.

    Returns:
        `[samples, hidden]`, and `back` to the multipliers of `h` and of the forget master gates.
    """
    levels, rows = tail.levels, windows.rows
    h_pair, real, at = (h.x, h.x0), windows.real.squeeze(-1), (places.x, places.x0)
    local, mean, last, log_stage = ops.stage_window(
        *h_pair, log_p.x, log_p.x0, *at, rows.x, rows.x0, real, levels, tail.hidden
    )
    theme, scale_back = linear(Pair.stacked(mean.flatten(0, 1)), *tail.scale)
    theme, relu_back = activation(theme, "relu", arithmetic)
    theme, rescale_back = linear(theme, *tail.rescale)
    if arithmetic.static:
        convolved, convolution_back = linear(Pair.stacked(local.flatten(2).flatten(0, 1)), *tail.convolution)
    else:
        convolved, convolution_back = convolve(local, real, *tail.convolution)
    out, out_back = gated_sum(theme, convolved, last, arithmetic)

    def back(m: Tensor) -> tuple[Tensor, Tensor]:
        m_theme, m_convolved = out_back(m)
        m_local = convolution_back(m_convolved).reshape(local[0].shape)
        m_mean = scale_back(relu_back(rescale_back(m_theme)))
        at_input = rows.x, real, log_stage, log_p.x
        return ops.stage_window_backward(m_local, m_mean, m, *h_pair, *at, *at_input, levels, arithmetic.half)

    return out, back


_PARTS = 8  # at most: a product of its own costs as much as some rows of zeros


def convolve(local: Tensor, real: Tensor, weight: Tensor, bias: Tensor) -> tuple[Pair, Back]:
    """One output per window in both streams; the ordinary gradient is exact.

    Args:
        local: `[2, samples, window, in]`, 0 where no step is.
        real: where a step is, bool `[samples, window]`. Samples by falling length save the most.
        weight: `[out, window · in]`.
        bias: `[out]`.

    Returns:
        `[samples, out]`, and `back` from its multipliers to those of windows, `[samples, window · in]`, which are 0
        at places without a step that were left out.
    """
    _, samples, window, size = local.shape
    flat, parts = local.flatten(2), _parts(real)
    if parts == [(0, window, samples)]:
        return linear(Pair.stacked(flat.flatten(0, 1)), weight, bias)
    out = bias.repeat(2, samples, 1)
    slices = [(slice(first * size, end * size), count) for first, end, count in parts]
    for columns, count in slices:
        for stream in (0, 1):
            out[stream, :count].addmm_(flat[stream, :count, columns], weight[:, columns].T)

    def back(m: Tensor) -> Tensor:
        found = m.new_zeros(samples, window * size)
        for columns, count in slices:
            torch.mm(m[:count], weight[:, columns], out=found[:count, columns])
        return found

    return Pair.stacked(out.flatten(0, 1)), back


def _parts(real: Tensor) -> list[tuple[int, int, int]]:
    """Places of the window that nearly as many samples fill, from, to, and the samples; none that nobody fills."""
    samples = len(real)
    number = ramp(samples, 1, real.device, first=1)[:, None]
    filled = (real * number).amax(0).cummax(0).values.tolist()
    parts: list[tuple[int, int, int]] = []
    fewest = 0
    for place, count in enumerate(filled):
        if parts and count <= fewest + samples // _PARTS:
            parts[-1] = (parts[-1][0], place + 1, count)
        elif count > 0:
            fewest = count
            parts.append((place, place + 1, count))
    return parts
