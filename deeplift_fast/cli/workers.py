"""A Dask cluster of processes on this machine."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from deeplift_fast.cli.exit import Report, warnings_reported
from deeplift_fast.support.temporary import temporary_folder

LOOPBACK = "127.0.0.1"

START = 300.0
"""Seconds within which all workers must start."""

WARNINGS = "deeplift_fast warnings"
"""Dask's topic of warnings that workers send to the run."""

_UNTIL_EXIT = ExitStack()
"""Context managers that a worker process leaves at its end."""

UNPROFILED = {"distributed": {"worker": {"profile": {"enabled": False}}}}
"""Dask's profiler of stacks would take time of attribution."""


@contextmanager
def local_client(workers: int, device: str | None, report: Report, debug: bool = False) -> Iterator[Any]:
    """Starts a cluster that listens on the loopback interface only.

    Args:
        workers: number of processes; each has its share of the cores and, on CUDA, its own GPU.
        device: device of the model; `None` for its present one.
        report: takes the warnings of the workers.
        debug: whether Dask shows its messages, which may quote patients' data.

    Yields:
        A `dask.distributed.Client`.

    Raises:
        ValueError: if workers on CUDA outnumber the GPUs, or workers do not start.
    """
    import dask
    from dask.distributed import Client, Nanny, Scheduler, SpecCluster

    environments = worker_environments(workers, device)
    here = {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0"}
    scheduler = {"cls": Scheduler, "options": here | {"port": 0, "dashboard": False}}
    # Dask spills data to this folder, so the folder must be private and removed.
    with temporary_folder(Path(tempfile.gettempdir()), "deeplift-fast-") as folder:
        level = logging.ERROR if debug else logging.CRITICAL  # Dask logs the messages of failed tasks as errors
        options = here | {"nthreads": 1, "memory_limit": 0, "local_directory": str(folder), "silence_logs": level}
        options |= {"preload": [__name__], "config": dask.config.merge(dask.config.config, UNPROFILED)}
        specification = {
            number: {"cls": Nanny, "options": options | {"env": environment}}
            for number, environment in enumerate(environments)
        }
        with SpecCluster(specification, scheduler, silence_logs=level) as cluster, Client(cluster) as client:
            client.subscribe_topic(WARNINGS, lambda event: report(*event[1]))
            _wait_for(client, workers)
            yield client


def _wait_for(client: Any, workers: int) -> None:
    try:
        client.wait_for_workers(workers, timeout=START)
    except TimeoutError:
        there = len(client.nthreads())
        raise ValueError(
            f"--workers is {workers}, but only {there} started within {START:g} s; give fewer, or add --debug to see "
            "the reason"
        ) from None


def dask_setup(worker: Any) -> None:
    """Called by Dask in each worker process: sends its warnings to the run, which reports them like its own."""
    _UNTIL_EXIT.enter_context(warnings_reported(lambda *warning: worker.log_event(WARNINGS, warning)))


def worker_environments(workers: int, device: str | None) -> list[dict[str, str]]:
    """Environment variables of each worker: its threads and, on CUDA, its GPU.

    Raises:
        ValueError: if workers on CUDA outnumber the GPUs.
    """
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    environments = [{"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} for _ in range(workers)]
    if device is None or not device.startswith("cuda"):
        return environments
    visible = _visible_gpus()
    if workers > len(visible):
        raise ValueError(
            f"--workers is {workers} on {device}; accepted: at most one per GPU (this process sees {len(visible)})"
        )
    return [env | {"CUDA_VISIBLE_DEVICES": gpu} for env, gpu in zip(environments, visible, strict=False)]


def _visible_gpus() -> list[str]:
    """The GPUs of this process, by their names in CUDA_VISIBLE_DEVICES."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(number) for number in range(count)] if named is None else named.split(",")[:count]
