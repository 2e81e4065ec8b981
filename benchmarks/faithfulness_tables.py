"""The results of the faithfulness study as Markdown."""

import statistics
from collections.abc import Sequence

import freqshapes
from faithfulness_methods import DEFAULT
from faithfulness_results import FREQSHAPES, HOSPITAL, Means, Results, mean, means

# By measure: its name, its heading in a table, whether more is better, and the digits after the point.
COLUMNS = {
    "risk": ("planted risk codes, AUROC", "risk", True, 3),
    "protective": ("protective codes, AUROC", "protective", True, 3),
    "comprehensiveness": ("comprehensiveness", "compr.", True, 3),
    "sufficiency": ("sufficiency", "suff.", False, 3),
    "spearman": ("Spearman with removal", "Spearman", True, 2),
    "sensitivity": ("sensitivity-n", "sens.-n", True, 2),
    "infidelity": ("infidelity", "infid.", False, 2),
    "flips": ("signs that flip", "flips", False, 2),
    "draws": ("Spearman between draws", "draws", True, 2),
    "seconds": ("ms per patient", "ms", False, 3),
    "forwards": ("time in forward passes", "time", False, 1),
}
QUALITY = ("risk", "protective", "comprehensiveness", "sufficiency", "spearman", "sensitivity", "infidelity")
COST = ("flips", "draws", "seconds", "forwards")
# By method: its name in the README's table.
SMALL = {
    "PyHealth's DeepLift": "PyHealth's DeepLift",
    "PyHealth's integrated gradients, 50 steps": "integrated gradients, 50 steps",
    "gradient × input": "gradient × input",
    "complete, unk": "complete, unk",
    DEFAULT: f"**{DEFAULT}** (default)",
}
ACROSS = {"risk": "AUROC", "flips": "flips", "forwards": "time"}  # the README's measures over all models
NOTHING = "–"


def small(results: Results) -> str:
    """The README's table: Spearman's correlation with removal by model, and the measures of `ACROSS`."""
    by_model = {model: means(cells) for model, cells in results[HOSPITAL].items()}
    rows = []
    for method, name in SMALL.items():
        found = [by_method[method] for by_method in by_model.values()]
        across = mean([row for row in found if row is not None])
        shown = [_number(row, "spearman") for row in found]
        rows.append([name, *shown, *(_number(across, column) for column in ACROSS)])
    return _table(["method", *by_model, *ACROSS.values()], rows)


def full(results: Results) -> str:
    """All measures: two tables for each model, then FreqShapes, and the methods that are ahead of the default."""
    parts = []
    for model, cells in results[HOSPITAL].items():
        about = {name: statistics.mean(cell[name] for cell in cells.values()) for name in ("auroc", "split_half")}
        parts.append(
            f"**{model}**, seeds {', '.join(cells)}: AUROC {about['auroc']:.3f}; Spearman between the halves of "
            f"the reference {about['split_half']:.2f}"
        )
        for columns in (QUALITY, COST):
            rows = [[method, *(_number(row, column) for column in columns)] for method, row in means(cells).items()]
            parts.append(_table(["method", *(COLUMNS[column][1] for column in columns)], rows))
    if results[FREQSHAPES]:
        parts.append(series(results))
    return "\n\n".join([*parts, *ahead(results)])


def series(results: Results) -> str:
    """FreqShapes beside its published table."""
    splits = results[FREQSHAPES]
    f1 = statistics.mean(cell["f1"] for cell in splits.values())
    rows = [
        [f"{name} (published)", *(f"{value:.3f}" for value in row), ""] for name, row in freqshapes.PUBLISHED.items()
    ]
    for method in freqshapes.METHODS:
        found = mean([cell["methods"][method] for cell in splits.values()])
        shown = [f"{found[name]:.3f}" for name in freqshapes.MEASURES]
        rows.append([method, *shown, f"{found['forwards']:.0f} + {found['backwards']:.0f}"])
    table = _table(["FreqShapes", "AUPRC", "AUP", "AUR", "passes"], rows)
    return f"**FreqShapes**, {len(splits)} splits: F1 of the model {f1:.3f}\n\n{table}"


def ahead(results: Results) -> list[str]:
    """A sentence for each measure in which a method is ahead of the default one, by model."""
    found = []
    for column, (heading, _, more, _) in COLUMNS.items():
        if column == "seconds":
            continue  # the time in forward passes ranks alike
        better = {model: _better(means(cells), column, more) for model, cells in results[HOSPITAL].items()}
        named = [f"{model}: {', '.join(methods)}" for model, methods in better.items() if methods]
        if named:
            found.append(f"Ahead of the default in {heading}: {'; '.join(named)}.")
    return found


def _better(rows: Means, column: str, more: bool) -> list[str]:
    """The methods with a better rounded number than the default, each with that number."""
    shown = {method: _number(row, column) for method, row in rows.items() if row is not None}
    sign, own = 1 if more else -1, float(shown[DEFAULT])
    return [f"{method} ({number})" for method, number in shown.items() if sign * (float(number) - own) > 0]


def _number(row: dict[str, float] | None, column: str) -> str:
    if row is None:
        return NOTHING
    value = row[column] * (1e3 if column == "seconds" else 1)
    digits = COLUMNS[column][3]
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.1e}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))
