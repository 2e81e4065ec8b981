"""The explained class of each sample as one Triton kernel; a program handles a sample."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.tiles import dense, launch, read

COLUMNS = 256  # weights that a program copies at a time


def target(logits: Tensor, weight: Tensor, chosen: int) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.target`."""
    logits, weight = dense(logits, weight)
    (_, batch, classes), (parts, _, width) = logits.shape, weight.shape
    found = logits.new_empty(batch, dtype=torch.int64)
    ends, seeds = logits.new_empty(2, batch), weight.new_empty(parts, batch, width)
    sizes = batch, classes, parts, width, chosen, triton.next_power_of_2(classes), COLUMNS
    launch(_target_kernel, (batch,), logits, weight, found, ends, seeds, *sizes)
    return found, ends, seeds


@triton.jit(do_not_specialize=("chosen",))
def _target_kernel(
    logits, weight, found, ends, seeds, batch, classes, parts, width, chosen, CLASSES: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    sample, kind = tl.program_id(0).to(tl.int64), tl.arange(0, CLASSES)
    inside = kind < classes
    x = read(logits + (sample * classes + kind), inside, float("-inf"))
    is_nan = x != x
    largest = tl.max(tl.where(is_nan, float("-inf"), x), 0)
    first = tl.min(tl.where(inside & (x == largest), kind, CLASSES), 0)
    first_nan = tl.min(tl.where(is_nan, kind, CLASSES), 0)
    predicted = tl.where(first_nan < CLASSES, first_nan, first)
    at = tl.where(chosen < 0, predicted, chosen).to(tl.int64)
    tl.store(found + sample, at)
    tl.store(ends + sample, tl.load(logits + sample * classes + at))
    tl.store(ends + batch + sample, tl.load(logits + (batch + sample) * classes + at))
    for part in range(parts):
        for left in range(0, width, COLUMNS):
            column = left + tl.arange(0, COLUMNS)
            some = column < width
            row = tl.load(weight + ((part * classes + at) * width + column), mask=some)
            tl.store(seeds + ((part * batch + sample) * width + column), row, mask=some)
