"""Whether a device is there."""


def check_device(device: str) -> None:
    """Raise unless PyTorch can compute on a device here.

    Args:
        device: as the option `--device` gives it.

    Raises:
        ValueError: naming the device and what to use.
    """
    import torch

    try:
        torch.empty(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {device} is not available here ({reason}); use --device cpu, or cuda where there is a GPU"
        ) from error
