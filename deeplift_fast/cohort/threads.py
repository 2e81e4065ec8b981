"""Threads of PyTorch while other threads and processes of a run want cores too."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def fewer_threads(helpers: int) -> Iterator[None]:
    """Leaves cores to the processes that read and the thread that writes.

    PyTorch's threads wait for each other after every operation. Where one of them has to share its core, all of them
    wait: on two cores a Transformer's cohort took 14 times as long with two threads as with one. The number depends
    on the kind of source alone, as the last bits of a sum may depend on it.

    Args:
        helpers: threads and processes beside PyTorch's own.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before - helpers))
    try:
        yield
    finally:
        torch.set_num_threads(before)
