"""A Dask cluster of processes on this machine."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from deeplift_fast.cli.exit import Teller, noted
from deeplift_fast.support.temporary import temporary_folder

LOOPBACK = "127.0.0.1"

START = 300.0
"""Seconds that all workers together may take to start."""

_UNTIL_IT_ENDS = ExitStack()
"""What a worker process enters for as long as it lives."""


@contextmanager
def local_client(workers: int, device: str | None, debug: bool = False) -> Iterator[Any]:
    """A client of a cluster that listens on the loopback interface alone.

    Args:
        workers: number of processes; each has its share of the cores and, on CUDA, a GPU of its own.
        device: where the model goes, `None` for where it is.
        debug: whether workers show others' words, which may quote patients' data.

    Yields:
        A `dask.distributed.Client`.

    Raises:
        ValueError: if there are fewer GPUs than workers that need one; if workers do not start.
    """
    from dask.distributed import Client, Nanny, Scheduler, SpecCluster

    environments = worker_environments(workers, device)
    here = {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0"}
    scheduler = {"cls": Scheduler, "options": here | {"port": 0, "dashboard": False}}
    # Dask moves what does not fit to this folder: it must be private, and go.
    with temporary_folder(Path(tempfile.gettempdir()), "deeplift-fast-") as folder:
        level = logging.ERROR if debug else logging.CRITICAL  # of tasks that fail Dask logs the error's words
        options = here | {"nthreads": 1, "memory_limit": 0, "local_directory": str(folder), "silence_logs": level}
        if not debug:
            options["preload"] = [__name__]
        specification = {
            number: {"cls": Nanny, "options": options | {"env": environment}}
            for number, environment in enumerate(environments)
        }
        with SpecCluster(specification, scheduler, silence_logs=level) as cluster, Client(cluster) as client:
            _wait_for(client, workers)
            yield client


def _wait_for(client: Any, workers: int) -> None:
    try:
        client.wait_for_workers(workers, timeout=START)
    except TimeoutError:
        there = len(client.nthreads())
        raise ValueError(
            f"--workers is {workers}, of which {there} started within {START:g} s; give fewer, or see why they do not "
            "start with --debug"
        ) from None


def dask_setup(_: Any) -> None:
    """Called by Dask in each worker process: its warnings are told as this command tells them."""
    _UNTIL_IT_ENDS.enter_context(noted(Teller("text", debug=False)))


def worker_environments(workers: int, device: str | None) -> list[dict[str, str]]:
    """Environment variables of each worker: its threads and, on CUDA, its GPU.

    Raises:
        ValueError: if there are fewer GPUs than workers.
    """
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    environments = [{"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} for _ in range(workers)]
    if device is None or not device.startswith("cuda"):
        return environments
    visible = _visible_gpus()
    if workers > len(visible):
        raise ValueError(
            f"--workers is {workers} on {device}; accepted: at most one per GPU, of which {len(visible)} are there"
        )
    return [env | {"CUDA_VISIBLE_DEVICES": gpu} for env, gpu in zip(environments, visible, strict=False)]


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(number) for number in range(count)] if named is None else named.split(",")[:count]
