"""The results of `gpu.py` as tables for a terminal."""

from collections.abc import Sequence

from model_results import COMPILED, FORWARD, GRAPHS, PYHEALTH, Results
from model_tables import aligned, number

_HEADERS = {
    "compiles": ("Triton's compiles", "processes", "calls", "seconds", "failed"),
    "numbers": ("numbers, against float64", "backend", "worst error over what is allowed", ""),
    "graphs": ("CUDA graphs, bit for bit", "checked", ""),
    "speed": ("float32", "ms", "MB", "GB/s", "of a copy's speed", "TFLOP/s"),
    "steps": ("one step", "us", "us on paper"),
    "models": (
        "model, rules",
        "ms",
        "with graphs",
        "first call, ms",
        "samples/s",
        "PyHealth's DeepLift, ms",
        "forward pass, ms",
        "times as fast as PyHealth's",
        "distance from float64",
    ),
    "memory": ("peak memory, MB", "rescale", "with graphs", "complete", "with graphs", "PyHealth's", "forward pass"),
    "races": ("compute-sanitizer racecheck", "summary", ""),
    "not run": ("not run", "reason"),
}


def as_text(results: Results) -> str:
    """All sections that have rows, then the errors and the warnings."""
    tables, notes = [], []
    for section, header in _HEADERS.items():
        rows = results.get(section, {})
        lines = [line for name, row in rows.items() if "error" not in row for line in _LINES[section](name, row)]
        tables += [aligned(header, lines)] if lines else []
        notes += [f"{section}, {name}: {row['error']}" for name, row in rows.items() if "error" in row]
        notes += sorted({note for row in rows.values() for note in row.get("warnings", ())})
    return "\n\n".join([*tables, *dict.fromkeys(notes)])


def _verdict(row: dict) -> str:
    return "right" if row["right"] else "WRONG"


def _compiles(name: str, row: dict) -> list[list[str]]:
    failed = row["failed"]
    shown = f"{len(failed)}, the first: {failed[0]['call']}: {failed[0]['error']}" if failed else "none"
    return [[name, str(row["processes"]), str(row["calls"]), number(row["seconds"]), shown]]


def _numbers(name: str, row: dict) -> list[list[str]]:
    worst = max(row["errors"], key=row["errors"].__getitem__)
    shown = f"{number(row['errors'][worst])} ({worst})"
    return [[name, row["backend"], shown, _verdict(row)]]


def _graphs(name: str, row: dict) -> list[list[str]]:
    held = {key: each for key, each in row.items() if isinstance(each, bool) and key != "right"}
    return [[name, ", ".join(key if each else f"{key} FAILED" for key, each in held.items()), _verdict(row)]]


def _speed(name: str, row: dict) -> list[list[str]]:
    share = f"{100 * row["share of a copy's speed"]:.0f} %"
    return [[name, *(number(row[key]) for key in ("ms", "MB", "GB/s")), share, number(row.get("TFLOP/s"))]]


def _steps(name: str, row: dict) -> list[list[str]]:
    return [[name, number(row["us a step"]), number(row.get("us on paper"))]]


def _models(name: str, row: dict) -> list[list[str]]:
    ms = row["ms"]
    rows: list[list[str]] = []
    for rules in [key for key in ms if key not in (PYHEALTH, FORWARD) and not key.endswith(GRAPHS)]:
        best = min(ms[key] for key in (rules, rules + GRAPHS) if key in ms)
        distance = row.get("distance", {}).get(rules)
        cells: Sequence[float | None] = (
            ms[rules],
            ms.get(rules + GRAPHS),
            row["first_ms"][rules],
            1e3 * row["batch_size"] / best,
            ms.get(PYHEALTH),
            ms.get(FORWARD),
            ms[PYHEALTH] / best if PYHEALTH in ms else None,
        )
        shown = name if rules == COMPILED else f"{name}, {rules}"
        rows.append([shown, *map(number, cells), number(None) if distance is None else f"{distance:.1e}"])
    return rows


def _memory(name: str, row: dict) -> list[list[str]]:
    kinds = ("rescale", "rescale" + GRAPHS, "complete", "complete" + GRAPHS, PYHEALTH, FORWARD)
    return [[name, *(number(row["peak_MB"].get(kind)) for kind in kinds)]]


def _races(name: str, row: dict) -> list[list[str]]:
    return [[name, row["summary"], _verdict(row)]]


def _not_run(name: str, row: dict) -> list[list[str]]:
    return [[name, row["reason"]]]


_LINES = {
    "compiles": _compiles,
    "numbers": _numbers,
    "graphs": _graphs,
    "speed": _speed,
    "steps": _steps,
    "models": _models,
    "memory": _memory,
    "races": _races,
    "not run": _not_run,
}
