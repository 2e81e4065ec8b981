"""The results of `gpu.py` as tables for a terminal."""

from collections.abc import Sequence

from model_results import FORWARD, GRAPHS, PYHEALTH, Results
from model_tables import aligned, number

_NUMBERS = ("numbers, against float64 on the CPU", "backend", "worst error over what is allowed", "")
_SPEED = ("float32", "ms", "MB", "GB/s", "of a copy's speed", "TFLOP/s")
_MODELS = (
    "model, rules",
    "ms",
    "with graphs",
    "first call, ms",
    "samples/s",
    "PyHealth's DeepLift, ms",
    "forward pass, ms",
    "times as fast as PyHealth's",
    "peak, MB",
    "PyHealth's peak, MB",
    "distance from float64",
)


def as_text(results: Results) -> str:
    """All sections that have rows."""
    sections = [
        (_NUMBERS, [_number_row(name, row) for name, row in results.get("numbers", {}).items()]),
        (_SPEED, [_speed_row(name, row) for name, row in results.get("speed", {}).items()]),
        (_MODELS, [line for name, row in results.get("models", {}).items() for line in _model_rows(name, row)]),
    ]
    tables = [aligned(header, rows) for header, rows in sections if rows]
    notes = sorted({note for row in results.get("models", {}).values() for note in row["warnings"]})
    return "\n\n".join([*tables, *notes])


def _number_row(name: str, row: dict) -> list[str]:
    worst = max(row["errors"], key=row["errors"].__getitem__)
    shown = f"{number(row['errors'][worst])} ({worst})"
    return [name, row["backend"], shown, "right" if row["right"] else "WRONG"]


def _speed_row(name: str, row: dict) -> list[str]:
    share = f"{100 * row["share of a copy's speed"]:.0f} %"
    return [name, *(number(row[key]) for key in ("ms", "MB", "GB/s")), share, number(row.get("TFLOP/s"))]


def _model_rows(name: str, row: dict) -> list[list[str]]:
    ms, peak = row["ms"], row["peak_MB"]
    rows: list[list[str]] = []
    for rules, distance in row["distance"].items():
        best = min(ms[key] for key in (rules, rules + GRAPHS) if key in ms)
        cells: Sequence[float | None] = (
            ms[rules],
            ms.get(rules + GRAPHS),
            row["first_ms"][rules],
            1e3 * row["batch_size"] / best,
            ms.get(PYHEALTH),
            ms[FORWARD],
            ms[PYHEALTH] / best if PYHEALTH in ms else None,
            peak.get(rules),
            peak.get(PYHEALTH),
        )
        rows.append([f"{name}, {rules}", *map(number, cells), f"{distance:.1e}"])
    return rows
