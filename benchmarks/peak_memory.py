"""Peak memory of one attribution of a StageNet batch, above the process's memory just before.

    python benchmarks/peak_memory.py rescale|pyhealth|complete|PyHealth

prints bytes. A process has one peak, so each competitor needs a separate process.
"""

import contextlib
import subprocess
import sys
import warnings
from pathlib import Path

import patients
import torch
from model_cases import STAGENET, first_batch, make_dataset, make_model
from model_results import PYHEALTH, THREADS
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift

from deeplift_fast import DeepLift


def peak_of(competitor: str) -> int:
    """Bytes that a fresh process needs for its first attribution."""
    command = [sys.executable, __file__, competitor]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(printed.split()[-1])


def _held(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def main(competitor: str) -> None:
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    dataset = make_dataset(patients.stagenet(STAGENET.batch_size), STAGENET.data)
    batch, model = first_batch(dataset, STAGENET.batch_size), make_model(STAGENET, dataset)
    interpreter = PyHealthDeepLift(model) if competitor == PYHEALTH else DeepLift(model, rules=competitor)
    # Resets the peak to the present memory; where this is forbidden, earlier peaks count too.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _held("VmRSS")
    interpreter.attribute(**batch)
    print(max(1, _held("VmHWM") - before))


if __name__ == "__main__":
    main(sys.argv[1])
