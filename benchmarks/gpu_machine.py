"""The machine that a run of `gpu.py` met."""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "triton", "numpy", "pyhealth", "deeplift_fast")
ASKED = {
    "driver": "driver_version",
    "clock, MHz": "clocks.sm",
    "highest clock, MHz": "clocks.max.sm",
    "memory's clock, MHz": "clocks.mem",
    "power limit, W": "power.limit",
}


def described(name: str) -> dict:
    """Device, software and settings; clocks where `nvidia-smi` is there.

    Args:
        name: the device's name.
    """
    found = {"device": name, "devices": torch.cuda.device_count(), "CUDA": torch.version.cuda}
    found["ROCm"] = torch.version.hip
    found["TF32 in matrix products"] = torch.backends.cuda.matmul.allow_tf32
    found["precision of float32 products"] = torch.get_float32_matmul_precision()
    return found | {package: _release(package) for package in PACKAGES} | _clocks()


def _release(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _clocks() -> dict[str, str | None]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return dict.fromkeys(ASKED)
    index = torch.cuda.current_device()
    command = [program, f"--id={index}", f"--query-gpu={','.join(ASKED.values())}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    values: list[str | None] = [each.strip() for each in done.stdout.split(",")] if not done.returncode else []
    return dict(zip(ASKED, values + [None] * (len(ASKED) - len(values)), strict=True))
