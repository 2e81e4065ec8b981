"""Compiles every kernel that the benchmark meets in several processes, into Triton's cache on disk."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from gpu_first_calls import first_calls
from model_results import rounded

SCRIPT = Path(__file__).parent / "gpu_first_calls.py"
PROCESSES = 16
LONGEST = 150.0  # seconds


def warm_up(device: torch.device, matching: str, seconds: float, processes: int | None = None) -> dict:
    """Waits for processes that each make a share of the first calls.

    Args:
        device: the device; each process needs a context of its own there.
        matching: only calls whose names hold this text.
        seconds: processes that take longer are ended.
        processes: their number; by default one per core, at most :data:`PROCESSES`.

    Returns:
        The row: processes, calls, seconds, and the calls or processes that failed.
    """
    calls = len(first_calls(matching))
    count = min(calls, processes or min(PROCESSES, len(os.sched_getaffinity(0))))
    start = time.monotonic()
    command = [sys.executable, str(SCRIPT), str(device), "-k", matching]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [*command, "--share", str(number), str(count)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip
    failed = []
    for number, process in enumerate(started):
        failed += _ended(process, number, start + seconds - time.monotonic())
    return {"processes": count, "calls": calls, "seconds": rounded(time.monotonic() - start), "failed": failed}


def _ended(process: subprocess.Popen, number: int, seconds: float) -> list[dict]:
    try:
        said, errors = process.communicate(timeout=max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return [{"call": f"process {number}", "error": "ended: its time was over"}]
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    if process.returncode and not found:
        last = (errors.strip().splitlines() or [""])[-1]
        found = [{"call": f"process {number}", "error": f"exit code {process.returncode}: {last[:300]}"}]
    return found
