"""Peak memory of attributing a part of a data set on disk, in a separate process.

`python cohort_memory.py DATASET LIMIT OUT` prints the process's megabytes. (`getrusage` would include the memory of the
parent process.)
"""

import re
import subprocess
import sys
import warnings
from pathlib import Path


def peak_of(dataset: Path, limit: int, out: Path) -> float:
    """Peak memory of the process, in megabytes."""
    command = [sys.executable, __file__, str(dataset), str(limit), str(out)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return float(lines[-1])


def main(dataset: str, limit: str, out: str) -> None:
    warnings.simplefilter("ignore")
    import torch
    from model_cases import CASES
    from pyhealth.datasets import SampleDataset

    from deeplift_fast import DeepLift
    from deeplift_fast.cohort import attribute_cohort

    torch.manual_seed(0)
    samples = SampleDataset(dataset)
    model = CASES["MLP, batch 256"].kind(samples, **CASES["MLP, batch 256"].sizes).eval()
    attribute_cohort(DeepLift(model, baseline="unk"), samples, out, limit=int(limit), progress="none")
    (kilobytes,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    print(int(kilobytes) / 1e3)


if __name__ == "__main__":
    main(*sys.argv[1:])
