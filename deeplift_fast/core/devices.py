"""Devices: the check that PyTorch can compute on one, and copies to one that wait for nothing."""

import torch
from torch import Tensor


def check_device(device: str) -> None:
    """Raise `ValueError` unless PyTorch can compute on a device, as the option `--device` names it."""
    try:
        torch.empty(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {device} is not available here ({reason}); use --device cpu, or cuda where there is a GPU"
        ) from error


def moved(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on a device, in a dtype (`None`: its own).

    A plain copy from the CPU to a GPU waits until the GPU has finished all earlier work. A copy from pinned memory does
    not.
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        return _pinned(tensor.to(dtype or tensor.dtype)).to(device, non_blocking=True)
    return tensor.to(device, dtype or tensor.dtype)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory()
