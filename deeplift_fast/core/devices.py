"""Devices: the check that PyTorch can compute on one, and copies to one that wait for nothing."""

import torch
from torch import Tensor, nn


def check_device(device: str) -> None:
    """Raise `ValueError` unless PyTorch can compute on a device, as the option `--device` names it."""
    try:
        torch.empty(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {device} is not available here ({reason}); use --device cpu, or cuda where there is a GPU"
        ) from error


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter; each call asks for it, so this walks no further than to that one.

    Raises:
        StopIteration: if the model has no parameter, as `next(model.parameters())`.
    """
    waiting: list[nn.Module | None] = [model] if isinstance(model, nn.Module) else []
    while waiting:
        module = waiting.pop()
        if module is None:
            continue
        for parameter in module._parameters.values():
            if parameter is not None:
                return parameter.device
        waiting.extend(reversed(module._modules.values()))
    return next(model.parameters()).device


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
