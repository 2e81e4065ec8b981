"""StageNet's convolution over whole windows, of which short samples fill the end alone."""

import torch
from torch import Tensor

from deeplift_fast.fused.constants import ramp
from deeplift_fast.fused.pair import Back, Pair, linear

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
