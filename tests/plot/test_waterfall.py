import dataclasses
import re

import matplotlib.pyplot as plt
import numpy as np
import plot_cases as cases
import pytest

from deeplift_fast import plot
from deeplift_fast.plot.waterfall import _shares
from deeplift_fast.support.printable import printable


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def ends(ax):
    return [round(float(t.replace("−", "-").lstrip("▲▼ ")), 6) for t in cases.shown(ax) if re.search(r"\d\.\d\d$", t)]


def test_nothing_overlaps_or_is_cut_off():
    cases.check_everywhere(lambda **how: plot.waterfall(cases.patient(), **how))
    cases.check_everywhere(lambda **how: plot.waterfall(cases.plain(), sample=1, **how))


def test_bars_lead_from_the_baseline_to_the_output():
    found = cases.plain()
    ax = plot.waterfall(found, sample=1)
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches[:6]]
    values = sorted(found.contributions["x"][1].tolist(), key=lambda each: -abs(each))
    at = float(found.baseline_output[1])
    for value, (begin, end) in zip(values, bars, strict=True):
        assert begin == pytest.approx(at, abs=1e-5)
        assert end - begin == pytest.approx(value, abs=1e-5)
        at += value
    assert at == pytest.approx(float(found.output[1]), abs=1e-5)
    assert {"Baseline: zeros", "Output"} < set(cases.shown(ax))


def test_others_are_one_bar():
    table = cases.patient()
    sums = table.groupby("code")["attribution"].sum()
    rest = sums.loc[sums.abs().sort_values().index[: len(sums) - 3]].sum()
    ax = plot.waterfall(table, top=3)
    assert f"{len(sums) - 3} others" in cases.shown(ax)
    assert ax.patches[3].get_width() == pytest.approx(rest, abs=1e-5)


def test_what_contributions_miss_is_told():
    found = cases.plain()
    short = dataclasses.replace(found, output=found.output + 0.5)
    assert "not accounted for" in cases.shown(plot.waterfall(short, sample=0))
    assert "not accounted for" not in cases.shown(plot.waterfall(found, sample=0))


def test_signs_are_colours_marks_and_signs():
    ax = plot.waterfall(cases.patient())
    raised = [text for text in cases.shown(ax) if text.startswith("▲ ")]
    lowered = [text for text in cases.shown(ax) if text.startswith("▼ ")]
    assert raised
    assert all(text[2] == "+" for text in raised)
    assert lowered
    assert all(text[2] == "−" for text in lowered)
    for bar in ax.patches[:10]:
        red, _, blue, _ = bar.get_facecolor()
        assert (red > blue) == (bar.get_width() > 0)


@pytest.mark.parametrize("kind", ["names", "titles"])
def test_hostile_names_are_text(kind):
    names = list(cases.HOSTILE)
    codes = names if kind == "names" else [f"C{n}" for n in range(len(names))]
    table = cases.patient(codes=codes, stays=20, labs=[])
    titles = None if kind == "names" else dict(zip(codes, names, strict=True))
    ax = plot.waterfall(table, top=20, titles=titles)
    cases.check(ax)
    svg = cases.check_vector(ax)
    assert "‮" not in svg
    assert "\x07" not in svg
    written = " ".join(cases.shown(ax))
    for name in set(table["code"]) if titles is None else map(titles.get, set(table["code"])):
        assert (printable(name)[:8] or "(empty)") in written
    assert len(svg) < 500_000


def test_a_users_latex_is_not_run():
    with plt.rc_context({"text.usetex": True, "font.size": 3}):
        cases.check(plot.waterfall(cases.patient(codes=["a_b", r"\input{x}", "100%"])))


def test_axes_too_small_are_refused():
    ax = plt.figure(figsize=(3, 0.7)).add_subplot()
    with pytest.raises(ValueError, match=r"ax is .* inches"):
        plot.waterfall(cases.patient(), ax=ax)
    with pytest.raises(ValueError, match="top is 0"):
        plot.waterfall(cases.patient(), top=0)
    with pytest.raises(ValueError, match=r"width is 0\.1"):
        plot.waterfall(cases.patient(), width=0.1)


def test_zeros_alone_can_be_drawn():
    cases.check(plot.waterfall(cases.patient(scale=0.0)))


def test_large_and_small_numbers_fit():
    for scale in (1e-9, 1e-4, 1e4, 1e9):
        cases.check(plot.waterfall(cases.patient(scale=scale), width=3.5))
        assert np.isfinite(plt.gca().get_xlim()).all()


@pytest.mark.parametrize(
    ("low", "high", "shares"),
    [(-3, 3, {0.5, 0.1, 0.9}), (0.07, 0.19, {0.52, 0.54}), (2.0, 2.1, {0.885, 0.89}), (-900, -800, set())],
)
def test_probabilities_are_told_on_every_axis_that_has_some(low, high, shares):
    found = _shares(low, high)
    assert shares <= set(found)
    assert len(found) > 1 or not shares
    assert all(low <= np.log(share / (1 - share)) <= high for share in found)


def test_a_baseline_is_named_without_its_digest():
    found = dataclasses.replace(cases.plain(), baseline="labs: 140; otherwise typical 9621cf6c9388")
    assert "Baseline: labs: 140; otherwise typical" in cases.shown(plot.waterfall(found, sample=1))
