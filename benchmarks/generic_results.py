"""Stores results of `test_generic.py` in `results/generic.json`, and shows them as a table.

python benchmarks/generic_results.py

A run replaces only the rows that it measured. A row has medians in ms by name, the rounds, the date and the machine.
"""

import datetime
import json
from pathlib import Path

from generic_cases import CASES, MOST
from model_results import machine, one_row_a_line, rounded
from model_tables import aligned, number

PATH = Path(__file__).parent / "results" / "generic.json"
SECTION = "generic"
OURS, BOTH_WAYS, CAPTUM, TANGERMEME = ("rescale", "complete"), "forward + backward", "Captum", "tangermeme"
NAMES = (BOTH_WAYS, CAPTUM, TANGERMEME, *OURS)
MISSING = "not installed"
_HEADER = ("module", *(f"{name}, ms" for name in NAMES), "complete / forward + backward", "goal", "")


def read() -> dict[str, dict]:
    return json.loads(PATH.read_text())[SECTION] if PATH.exists() else {}


def update(name: str, medians: dict[str, float | str], rounds: int) -> None:
    """Writes the row of a case, and keeps the others; medians are in seconds, or say why there is none."""
    shown = {key: value if isinstance(value, str) else rounded(1e3 * value) for key, value in medians.items()}
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    rows = read() | {name: {"ms": shown, "rounds": rounds, "date": date, "machine": machine(1)}}
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(one_row_a_line({SECTION: {key: rows[key] for key in CASES if key in rows}}))


def as_text(rows: dict[str, dict]) -> str:
    """The table for a terminal."""
    taken = sorted({f"medians of {row['rounds']} rounds, {row['machine']} ({row['date']})" for row in rows.values()})
    return "\n".join([aligned(_HEADER, [_row(name, row["ms"]) for name, row in rows.items()]), "", *taken])


def _row(name: str, ms: dict[str, float | str]) -> list[str]:
    ratio = ms["complete"] / ms[BOTH_WAYS]
    limit, slower = CASES[name].most_ms, max(ms[rules] for rules in OURS)
    if limit is not None:
        goal, reached = f"complete ≤ {limit} ms", ms["complete"] <= limit
    else:
        goal = f"≤ {MOST} times, faster than Captum"
        reached = ratio <= MOST and (isinstance(ms[CAPTUM], str) or slower < ms[CAPTUM])
    cells = [value if isinstance(value, str) else number(value) for value in (ms[key] for key in NAMES)]
    return [name, *cells, number(ratio), goal, "reached" if reached else "missed"]


if __name__ == "__main__":
    print(as_text(read()))
