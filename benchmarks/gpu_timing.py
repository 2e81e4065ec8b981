"""Time and memory of calls on a device; the CPU is accepted too, for tests."""

import gc
import statistics
import time
from collections.abc import Callable

import torch

Call = Callable[[], object]
WARM_UP = 3


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


def kernel_seconds(call: Call, device: torch.device, rounds: int) -> float:
    """The median time between events on the device; launches are queued ahead, so it excludes the host's time."""
    for _ in range(WARM_UP):
        call()
    synchronise(device)
    if device.type != "cuda":
        return statistics.median(_by_the_clock(call) for _ in range(rounds))
    with torch.cuda.device(device):
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for begin, end in marks:
            begin.record()
            call()
            end.record()
    synchronise(device)
    return statistics.median(begin.elapsed_time(end) / 1e3 for begin, end in marks)


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
