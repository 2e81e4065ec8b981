import os
import stat
from pathlib import Path

import pytest

from deeplift_fast.cli import workers
from deeplift_fast.cli.workers import LOOPBACK, local_client, worker_environments
from deeplift_fast.support.temporary import MARK


def test_workers_share_the_cores():
    cores = len(os.sched_getaffinity(0))
    assert [env["OMP_NUM_THREADS"] for env in worker_environments(cores, None)] == ["1"] * cores
    assert worker_environments(1, "cpu")[0]["OMP_NUM_THREADS"] == str(cores)
    assert worker_environments(4 * cores, None)[0]["OMP_NUM_THREADS"] == "1"


def test_on_cuda_each_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(workers, "_visible_gpus", lambda: ["4", "5", "GPU-7"])
    assert [env["CUDA_VISIBLE_DEVICES"] for env in worker_environments(2, "cuda")] == ["4", "5"]
    with pytest.raises(ValueError, match=r"--workers is 4 on cuda; accepted: at most one per GPU .this process sees 3"):
        worker_environments(4, "cuda")


@pytest.mark.slow
def test_a_cluster_of_processes_on_loopback_alone(capfd):
    import dask

    with local_client(2, None, print) as client:
        addresses = [client.scheduler.address, *client.scheduler_info()["workers"]]
        assert all(address.startswith(f"tcp://{LOOPBACK}:") for address in addresses)
        assert not any(client.run(lambda: dask.config.get("distributed.worker.profile.enabled")).values())
        found = client.run(lambda: (os.getpid(), os.environ["OMP_NUM_THREADS"]))
        assert len({process for process, _ in found.values()} - {os.getpid()}) == 2
        assert {threads for _, threads in found.values()} == {worker_environments(2, None)[0]["OMP_NUM_THREADS"]}
        folder = Path(next(iter(client.run(lambda dask_worker: dask_worker.local_directory).values()))).parents[1]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / MARK).exists()  # so that the next run removes it if this one is killed
    assert not folder.exists()
    assert capfd.readouterr().err == ""
