"""Lists installed packages, backends, the backend of each op on each device, and the precision of products."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from deeplift_fast import ops
from deeplift_fast.ops import precision

PACKAGES = ("deeplift_fast", "torch", "numpy", "triton", "pyhealth", "captum", "pyarrow", "distributed")
DEVICES = ("cpu", "cuda")


def describe() -> str:
    """The report that `deeplift-fast doctor` prints."""
    return "\n".join([*_versions(), "", *_backends(), "", *_choices(), "", *_precision(), "", *_devices()])


def _versions() -> list[str]:
    rows = [("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for package in PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    return ["Versions", *(f"  {name:<14} {found}" for name, found in rows)]


def _backends() -> list[str]:
    lines = ["Backends"]
    for backend in ops.backends():
        state = "present" if backend.missing is None else f"missing: {backend.missing}"
        if backend.name == "Triton" and backend.missing is None and not torch.cuda.is_available():
            state = "present; no CUDA device here to run it on"
        lines.append(f"  {backend.name:<8} ({backend.device}) {state}")
    return lines


def _choices() -> list[str]:
    width = max(map(len, ops.SCHEMAS)) + 2
    devices = (*DEVICES, "elsewhere")
    rows = [("op", devices), *((op, [ops.backend_for(op, device) for device in devices]) for op in ops.SCHEMAS)]
    lines = (f"  {name:<{width}}{''.join(f'{cell:<10}' for cell in cells).rstrip()}" for name, cells in rows)
    return ["Backend of each op, by device", *lines]


def _precision() -> list[str]:
    return [
        "Precision of float32 products in attributions",
        *(f"  {device:<5} {precision.description(device)}" for device in DEVICES),
    ]


def _devices() -> list[str]:
    capability = torch.backends.cpu.get_cpu_capability()
    lines = ["Devices", f"  cpu: {torch.get_num_threads()} threads, {capability}"]
    for index in range(torch.cuda.device_count()):
        lines.append(f"  cuda:{index}: {torch.cuda.get_device_name(index)}")
    return lines
