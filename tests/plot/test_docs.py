"""The lines of docs/plots.md that lead from a table to figures run as they stand."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import plot_cases as cases
from cohort_folders import draw, write

TEXT = (Path(__file__).parents[2] / "docs/plots.md").read_text()


def test_ten_lines_lead_from_a_table_to_figures(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    write(tmp_path / "mortality", *draw())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    pdf = (tmp_path / "waterfall.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/MediaBox [ 0 0 252 " in pdf  # 3.5 inches, a journal's column
    assert b"<svg" in (tmp_path / "codes.svg").read_bytes()
    cases.check(names["ax"])
    plt.close("all")


def test_every_figure_is_named():
    from deeplift_fast import plot

    assert all(f"`{name}`" in TEXT for name in plot.__all__)
