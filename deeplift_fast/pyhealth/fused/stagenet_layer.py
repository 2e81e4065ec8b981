"""StageNetLayer: the cell at every step, then the convolution over the last steps of each sample.

Gao et al. 2020, "StageNet: Stage-Aware Neural Networks for Health Risk Prediction". The operations and their order are
those of `StageNetLayer.forward` in PyHealth 2.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.pyhealth.fused import recurrent
from deeplift_fast.pyhealth.fused.entries import Contributions, Entry, between
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Back, Pair, activation, gated_sum, linear
from deeplift_fast.pyhealth.fused.recurrent import Packed, States
from deeplift_fast.pyhealth.fused.sequences import AllSteps, Steps, steps_of
from deeplift_fast.pyhealth.fused.stagenet_convolution import Convolution

Last = tuple[Pair, Callable[[Tensor], tuple[Tensor, Tensor | None]]]


@dataclass(frozen=True)
class Tail:
    """The weights after the cell.

    Several layers have one theme, from all inputs to all outputs, and one more dimension in front of the convolution.

    Attributes:
        levels: the levels of the cell.
        hidden: the units of the cell without padding.
        scale: weight and bias of the theme's first layer.
        rescale: weight and bias of the theme's second layer.
        convolution: the convolution over windows, as :meth:`.stagenet_convolution.Convolution.run`.
    """

    levels: int
    hidden: int
    scale: tuple[Tensor, Tensor]
    rescale: tuple[Tensor, Tensor]
    convolution: Callable[[Tensor, Tensor, bool], tuple[Pair, Back]]


@dataclass(frozen=True)
class Prepared:
    """A layer's weights, packed.

    Attributes:
        module: the layer.
        cell: the weights of the cell.
        convolution: the convolution over windows.
    """

    module: Any
    cell: Packed
    convolution: Convolution

    @property
    def tail(self) -> Tail:
        """The weights after the cell."""
        module = self.module
        scale, rescale = ((each.weight, each.bias) for each in (module.nn_scale, module.nn_rescale))
        return Tail(self.cell.levels, module.hidden_dim, scale, rescale, self.convolution.run)


@dataclass(frozen=True)
class Given:
    """A layer and its part of a batch.

    Attributes:
        layer: the layer, from :func:`prepare`.
        entry: the feature.
        ends: one past the step whose output is kept, int64 `[samples]`.
        mask: the mask of steps, `[samples, steps]`.
        times: the time of each step, `[samples, steps]`.
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
    return Prepared(module, packed, Convolution(module.nn_conv))


@dataclass(frozen=True)
class Windows:
    """The last steps of each sample, which the convolution sees.

    Attributes:
        rows: the rows of the steps, `[samples, window]` in both streams; any number where a sample is shorter.
        real: whether the sample has the step, `[samples, window, 1]`.
    """

    rows: Pair
    real: Tensor

    @staticmethod
    def of(steps: Steps, ends: Tensor, h: Pair, size: int) -> "Windows":
        """The `size` steps before `ends`, among the rows of the states `h`."""
        rows, real = steps.before(ends, size)
        return Windows(Pair(rows, rows if h.where is None else h.where[rows]), real.unsqueeze(-1))


def run(
    given: Given, lengths: Tensor, arithmetic: Arithmetic, segment: tuple[float, float], finish: Callable[..., Last]
) -> tuple[Pair, Callable[[Tensor], Tensor]]:
    """The layer's last output, `[samples, hidden]`, in the batch's order.

    Args:
        given: the layer and its input.
        lengths: the number of steps that the output depends on, 1 or more, int64 `[samples]`.
        arithmetic: the rule set.
        segment: the part of the line from baseline to input.
        finish: the operations after the cell: :func:`finish`, or the function of that name for the attention variant.
    """
    layer, longest = given.layer, given.entry.baseline.shape[1]
    steps = steps_of(lengths, longest, arithmetic.static)
    u, entered = inputs(given, steps, segment)
    states = recurrent.run(layer.cell, u, steps, arithmetic, slope_of(arithmetic), share=segment[0] == 0)
    last, last_back = finish(layer, steps, steps.sorted(given.ends), steps.sorted(given.mask), states, arithmetic)

    def back(m: Tensor) -> Tensor:
        m_h, m_master = last_back(steps.sorted(m))
        return entered(states.back(m_h, m_master))

    return steps.unsorted(last), back


