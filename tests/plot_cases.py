"""Made-up patients and cohorts for the tests of figures, and what every figure must keep to."""

import io
import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.text import Text

from deeplift_fast import Attribution

matplotlib.use("agg")

LABS = ["Sodium", "Potassium", "Creatinine", "Haemoglobin"]
CODES = ["I10", "E119", "N179", "4019", "Z7901", "J189", "K219", "F329"]


def patient(seed=0, stays=5, with_days=True, codes=CODES, labs=LABS, scale=0.3):
    """A patient's rows: codes at each stay, labs of which some are carried forward."""
    rng = np.random.default_rng(seed)
    rows = []
    for stay in range(stays):
        for slot, code in enumerate(rng.choice(codes, size=min(3, len(codes)), replace=False)):
            rows.append(("conditions", stay, slot, code, np.nan, None))
        for slot, lab in enumerate(labs):
            measured = bool(rng.random() < 0.7)
            rows.append(("labs", stay, slot, lab, rng.normal(100, 20) if measured else np.nan, measured))
    table = pd.DataFrame(rows, columns=["feature", "step", "slot", "code", "value", "measured"])
    table.insert(0, "sample", 7)
    table.insert(1, "patient_id", "p-7")
    table["time"] = np.nan
    if with_days:
        table["day"] = table["step"].map(dict(enumerate(np.sort(rng.integers(0, 900, stays)).tolist())))
        table["stay"] = table["step"].map(lambda step: f"stay-{step}")
    table["attribution"] = rng.normal(0, scale, len(table)).astype(np.float32)
    return table


def cohort(samples=40, seed=0, **options):
    """The rows of several patients."""
    tables = [patient(seed + n, **options).assign(sample=n, patient_id=f"p-{n // 2}") for n in range(samples)]
    return pd.concat(tables, ignore_index=True)


def plain(batch=3, size=6, seed=0):
    """An attribution of plain tensors, whose contributions sum to the difference in output."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, size, generator=draw)
    base = torch.randn(batch, generator=draw)
    nothing = torch.zeros(batch)
    return Attribution({"x": values}, nothing, base + values.sum(1), base, None, baseline="zeros")


HOSTILE = (
    "<script>alert(1)</script>",
    "$\\frac{1}{0}$ $x_$",
    "\u202egnisrever\u202c",
    "x" * 10_000,
    "bell\x07 line\nfeed\ttab\x1b[31m",
    '"onload="alert(1)',
    "--> ]]> &amp; \\textbf{x}",
    "",
)
"""Names that a figure must show as text."""


def texts(ax):
    """The texts drawn, and where: lists of `Text` and of boxes in points, of the whole figure."""
    figure = ax.get_figure(root=True)
    figure.draw_without_rendering()
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    low, high = ax.get_xlim()
    ticks = {id(t.label1): t for axes in figure.axes for t in axes.xaxis.get_major_ticks()}
    found = [t for t in found if id(t) not in ticks or low <= ticks[id(t)].get_loc() <= high]
    return found, [text.get_window_extent().transformed(figure.dpi_scale_trans.inverted()).padded(0) for text in found]


def check(ax):
    """No text is below 7 points, cut off, read as a formula, or on top of another."""
    found, boxes = texts(ax)
    width, height = ax.get_figure(root=True).get_size_inches()
    for text, box in zip(found, boxes, strict=True):
        assert text.get_fontsize() >= 7, text
        assert not text.get_parse_math(), text
        assert not text.get_usetex(), text
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (one, a), (other, b) in itertools.combinations(zip(found, boxes, strict=True), 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, down) < 2 / 72, (one, other)


def saved(ax, kind):
    """What a figure's file holds, bytes."""
    file = io.BytesIO()
    ax.get_figure(root=True).savefig(file, format=kind)
    return file.getvalue()


def check_vector(ax):
    """PDF and SVG hold paths, no image."""
    svg = saved(ax, "svg").decode()
    assert "<image" not in svg
    assert "<script" not in svg
    assert b"/Subtype /Image" not in saved(ax, "pdf")
    return svg


def shown(ax):
    """Every text drawn."""
    return [text.get_text() for text in texts(ax)[0]]


def check_everywhere(draw):
    """Checks `draw(ax=…, width=…)` at a journal's widths, and beside other axes under each layout engine."""
    for width in (3.5, 7.0):
        ax = draw(ax=None, width=width)
        assert ax.get_figure().get_size_inches()[0] == width
        for dpi in (100, 72, 300):
            ax.get_figure().set_dpi(dpi)
            check(ax)
        check_vector(ax)
    for engine in (None, "constrained", "tight"):
        figure, (first, second) = plt.subplots(2, figsize=(3.5, 5), layout=engine)
        assert draw(ax=first, width=7.0) is first
        draw(ax=second, width=7.0)
        figure.draw_without_rendering()
        check(second)
    plt.close("all")
