"""All checks that need a GPU, in one command: `make bench-gpu`.

It compares the numbers of each op on the device with float64 on the CPU, and its speed with a copy of the same bytes.
It compares whole models with PyHealth's DeepLift and with the forward pass, with and without CUDA graphs, and measures
their peak memory. It writes `results/gpu-<name>.json` and prints tables. A run replaces only the rows that it measured.
The exit code is 1 if a number is wrong.

Without a GPU it says so, tests the kernels in Triton's interpreter, and compiles them ahead of time.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import gpu_ops
import gpu_tables
import torch
from gpu_cases import CASES
from model_results import Results, one_row_a_line

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
SECTIONS = ("numbers", "speed", "models")
NO_GPU = "No CUDA device here. The kernels are only tested in Triton's interpreter and compiled."
KERNELS = "tests/ops/triton"
PACKAGES = ("torch", "triton", "pyhealth", "deeplift_fast")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _options(arguments)
    if not torch.cuda.is_available():
        print(NO_GPU, flush=True)
        return without_a_gpu(options.k)
    device = torch.device("cuda", torch.cuda.current_device())
    name = torch.cuda.get_device_name(device)
    print(f"{name}, torch {version('torch')}", flush=True)
    path = options.out or RESULTS / f"gpu-{slug(name)}.json"
    results: Results = {section: {} for section in SECTIONS}
    for section, case, row in measured(device, options.k, options.only):
        results[section][case] = row
        write(path, {section: {case: row}}, _machine(name))  # at once, because a later case may end the process
        print(f"  {case}: {section}", flush=True)
    print(gpu_tables.as_text(results), f"\n{path}")
    wrong = [case for case, row in results["numbers"].items() if not row["right"]]
    if wrong:
        print(f"wrong: {'; '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="All checks that need a GPU.")
    parser.add_argument("-k", default="", metavar="TEXT", help="only ops and models (without a GPU: tests) that match")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, help="only these sections")
    parser.add_argument("--out", type=Path, help="the file to write")
    return parser.parse_args(arguments)


def without_a_gpu(matching: str) -> int:
    """The interpreter's tests and the compile checks; 0 if both pass."""
    selected = ["-k", matching] if matching else []
    codes = []
    for interpreted in (True, False):
        environment = os.environ | {"TRITON_INTERPRET": str(int(interpreted))}
        marked = ["-m", "triton" if interpreted else "not triton"]
        command = [sys.executable, "-m", "pytest", KERNELS, *marked, *selected]
        codes.append(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)
    return int(any(codes))


def measured(device: torch.device, matching: str, only: Sequence[str]) -> Iterator[tuple[str, str, dict]]:
    """Section, case and row of each case whose name contains `matching`."""
    for name, case in CASES.items():
        if matching.lower() in name.lower():
            if "numbers" in only:
                yield "numbers", name, gpu_ops.numbers(case, device)
            if "speed" in only:
                yield "speed", name, gpu_ops.speed(case, device)
    if "models" in only:
        yield from _models(device, matching)


def _models(device: torch.device, matching: str) -> Iterator[tuple[str, str, dict]]:
    # These need PyHealth, which a machine with a GPU may lack.
    import gpu_models
    import model_cases
    import patients

    drawn = {"StageNet": patients.stagenet(), "sequence": patients.sequences()}
    datasets = {data: model_cases.make_dataset(samples, data) for data, samples in drawn.items()}
    for name, case in model_cases.CASES.items():
        if matching.lower() in name.lower():
            yield "models", name, gpu_models.measured(case, datasets[case.data], device)


def write(path: Path, results: Results, machine: dict) -> None:
    """Writes rows with the date; rows of other cases stay."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    sections = {"machine": {"last run": machine}}
    for section in SECTIONS:
        rows = {name: row | {"date": day} for name, row in results.get(section, {}).items()}
        sections[section] = kept.get(section, {}) | rows
    path.parent.mkdir(exist_ok=True)
    path.write_text(one_row_a_line(sections))


def slug(name: str) -> str:
    """A device's name, as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _machine(name: str) -> dict:
    found = {"device": name, "CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    found["TF32 in matrix products"] = torch.backends.cuda.matmul.allow_tf32
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


if __name__ == "__main__":
    sys.exit(main())
