"""The explained class of each sample, in plain torch."""

import torch
from torch import Tensor


def target(logits: Tensor, weight: Tensor, chosen: int) -> tuple[Tensor, Tensor, Tensor]:
    """The explained class of each sample, its logits in both streams, and its weights.

    Args:
        logits: at the input and then at the baseline; one class or more.
        weight: the weights of the last layer, part by part.
        chosen: the class, or −1 for the class with the largest logit at the input: the first of several, or the first
            NaN.

    Returns:
        `(classes, ends, seeds)`: the class, its logits, and its weights.
    """
    x = logits[0]
    classes = x.argmax(1) if chosen < 0 else torch.full((len(x),), chosen, device=x.device)
    ends = logits.gather(2, classes[None, :, None].expand(2, -1, 1))[..., 0]
    return classes, ends, weight.index_select(1, classes)
