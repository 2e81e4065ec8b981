"""The memory and the order of CUDA graphs: how they are captured, and how they wait for one another.

See "CUDA Graphs" in PyTorch's "CUDA semantics", and `torch.cuda.graph`.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, override

import torch
from torch import Tensor

WARM_UPS = 2  # runs before a capture: Triton compiles, libraries choose their kernels

_capturing = threading.Lock()  # PyTorch allows one capture at a time in a process


@dataclass(frozen=True)
class Recording:
    """The recorded launches of a function.

    Attributes:
        replay: repeats the launches.
        tensors: the tensors that every replay writes to.
    """

    replay: Callable[[], None]
    tensors: list[Tensor]


class GraphMemory(Protocol):
    """Memory that several graphs share.

    A replay may write anywhere in it. So graphs of one memory never run at the same time, whatever streams they are
    replayed on, and the results of one are copied before another one runs: :meth:`begin` and :meth:`end` enclose each
    replay with the copies before and after it.

    Attributes:
        held: the bytes that PyTorch has reserved for it. They never get fewer: memory of a dropped graph serves later
            captures, and goes back when all graphs are dropped.
        total: the bytes of the device's memory.
    """

    held: int
    total: int

    def __init__(self, device: torch.device) -> None: ...

    def record(self, function: Callable[[], list[Tensor]]) -> tuple[Recording, list[Tensor]]:
        """Record the launches of a function; also returns the results of a plain run before."""
        ...

    def begin(self) -> None:
        """Make the current stream wait for earlier replays."""
        ...

    def end(self) -> None:
        """Let later replays wait for the work so far on the current stream."""
        ...

    def wait(self) -> None:
        """Wait until no graph runs, so that its tensors may be dropped."""
        ...


class CudaGraphMemory(GraphMemory):
    """A :class:`GraphMemory` on CUDA or ROCm.

    Captures run on one stream of the device, made for them: without a stream of its own, `torch.cuda.graph` captures on
    one of the device that was current at the first capture of the process. Other threads may copy, allocate pinned
    memory or wait for events during a capture.
    """

    def __init__(self, device: torch.device) -> None:
        self.held = 0
        self.total = torch.cuda.get_device_properties(device).total_memory
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._free = torch.cuda.Event()

    @override
    def record(self, function: Callable[[], list[Tensor]]) -> tuple[Recording, list[Tensor]]:
        graph, device = torch.cuda.CUDAGraph(), self._device
        with _capturing, torch.cuda.device(device):
            caller = torch.cuda.current_stream(device)
            self._stream.wait_stream(caller)
            self._stream.wait_event(self._free)  # graphs use the scratch memory that libraries keep for this stream
            with torch.cuda.stream(self._stream):
                plain = [function() for _ in range(WARM_UPS)][-1]
            caller.wait_stream(self._stream)
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                before = torch.cuda.memory_reserved(device)
                tensors = function()
                self.held += max(0, torch.cuda.memory_reserved(device) - before)

        def replay() -> None:
            with torch.cuda.device(device):
                graph.replay()

        return Recording(replay, tensors), plain

    @override
    def begin(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._free)

    @override
    def end(self) -> None:
        self._free.record(torch.cuda.current_stream(self._device))

    @override
    def wait(self) -> None:
        self._free.synchronize()
