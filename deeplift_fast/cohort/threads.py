"""How PyTorch's threads are shared out while a cohort is attributed, read and written."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from deeplift_fast.pyhealth.fused.recognise import family

HEAVY = 1 << 20
"""Weights outside embeddings from which on every thread works on the same batch."""

MOST_LANES = 4
"""Parts that are attributed at once, at most: each is held in memory."""


def lanes_for(model: Any, fuse: bool) -> int:
    """How many parts of a cohort are attributed at once.

    PyTorch's threads wait for each other after every operation, and small models are made of many. Parts side by side,
    each with threads of its own, do not wait. Only models with fused layers in eval mode: others may draw at random.

    Args:
        model: the model that is explained.
        fuse: whether its fused layers may be used.
    """
    modules: list[nn.Module] = list(model.modules())
    embedded = {id(p) for each in modules if isinstance(each, nn.Embedding) for p in each.parameters()}
    light = sum(p.numel() for p in model.parameters() if id(p) not in embedded) < HEAVY
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    steady = fuse and family(model) is type(model) and not any(each.training for each in modules)
    return min(torch.get_num_threads(), MOST_LANES) if light and on_cpu and steady else 1


@contextlib.contextmanager
def threads_for(lanes: int) -> Iterator[None]:
    """Divides PyTorch's threads by the parts that are attributed at once.

    What decides is the model alone, since the last bits of a sum may depend on the number of threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // lanes))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Lanes:
    """Calls side by side, whose results come in the order of what was given; a context manager.

    Args:
        count: how many at once; 1 calls on the caller's own thread.
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
        """The share of lanes that have nothing to do."""
        return max(0.0, 1 - sum(not each.done() for each in self._waiting) / self.count)

    def each[Given, Made](self, call: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
        """`call` of everything given; as many as there are lanes, and one more, are held at a time.

        What was given before an error of `given` is still called and comes before the error.
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
