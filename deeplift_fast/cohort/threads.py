"""How many threads PyTorch gets while a cohort is read and written beside it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

HEAVY = 1 << 20
"""Weights outside embeddings from which on attribution is so much slower than reading that it gets every thread."""


@contextlib.contextmanager
def threads_for(model: Any) -> Iterator[None]:
    """Leaves one core to reading and writing where the model is small.

    PyTorch's threads wait for each other after every operation: where one has to share its core, all of them wait. What
    decides is the model alone, since the last bits of a sum may depend on the number of threads.

    Args:
        model: the model that is explained.
    """
    before = torch.get_num_threads()
    embedded = {id(p) for each in model.modules() if isinstance(each, nn.Embedding) for p in each.parameters()}
    weights = sum(p.numel() for p in model.parameters() if id(p) not in embedded)
    torch.set_num_threads(before if weights >= HEAVY else max(1, before - 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
