"""Attention and the kernels of recurrent steps under `compute-sanitizer --tool racecheck`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from gpu_warm_up import SCRIPT

WATCHED = {
    "attention": ("attention, row 0", "attention, every row"),
    "attention_backward": ("attention_backward, row 0, midpoint", "attention_backward, every row, midpoint"),
    "recurrent": ("recurrent, stagenet, secant", "recurrent, gru, secant", "recurrent, lstm, secant"),
    "recurrent_backward": ("recurrent_backward, stagenet", "recurrent_backward, gru", "recurrent_backward, lstm"),
    "lockstep": ("lockstep, secant", "lockstep_backward"),
}
FOUND = 99  # the exit code that the tool is told for a hazard
MISSING = "compute-sanitizer is neither on PATH nor in CUDA_HOME"


def tool() -> str | None:
    """The path of compute-sanitizer, if there is one."""
    places = [Path(os.environ[name]) / "bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=os.pathsep.join(map(str, places))
    )


def checked(program: str, name: str, device: torch.device, seconds: float) -> dict:
    """The tool's summary for the calls of a name in :data:`WATCHED`; right if it found no hazard.

    Raises:
        RuntimeError: if the calls do not end in time, or fail.
    """
    watch = [program, "--tool", "racecheck", "--error-exitcode", str(FOUND)]
    command = [*watch, sys.executable, str(SCRIPT), str(device), "--names", *WATCHED[name]]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"racecheck took more than {seconds:.0f} s") from None
    summary = re.findall(r"RACECHECK SUMMARY: (.*)", done.stdout + done.stderr)
    if done.returncode not in (0, FOUND) or not summary:
        raise RuntimeError(f"racecheck ended with code {done.returncode}: {(done.stdout + done.stderr)[-300:]}")
    return {"summary": summary[-1], "right": not done.returncode}
