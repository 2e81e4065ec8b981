"""CUDA graphs, time and memory of calls on a device; the CPU is accepted too, for tests."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[], object]
WARM_UP = 3
IN_A_GRAPH = 5  # calls of one graph that is timed


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def finished(call: Call, device: torch.device) -> Call:
    """The call, followed by waiting for the device."""

    def run() -> None:
        call()
        synchronise(device)

    return run


def captured(call: Callable[[], Any], device: torch.device, times: int = 1) -> tuple[Call, Any]:
    """A replay of `times` calls as one CUDA graph, and the last call's result, whose tensors each replay writes.

    On the CPU, which has no graphs, it is a function that makes the calls, and its result is that of a call.
    """
    if device.type != "cuda":
        return lambda: [call() for _ in range(times)], call()
    with torch.cuda.device(device):
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                call()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(times):
                result = call()
    return graph.replay, result


def kernel_seconds(call: Call, device: torch.device, rounds: int) -> float:
    """The median time of a call on the device alone, which a graph of :data:`IN_A_GRAPH` calls shows.

    Events around single launches would measure Python where a kernel is short.
    """
    if device.type != "cuda":
        for _ in range(WARM_UP):
            call()
        return statistics.median(_by_the_clock(call) for _ in range(rounds))
    replay, _ = captured(call, device, IN_A_GRAPH)
    with torch.cuda.device(device):
        replay()
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for begin, end in marks:
            begin.record()
            replay()
            end.record()
    synchronise(device)
    return statistics.median(begin.elapsed_time(end) / 1e3 / IN_A_GRAPH for begin, end in marks)


def _by_the_clock(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def copy_seconds(moved: int, device: torch.device, rounds: int) -> float:
    """Seconds of a copy on the device that reads and writes `moved` bytes in total."""
    source, target = (torch.zeros(max(1, moved // 2), dtype=torch.uint8, device=device) for _ in range(2))
    return kernel_seconds(lambda: target.copy_(source), device, rounds)


def peak_bytes(call: Call, device: torch.device) -> int | None:
    """The peak memory of a call on the device, above the memory held before; `None` on the CPU."""
    if device.type != "cuda":
        call()
        return None
    gc.collect()
    torch.cuda.empty_cache()
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before
