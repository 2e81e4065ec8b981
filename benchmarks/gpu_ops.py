"""Compares each op on a device with float64, and its speed with a copy of the same bytes."""

import torch
from gpu_cases import Case, worst_error
from gpu_timing import copy_seconds, kernel_seconds
from model_results import rounded

from deeplift_fast.ops import backend_for

ROUNDS = 10
# Ops that take each number, or each row of few numbers, once: the device's bandwidth bounds them.
ELEMENTWISE = ("secant", "gelu", "gated_sum", "log_mean_softmax", "log_mean_softmax_backward", "layer_norm_backward")


def numbers(case: Case, device: torch.device) -> dict:
    """The worst error divided by the tolerance, by dtype, at small and large sizes; right if at most 1."""
    dtypes = case.dtypes if device.type == "cpu" else (*case.dtypes, *case.on_gpu)
    errors = {
        f"{str(dtype).removeprefix('torch.')}, {size}": worst_error(case, dtype, device, size == "large")
        for dtype in dtypes
        for size in ("small", "large")
        if size == "small" or dtype == torch.float32
    }
    return {
        "backend": backend_for(case.op, device.type),
        "errors": {name: rounded(worst) for name, worst in errors.items()},
        "right": all(worst <= 1 for worst in errors.values()),
    }


def speed(case: Case, device: torch.device, rounds: int = ROUNDS, large: bool = True) -> dict:
    """Milliseconds in float32 inside a CUDA graph, and those of a copy of as many bytes on the device."""
    call = case.call(torch.float32, device, large)
    moved = case.bytes_moved(call)
    seconds = kernel_seconds(lambda: case.returned(call), device, rounds)
    copy = copy_seconds(moved, device, rounds)
    row = {
        "ms": rounded(1e3 * seconds),
        "MB": rounded(moved / 1e6),
        "GB/s": rounded(moved / seconds / 1e9),
        "copy, ms": rounded(1e3 * copy),
        "share of a copy's speed": rounded(copy / seconds),
    }
    return row | ({"TFLOP/s": rounded(call.flops / seconds / 1e12)} if call.flops else {})
