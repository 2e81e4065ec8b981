"""Writes `results/models.json` into the README as a table, and draws its picture.

python benchmarks/plot.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import model_results
import model_tables
from matplotlib.ticker import FormatStrFormatter

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- models:start -->", "<!-- models:end -->"
SVG = Path(__file__).parent / "results" / "models.svg"
COLOURS = {"rescale": "#0072b2", "pyhealth": "#56b4e9", "complete": "#e69f00"}  # Okabe and Ito's colours
THICKNESS = 0.26


def draw(rows: dict[str, dict]) -> None:
    """Draws bars of the speed-up over PyHealth's DeepLift, on a logarithmic axis."""
    plt.rcParams.update({"svg.hashsalt": "models", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(9, 1.1 + 0.4 * len(rows)), layout="constrained", facecolor="white")
    for i, (rules, colour) in enumerate(COLOURS.items()):
        places = [place + (i - 1) * THICKNESS for place in range(len(rows))]
        ratios = [model_tables.ratio(row, rules) for row in rows.values()]
        axes.barh(places, [ratio - 1 for ratio in ratios], THICKNESS, left=1, color=colour, label=rules)
        for place, ratio in zip(places, ratios, strict=True):
            beside = (max(1, ratio), place)
            axes.annotate(f"{ratio:.3g}", beside, (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("times as fast as PyHealth's DeepLift (logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(COLOURS), frameon=False)
    figure.savefig(SVG, metadata={"Date": None}, facecolor="white")


def main() -> None:
    results = model_results.read()
    comparable = {name: row for name, row in results["models"].items() if row["against"] == model_results.PYHEALTH}
    if comparable:
        draw(comparable)
    before, found, rest = README.read_text().partition(START)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"{README.name} lacks {START} … {END}")
    README.write_text(f"{before}{START}\n{model_tables.as_markdown(results)}\n{END}{after}")


if __name__ == "__main__":
    main()
