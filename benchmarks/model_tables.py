"""The results of `test_models.py` as tables: all for a terminal, the models for the README."""

import textwrap
from collections.abc import Sequence

from model_results import FORWARD, PYHEALTH, Results

_MODELS = (
    "model",
    "ours, ms: rescale / pyhealth / complete",
    "first call, ms",
    "PyHealth's DeepLift, ms",
    "forward pass, ms",
    "times as fast as PyHealth's",
    "goal",
    "",
)
_README = ("model", "ours, ms", "PyHealth, ms", "times as fast as PyHealth")
_STAGENET = ("StageNet, batch 128", "measured", "", "goal", "")
_RULES = ("rescale", "pyhealth", "complete")
_NOTHING = "–"


def as_text(results: Results) -> str:
    """The tables for a terminal."""
    return "\n\n".join([*(aligned(header, rows) for header, rows in _tables(results)), _how(results)])


def as_markdown(results: Results) -> str:
    """The README's table: our times, PyHealth's and their ratio."""
    rows = [_readme(name, row) for name, row in results["models"].items()]
    table = "\n".join(_line(row) for row in (_README, ["---"] * len(_README), *rows))
    return f"{table}\n\n{textwrap.fill(_how({'models': results['models']}), 100)}"


def ratio(row: dict, rules: str) -> float:
    """PyHealth's time divided by ours; against the forward pass, our time divided by its."""
    ours, other = row["ms"][rules], row["ms"][row["against"]]
    return other / ours if row["against"] == PYHEALTH else ours / other


def _tables(results: Results) -> list[tuple[Sequence[str], list[list[str]]]]:
    tables = [
        (_MODELS, [_model(name, row) for name, row in results.get("models", {}).items()]),
        (_STAGENET, [_stagenet(name, row) for name, row in results.get("stagenet", {}).items()]),
    ]
    return [(header, rows) for header, rows in tables if rows]


def _readme(name: str, row: dict) -> list[str]:
    ratios = {rules: ratio(row, rules) for rules in row["goals"]}
    return [name, _by_rules(row["ms"]), number(row["ms"].get(PYHEALTH)), _by_rules(ratios) + _of_forward(row)]


def _model(name: str, row: dict) -> list[str]:
    against_forward = row["against"] == FORWARD
    ratios = {rules: ratio(row, rules) for rules in row["goals"]}
    verdicts = [
        _verdict(ratios[rules] <= goal if against_forward else ratios[rules] >= goal)
        for rules, goal in row["goals"].items()
    ]
    return [
        name,
        _by_rules(row["ms"]),
        _by_rules(row["first_ms"]),
        number(row["ms"].get(PYHEALTH)),
        number(row["ms"][FORWARD]),
        _by_rules(ratios) + _of_forward(row),
        ("≤ " if against_forward else "≥ ") + _by_rules(row["goals"]),
        verdicts[0] if len(set(verdicts)) == 1 else " / ".join(verdicts),
    ]


def _of_forward(row: dict) -> str:
    return " times as long as the forward pass" if row["against"] == FORWARD else ""


def _stagenet(name: str, row: dict) -> list[str]:
    figures = ", ".join(f"{what} {number(value)}" for what, value in row["figures"].items())
    figures = f"{figures} {row['unit']}".rstrip()
    if "value" not in row:
        return [name, figures, "", "", ""]
    value, goal = (f"{number(row[key])} {row['of']}" for key in ("value", "goal"))
    return [name, figures, value, f"≥ {goal}", _verdict(row["value"] >= row["goal"])]


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


def _by_rules(values: dict[str, float]) -> str:
    return " / ".join(number(values.get(rules)) for rules in _RULES)


def number(value: float | None) -> str:
    """Three digits, or a dash for `None`."""
    if value is None:
        return _NOTHING
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def aligned(header: Sequence[str], rows: list[list[str]]) -> str:
    """A table for a terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = (header, ["-" * width for width in widths], *rows)
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _how(results: Results) -> str:
    rows = [row for section in results.values() for row in section.values()]
    rounds = sorted({row["rounds"] for row in rows if "rounds" in row})
    medians = [f"Medians of {' or '.join(map(str, rounds))} rounds taken in turn, float32."] if rounds else []
    taken = sorted({f"{row['machine']} ({row['date']})" for row in rows})
    return " ".join([*medians, f"{'; '.join(taken)}."])
