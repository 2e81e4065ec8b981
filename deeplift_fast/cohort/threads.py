"""Divides PyTorch's threads between parts of a cohort that are attributed side by side."""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from deeplift_fast.pyhealth.fused.recognise import family

HEAVY = 1 << 20
"""Number of weights outside embeddings from which on all threads work on the same batch."""

TURN = 0.0001
"""Seconds that a thread waits for Python's lock before it asks for it; Python's own 5 ms are half a part's time."""

MOST_LANES = 4
"""Most parts that are attributed at once; memory holds each."""


def lanes_for(model: Any, fuse: bool) -> int:
    """The number of parts of a cohort that are attributed at once.

    PyTorch's threads wait for each other after every operation, and small models consist of many short operations.
    Parts side by side, each with its own threads, do not wait. Models without fused layers, and models in training, may
    draw at random: their parts follow one another.

    Args:
        model: the explained model.
        fuse: whether fused layers may be used.
    """
    modules: list[nn.Module] = list(model.modules())
    embedded = {id(p) for each in modules if isinstance(each, nn.Embedding) for p in each.parameters()}
    light = sum(p.numel() for p in model.parameters() if id(p) not in embedded) < HEAVY
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    steady = fuse and family(model) is type(model) and not any(each.training for each in modules)
    return min(torch.get_num_threads(), MOST_LANES) if light and on_cpu and steady else 1


@contextlib.contextmanager
def threads_for(lanes: int) -> Iterator[None]:
    """Divides PyTorch's threads by the number of parts that are attributed at once.

    That number depends on the model alone, since the last bits of a sum may depend on the number of threads. Parts side
    by side also take turns more often, so that none of them waits long for another.
    """
    before, turn = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(max(1, before // lanes))
    if lanes > 1:
        sys.setswitchinterval(min(turn, TURN))
    try:
        yield
    finally:
        torch.set_num_threads(before)
        sys.setswitchinterval(turn)


class Lanes:
    """Runs calls side by side and yields their results in order; a context manager.

    Args:
        count: number of calls at once; 1 for the caller's own thread.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._waiting: deque[Future[Any]] = deque()
        self._pool = ThreadPoolExecutor(count, "deeplift_fast part") if count > 1 else None

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(self, *about: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def idle(self) -> float:
        """The share of idle lanes."""
        return max(0.0, 1 - sum(not each.done() for each in self._waiting) / self.count)

    def each[Given, Made](self, call: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
        """Yields `call(item)` for each item; one item more than there are lanes is held at a time.

        If `given` raises, the results of earlier items come before the error.
        """
        if self._pool is None:
            yield from map(call, given)
            return
        source, broken = iter(given), None
        while broken is None:
            try:
                self._waiting.append(self._pool.submit(call, next(source)))
            except StopIteration:
                break
            except Exception as error:
                broken = error
            if len(self._waiting) > self.count:
                yield self._waiting.popleft().result()
        while self._waiting:
            yield self._waiting.popleft().result()
        if broken is not None:
            raise broken
