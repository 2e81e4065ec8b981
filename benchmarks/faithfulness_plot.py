"""The picture of the faithfulness study."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from faithfulness_methods import DEFAULT, METHODS, OTHERS
from faithfulness_results import HOSPITAL, Results, means

OTHER, OWN, SEED = "#56b4e9", "#d55e00", "black"  # Okabe and Ito's colours, safe for colour blindness


def draw(results: Results, path: Path) -> None:
    """Draws bars of Spearman's correlation with the removal of codes: one panel per model, one dot per seed."""
    models = results[HOSPITAL]
    plt.rcParams.update({"svg.hashsalt": "faithfulness", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, panels = plt.subplots(
        1, len(models), figsize=(3.2 + 2 * len(models), 4.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (model, cells) in zip(panels[0], models.items(), strict=True):
        for place, (method, row) in enumerate(means(cells).items()):
            if row is None:
                axes.annotate("not taken", (0.02, place), va="center", fontsize=7, color="grey")
                continue
            axes.barh(place, row["spearman"], color=OWN if method == DEFAULT else OTHER)
            seeds = [cell["methods"][method]["spearman"] for cell in cells.values()]
            axes.plot(seeds, [place] * len(seeds), ".", color=SEED, markersize=4)
        axes.set_title(model, fontsize=10)
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set_xlim(right=1)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_yticks(range(len(METHODS)), list(METHODS))
    panels[0][0].invert_yaxis()
    figure.supxlabel("Spearman correlation with the removal of codes (dots: seeds)", fontsize=10)
    figure.savefig(
        path, metadata={"Date": None, "Title": path.stem, "Description": in_words(results)}, facecolor="white"
    )
    plt.close(figure)


def in_words(results: Results) -> str:
    """The picture's text alternative."""
    parts = []
    for model, cells in results[HOSPITAL].items():
        rows = {method: row["spearman"] for method, row in means(cells).items() if row is not None}
        others = {method: value for method, value in rows.items() if method in OTHERS}
        best = max(others, key=others.__getitem__)
        parts.append(f"{model} {rows[DEFAULT]:.2f} (best of the methods that are not ours: {best}, {others[best]:.2f})")
    return f'Spearman correlation of contributions with the removal of codes, for "{DEFAULT}": {"; ".join(parts)}'
