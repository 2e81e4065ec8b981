"""StageNet's convolution over the last steps of each sample: one output per window, whose gradient is exact."""

from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core.constants import ramp
from deeplift_fast.pyhealth.fused import pair, watched
from deeplift_fast.pyhealth.fused.pair import Back, Pair, linear

FEW = pair.FEW // 2  # samples; each has a row in both streams
_PARTS = 8  # most products: a further product costs as much as some rows of zeros


class Convolution:
    """The `nn.Conv1d` of a layer, whose kernel is as long as the window.

    Few samples on the CPU use its weights as they are. All others use a copy in the order of places. On the CPU it is
    made at its first use, and again after a change of the weights. Elsewhere it is made here.

    Args:
        layer: the convolution.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._made: tuple[watched.Watched, Tensor] | None = None
        if not watched.on_cpu(layer.weight):
            self.by_place()

    @property
    def bias(self) -> Tensor | None:
        """The bias, `[out]`."""
        bias: Tensor | None = self._layer.bias
        return bias

    def by_place(self) -> Tensor:
        """The weights, `[out, window · in]`."""
        made = self._made
        if made is None or made[0].is_outdated():
            weight = self._layer.weight
            made = (
                watched.Watched([self._layer] if watched.on_cpu(weight) else []),
                weight.permute(0, 2, 1).reshape(len(weight), -1).contiguous(),
            )
            self._made = made
        return made[1]

    def run(self, local: Tensor, real: Tensor, static: bool) -> tuple[Pair, Back]:
        """The output of each window in both streams, `[samples, out]`.

        Args:
            local: `[2, samples, window, in]`; 0 where the sample has no step.
            real: whether the sample has the step, bool `[samples, window]`. Samples by falling length save the most.
            static: whether paths must follow from shapes alone.

        Returns:
            The outputs, and `back` from their multipliers to those of windows, `[samples, window, in]`.
        """
        _, samples, window, size = local.shape
        if static:
            return whole(local, self.by_place(), self.bias)
        if samples > FEW:
            return in_parts(local, real, self.by_place(), self.bias)
        x = local.transpose(2, 3).reshape(2 * samples, -1)
        found, back = linear(Pair.stacked(x), self._layer.weight.flatten(1), self.bias)
        return found, lambda m: back(m).view(samples, size, window).transpose(1, 2)


def whole(local: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Pair, Back]:
    """As :func:`in_parts`, also over places without a step; `weight` may be that of several layers, used in turn."""
    found, back = linear(Pair.stacked(local.flatten(2).flatten(0, 1)), weight, bias)
    return found, lambda m: back(m).view(local.shape[1:])


def in_parts(local: Tensor, real: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Pair, Back]:
    """The output of each window, without the products of places that most samples lack.

    Args:
        local: as for :meth:`Convolution.run`.
        real: likewise.
        weight: `[out, window · in]`.
        bias: `[out]`, or `None`.

    Returns:
        As :meth:`Convolution.run`. The multipliers are 0 at the places that the products leave out.
    """
    _, samples, window, size = local.shape
    flat, parts = local.flatten(2), _parts(real)
    if parts == [(0, window, samples)]:
        return whole(local, weight, bias)
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    out = bias.repeat(2, samples, 1)
    slices = [(slice(first * size, end * size), count) for first, end, count in parts]
    for columns, count in slices:
        if count == samples:  # one reading of the weights for both streams
            out.flatten(0, 1).addmm_(flat.flatten(0, 1)[:, columns], weight[:, columns].T)
            continue
        for stream in (0, 1):
            out[stream, :count].addmm_(flat[stream, :count, columns], weight[:, columns].T)

    def back(m: Tensor) -> Tensor:
        found = m.new_zeros(samples, window * size)
        for columns, count in slices:
            torch.mm(m[:count], weight[:, columns], out=found[:count, columns])
        return found.view(samples, window, size)

    return Pair.stacked(out.flatten(0, 1)), back


def _parts(real: Tensor) -> list[tuple[int, int, int]]:
    """Neighbouring places of the window with nearly as many samples: first place, end, number of samples.

    Places without any step are left out.
    """
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
