"""Memory that a Dask worker keeps between batches, counted by the pages that it takes from the system."""

import os
import subprocess
import sys

import pytest

from deeplift_fast.cohort import freed_memory

# The module alone: an import of the package would take seconds.
SCRIPT = """
import resource, runpy, sys
import numpy as np
module = runpy.run_path(sys.argv[1])

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 18)  # 2 MiB: NumPy asks for huge pages from 4 MiB on
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()  # NumPy's own first call
before, kept = faults(), module["keep"]()
faults()  # takes the memory that is kept
during, given_back = faults(), module["give_back"]()
print(before, kept, during, given_back, faults())
"""


def counted(**environment: str) -> list[str]:
    here = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")} | environment
    command = [sys.executable, "-c", SCRIPT, freed_memory.__file__]
    return subprocess.run(command, env=here, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux") or "musl" in sys.version, reason="settings of glibc")
def test_a_worker_of_dask_keeps_freed_memory_until_the_end_of_the_run():
    before, kept, during, given_back, after = counted(MALLOC_TRIM_THRESHOLD_="65536")
    assert (kept, given_back) == ("True", "True")
    assert int(during) < 100 < min(int(before), int(after))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MALLOC_TRIM_THRESHOLD_": "1073741824"},
        {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "131072"},
    ],
)
def test_other_processes_keep_their_settings(environment):
    _, kept, _, given_back, _ = counted(**environment)
    assert (kept, given_back) == ("False", "False")
