"""The check that PyTorch can compute on a device."""


def check_device(device: str) -> None:
    """Raise `ValueError` unless PyTorch can compute on a device, as the option `--device` names it."""
    import torch

    try:
        torch.empty(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {device} is not available here ({reason}); use --device cpu, or cuda where there is a GPU"
        ) from error
