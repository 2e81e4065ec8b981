"""The number of padded steps per batch that fit into memory."""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.profiler import ProfilerActivity, profile

from deeplift_fast.ops.registry import fresh_memory
from deeplift_fast.pyhealth.fused import buffers

SHARE = 0.25
"""Share of the free memory that attribution uses by default."""

SAFETY = 0.8
"""Share of the allowed memory that the estimate may fill."""

MOST_STEPS = {"cpu": 1 << 15, "cuda": 1 << 20}
"""Padded steps per batch beyond which larger batches are no faster, measured on Transformer and StageNet."""

LIGHT = 512
"""Bytes per padded step up to which twice as many steps are faster on a CPU, measured on MLP."""

LEAST_STEPS = 64

CAUTIOUS_STEPS = 4096
"""Padded steps per batch if no sample can be measured."""

_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""By version: folder, file of the limit, file of the usage, and the entry of `memory.stat` with droppable caches."""

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a CPU or a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)


def available(device: torch.device) -> int:
    """Bytes that attribution may use on a device: a share of what is free, within the container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * SHARE * 2)  # nothing else should need a GPU's memory
    free = psutil.virtual_memory().available
    for folder, *names, cached in _CGROUPS:
        limit, used = (_read(f"{folder}/{name}") for name in names)
        if limit.isdigit() and used.isdigit():
            droppable = dict(line.split() for line in _read(f"{folder}/memory.stat").splitlines()).get(cached, "0")
            free = min(free, int(limit) - int(used) + int(droppable))
    return max(0, int(free * SHARE))


def most_steps(device: torch.device) -> int:
    """The largest useful number of padded steps per batch on a device."""
    return MOST_STEPS.get(device.type, MOST_STEPS["cpu"])


def find_budget(attribute: Callable[[int], int], memory: int, device: torch.device, samples: int) -> int:
    """The number of padded steps per batch that fit into memory.

    The peak memory of two batches is measured, one twice as large as the other; their difference gives the cost of a
    step. The result is a power of two, so that small changes of the free memory do not change it.

    Args:
        attribute: attributes a batch of the given number of samples and returns its padded steps.
        memory: bytes that attribution may use.
        device: the model's device.
        samples: number of samples at hand.
    """
    count = max(1, min(8, samples // 2))
    sizes = [count, 2 * count] if samples >= 2 else [1]
    attribute(sizes[0])  # only the first call packs weights and fills caches
    measured = [_peak(partial(attribute, size), device) for size in sizes]
    steps, peaks = zip(*measured, strict=True)
    per_step = max(peaks[-1] / max(1, steps[-1]) / 2, (peaks[-1] - peaks[0]) / max(1, steps[-1] - steps[0]), 1.0)
    fixed = max(0.0, peaks[-1] - per_step * steps[-1])
    most = most_steps(device) << (device.type == "cpu" and per_step <= LIGHT)
    allowed = min(most, max(LEAST_STEPS, int((memory * SAFETY - fixed) / per_step)))
    return 1 << (allowed.bit_length() - 1)


def _peak(call: Callable[[], int], device: torch.device) -> tuple[int, int]:
    """The result of a call, and the peak bytes of tensors during it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        steps = call()
        return steps, torch.cuda.max_memory_allocated(device) - before
    buffers.clear()  # kept memory would not be counted
    with fresh_memory(), _quiet_profiler(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        steps = call()
    return steps, _most_at_once(profiler)


@contextlib.contextmanager
def _quiet_profiler() -> Iterator[None]:
    """Keeps the profiler's library from writing notes to standard error."""
    before = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = before or "6"
    try:
        yield
    finally:
        if before is None:
            del os.environ["KINETO_LOG_LEVEL"]


def _most_at_once(profiler: Any) -> int:
    held = most = 0
    events = profiler.profiler.kineto_results.events()
    for event in sorted((each for each in events if each.name() == "[memory]"), key=lambda each: each.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
