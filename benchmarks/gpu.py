"""All checks that need a GPU, in one command: `make bench-gpu`, or `python benchmarks/gpu.py` in a bare checkout.

It needs torch and Triton; models also need PyHealth. The parts run in the order of their worth (`gpu_sections.py`)
until the minutes are over. It writes each row to `results/gpu-<name>.json` at once, and prints tables. A run replaces
only the rows that it measured, and lists the others under `"not run"`. The exit code is 1 if a number is wrong.

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
from pathlib import Path

import checkout  # noqa: F401 - before the imports that need it
import gpu_machine
import gpu_tables
import torch
from gpu_budget import NO_TIME, Budget, NotRun
from gpu_sections import PARTS, SECTIONS, Part, Run
from model_results import Results, one_row_a_line

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
NO_GPU = "No CUDA device here. The kernels are only tested in Triton's interpreter and compiled."
KERNELS = "tests/ops/triton"
NOT_RUN = "not run"
MINUTES = 8.0
CHECKED = ("numbers", "graphs", "races")  # sections whose rows are right or wrong
OF_OPS = {"compiles", "numbers", "graphs", "speed", "steps"}  # sections whose kernels are compiled first


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _options(arguments)
    budget = Budget(options.minutes)
    device = gpu()
    if device is None:
        print(NO_GPU, flush=True)
        return without_a_gpu(options.k)
    name = torch.cuda.get_device_name(device)
    path = options.out or RESULTS / f"gpu-{slug(name)}.json"
    results: Results = {section: {} for section in (*SECTIONS, NOT_RUN)}
    machine = gpu_machine.described(name)
    print(f"{name}, torch {machine['torch']}, Triton {machine['triton']}", flush=True)
    write(path, {}, machine)
    for section, case, row in measured(Run(device, options.k, budget), options.only):
        results[section][case] = row
        write(path, results, machine)  # at once, because a later case may end the process
        print(f"  {section}: {case}" + (f": {row['reason']}" if section == NOT_RUN else ""), flush=True)
    print(gpu_tables.as_text(results), f"\n{path}")
    wrong = [f"{section}, {case}" for section in CHECKED for case, row in results[section].items() if not row["right"]]
    if wrong:
        print(f"wrong: {'; '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="All checks that need a GPU.")
    parser.add_argument("-k", default="", metavar="TEXT", help="only ops and models (without a GPU: tests) that match")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, help="only these sections")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="no case begins that could end later (%(default)g)"
    )
    parser.add_argument("--out", type=Path, help="the file to write")
    return parser.parse_args(arguments)


def gpu() -> torch.device | None:
    """The current CUDA device, if there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None


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


def measured(run: Run, only: Sequence[str]) -> Iterator[tuple[str, str, dict]]:
    """Section, case and row of each case; of a part or a case that does not run, the reason in section `"not run"`.

    Raises:
        RuntimeError: if the device fails, after the row of the case that made it fail.
    """
    for part in PARTS:
        if part.section in only or (part.section == "compiles" and OF_OPS & {*only}):
            try:
                yield from _measured(part, run)
            except (ImportError, NotRun) as error:
                yield NOT_RUN, f"{part.section}: {part.cases.__name__}", {"reason": str(error)}


def _measured(part: Part, run: Run) -> Iterator[tuple[str, str, dict]]:
    for name, measure in part.cases(run):
        if part.section != "compiles" and run.matching.lower() not in name.lower():
            continue
        if run.budget.left() < part.seconds:
            yield NOT_RUN, f"{part.section}: {name}", {"reason": NO_TIME}
            continue
        try:
            row = measure()
        except Exception as error:  # a row as well: the other cases are measured
            yield part.section, name, {"error": f"{type(error).__name__}: {error}"[:500], "right": False}
            if run.device.type == "cuda":
                _require_working(run.device, f"{part.section}, {name}")
        else:
            yield part.section, name, row


def _require_working(device: torch.device, after: str) -> None:
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        raise RuntimeError(f"the device takes no more work after {after}; run the rest with --only and -k") from error


def write(path: Path, results: Results, machine: dict) -> None:
    """Writes rows with the date; measured rows of other cases stay, and what is not run is that of this run."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    sections = {"machine": {"last run": machine}, NOT_RUN: results.get(NOT_RUN, {})}
    for section in SECTIONS:
        rows = {name: row | {"date": day} for name, row in results.get(section, {}).items()}
        sections[section] = kept.get(section, {}) | rows
    path.parent.mkdir(exist_ok=True)
    path.write_text(one_row_a_line(sections))


def slug(name: str) -> str:
    """A device's name, as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