def slope_of(arithmetic: Arithmetic) -> str:
    """The multiplier of the cell's activations, as for :func:`deeplift_fast.ops.recurrent`."""
    return "pyhealth" if arithmetic.rules == "pyhealth" else "secant"


def inputs(given: Given, steps: Steps, segment: tuple[float, float]) -> tuple[Pair, Contributions]:
    """The cell's inputs, `[rows, columns]`, and the way from multipliers (not of the time) to contributions."""
    if isinstance(steps, AllSteps) and segment == (0.0, 1.0):
        timed = given.entry.timed(given.times)
        if timed is not None:
            return timed
    rows, entered = given.entry.enter(steps.at)
    return _with_time(between(rows, *segment), given.times, steps), entered


def _with_time(rows: Pair, times: Tensor, steps: Steps) -> Pair:
    """Each row with its time as one more column."""
    if rows.both is None:
        time = steps.at.take(times).unsqueeze(-1).to(rows.x.dtype)
        return rows.map(lambda x: torch.cat([x, time], -1))
    by_step = rows.both.unflatten(0, (2, *times.T.shape))
    time = times.T[None, :, :, None].to(by_step.dtype).expand(*by_step.shape[:-1], 1)
    return Pair.stacked(torch.cat([by_step, time], -1).flatten(0, 2))


def finish(layer: Prepared, steps: Steps, ends: Tensor, mask: Tensor, states: States, arithmetic: Arithmetic) -> Last:
    """The last output of a `StageNetLayer`.

    Args:
        layer: the layer.
        steps: its rows; the samples below are in the order of its places.
        ends: one past the step whose output is kept.
        mask: the mask of steps, `[samples, steps]`.
        states: the states of the cell.
        arithmetic: the rule set.

    Returns:
        `[samples, hidden]`, and `back` to the multipliers of the states and of the forget master gates.
    """
    windows = Windows.of(steps, ends, states.h, layer.module.conv_size)
    return staged(layer.tail, states.h, windows.rows, windows, states.log_p, arithmetic)


def staged(
    tail: Tail, h: Pair, places: Pair, windows: Windows, log_p: Pair, arithmetic: Arithmetic
) -> tuple[Pair, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """The re-weighted convolution over each window, times its theme, plus the state at its end.

    Args:
        tail: the layer's weights.
        h: the states, `[…, units]` in both streams.
        places: the row of `h` for each step of a window, `[samples, window]` in both streams.
        windows: the steps, as rows of `log_p`.
        log_p: the logarithms below the cell's master gates, which make the stages.
        arithmetic: the rule set.

    Returns:
        `[samples, hidden]`, and `back` to the multipliers of `h` and of the forget master gates.
    """
    levels, rows = tail.levels, windows.rows
    h_pair, real, at = (h.x, h.x0), windows.real.squeeze(-1), (places.x, places.x0)
    local, mean, last, log_stage = ops.unchecked.stage_window(
        *h_pair, log_p.x, log_p.x0, *at, rows.x, rows.x0, real, levels, tail.hidden
    )
    together = tail.scale[0].shape[1]  # the inputs of all layers side by side
    theme, scale_back = linear(Pair.stacked(mean.reshape(-1, together)), *tail.scale)
    theme, relu_back = activation(theme, "relu", arithmetic)
    theme, rescale_back = linear(theme, *tail.rescale)
    theme = theme.map(lambda x: x.reshape(-1, tail.hidden))
    convolved, convolution_back = tail.convolution(local, real, arithmetic.static)
    out, out_back = gated_sum(theme, convolved, last, arithmetic)

    def back(m: Tensor) -> tuple[Tensor, Tensor]:
        m_theme, m_convolved = out_back(m)
        m_mean = scale_back(relu_back(rescale_back(m_theme.reshape(-1, together)))).reshape(-1, tail.hidden)
        at_input = rows.x, real, log_stage, log_p.x
        m_local = convolution_back(m_convolved)
        return ops.unchecked.stage_window_backward(m_local, m_mean, m, *h_pair, *at, *at_input, levels, arithmetic.half)

    return out, back
