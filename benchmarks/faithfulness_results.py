"""The results of the faithfulness study, stored cell by cell, so that an interrupted study can continue."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faithfulness_methods import METHODS

RESULTS = Path(__file__).parent / "results" / "faithfulness.json"
DIGITS = 4
HOSPITAL, FREQSHAPES = "hospital", "freqshapes"

Results = dict[str, Any]
Means = dict[str, dict[str, float] | None]  # by method; `None` if it does not accept the model


def fresh(settings: Mapping[str, Any]) -> Results:
    """Results without a cell: `settings`, `hospital` by model and seed, `freqshapes` by split."""
    return {"settings": dict(settings), HOSPITAL: {}, FREQSHAPES: {}}


def read(path: Path) -> Results:
    """Results of a file.

    Raises:
        SystemExit: if the file is missing.
    """
    if not path.is_file():
        raise SystemExit(f"--out is {path}, which is missing; run the study first (no --table, --tables, --plot)")
    return json.loads(path.read_text())


def resumed(path: Path, settings: Mapping[str, Any]) -> Results:
    """The results of a file; fresh ones if the file is missing.

    Raises:
        SystemExit: if the file has other settings.
    """
    if not path.is_file():
        return fresh(settings)
    found = read(path)
    if found["settings"] != settings:
        raise SystemExit(
            f"--resume: {path} was measured with {found['settings']}, this run has {dict(settings)}; give it the same "
            "--patients and --permutations, or another --out"
        )
    return found


def write(path: Path, results: Results) -> None:
    """Writes results, one line per method; an existing file is replaced in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(_lines(_rounded(results)) + "\n")
    part.replace(path)


def means(cells: Mapping[str, Any]) -> Means:
    """The measures of each method, as means over seeds, in the order of `METHODS`."""
    found: Means = {}
    for method in METHODS:
        rows = [cell["methods"][method] for cell in cells.values()]
        found[method] = None if rows[0] is None else mean(rows)
    return found


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each measure."""
    return {name: statistics.mean(row[name] for row in rows) for name in rows[0]}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _lines(value: Any, depth: int = 0) -> str:
    """JSON in which a dict without further dicts takes one line."""
    if not isinstance(value, dict) or not any(isinstance(each, dict) for each in value.values()):
        return json.dumps(value, ensure_ascii=False)
    inner = " " * (depth + 1)
    items = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_lines(each, depth + 1)}" for key, each in value.items()]
    return "{\n" + ",\n".join(items) + "\n" + " " * depth + "}"
