"""Stores results of `test_models.py` in `results/models.json`; a run replaces only the rows that it measured.

`{"models": {case: row}, "stagenet": {measure: row}}`. A row of a model has medians, first calls and goals. A row of
`"stagenet"` has figures, and sometimes a value and its goal. Each row has its date and machine. The key of a call with
CUDA graphs is the rule set's name followed by `GRAPHS`.
"""

import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

THREADS = 2
PYHEALTH, FORWARD, GRAPHS = "PyHealth", "forward pass", ", graphs"
COMPILED = "plain torch under torch.compile"
PATH = Path(__file__).parent / "results" / "models.json"
SECTIONS = ("models", "stagenet")
Results = dict[str, dict[str, dict]]


def machine(threads: int = THREADS) -> str:
    """Cores, processor, threads and releases."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.machine()
    return (
        f"{len(os.sched_getaffinity(0))} cores of {processor}, {threads} threads, torch {version('torch')}, "
        f"PyHealth {version('pyhealth')}, Python {platform.python_version()}"
    )


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def read() -> Results:
    return json.loads(PATH.read_text()) if PATH.exists() else {section: {} for section in SECTIONS}


def update(measured: Results) -> Results:
    """Writes rows with the date and the machine, keeps the others, and returns the new rows."""
    from model_cases import CASES  # needs PyHealth; benchmarks of ops on a GPU do not

    results = read()
    taken = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": machine()}
    found = {section: {name: row | taken for name, row in rows.items()} for section, rows in measured.items()}
    for section, rows in found.items():
        results[section] |= rows
    results["models"] = {name: results["models"][name] for name in CASES if name in results["models"]}
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(one_row_a_line({section: results[section] for section in SECTIONS}))
    return found


def one_row_a_line(results: Results) -> str:
    """JSON with one row per line, for readable diffs."""
    sections = []
    for section in results:
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in results[section].items())
        sections.append(f"{json.dumps(section)}: {{\n{rows}\n}}")
    return "{" + ",\n".join(sections) + "}\n"
