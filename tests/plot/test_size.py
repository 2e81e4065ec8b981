"""Figures with text of another size: the same layout, larger."""

import matplotlib.pyplot as plt
import plot_cases as cases
import pytest

from deeplift_fast import plot

DRAWN = {
    "waterfall": lambda **how: plot.waterfall(cases.plain(), sample=1, **how),
    "timeline": lambda **how: plot.timeline(cases.patient(), **how),
    "compare": lambda **how: plot.compare(cases.patient(), cases.patient(), **how),
    "bar": lambda **how: plot.bar(cases.cohort(12), **how),
    "beeswarm": lambda **how: plot.beeswarm(cases.cohort(12), **how),
}


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", plot.__all__)
def test_every_text_has_the_size_asked_for(name):
    heights = []
    for size in (7.0, 9.5):
        ax = DRAWN[name](width=7.0, size=size)
        assert {text.get_fontsize() for text in cases.texts(ax)[0]} == {size}
        cases.check(ax)
        heights.append(ax.get_figure().get_size_inches()[1])
    assert heights[1] == pytest.approx(heights[0] * 9.5 / 7)


def test_axes_that_are_given_hold_fewer_rows_of_larger_text():
    shown = []
    for size in (7.0, 10.0):
        _, ax = plt.subplots(figsize=(5, 2))
        plot.bar(cases.cohort(12), ax=ax, size=size)
        cases.check(ax)
        shown.append(len(ax.patches))
    assert shown[1] < shown[0]


@pytest.mark.parametrize("size", [4.9, 25, float("nan")])
def test_a_size_out_of_range_is_refused_before_a_figure_is_made(size):
    with pytest.raises(ValueError, match=r"size is .*; accepted: 5 to 24 points"):
        plot.waterfall(cases.patient(), size=size)
    assert not plt.get_fignums()
