import matplotlib.pyplot as plt
import plot_cases as cases
import pytest

from deeplift_fast import plot
from deeplift_fast.plot.panel import Panel
from deeplift_fast.support.colours import Scale


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_rows_that_do_not_fit_are_left_out():
    ax = plt.figure(figsize=(4, 2)).add_axes((0, 0, 1, 1))
    panel = Panel(ax, 7.0, 50, above=10, below=26)
    assert panel.rows == int((2 * 72 - 36) / 9)
    panel.lay([(f"name {n}", ("",)) for n in range(panel.rows)], ["+1.00"] * panel.rows)
    panel.symmetric_axis(Scale(1), "label")
    cases.check(ax)


def test_axes_stay_in_their_box():
    figure, axes = plt.subplots(1, 2, figsize=(7, 2))
    before = axes[1].get_position().frozen()
    panel = Panel(axes[1], 7.0, 3, above=10, below=26)
    panel.lay([("a long name" * 9, ("",))] * 3, ["+1.00"] * 3)
    panel.key(Scale(1), 15, ["label"])
    found, boxes = cases.texts(axes[1])
    size = figure.get_size_inches()
    own = [box for text, box in zip(found, boxes, strict=True) if text.axes is axes[1]]
    assert own
    assert min(box.x0 for box in own) >= before.x0 * size[0] - 0.01
    assert max(box.x1 for box in own) <= before.x1 * size[0] + 0.01


def test_a_part_of_a_figure_has_its_own_box():
    figure = plt.figure(figsize=(7, 3), layout="none")
    _, right = figure.subfigures(1, 2)
    panel = Panel(right.add_subplot(), 7.0, 3, above=10, below=26)
    panel.lay([("name", ("",))] * 3, ["+1.00"] * 3)
    panel.symmetric_axis(Scale(1), "label")
    left = panel.ax.get_window_extent().x0 / figure.dpi
    assert left > 3.5
    cases.check(panel.ax)


@pytest.mark.parametrize("draw", [plot.waterfall, plot.timeline])
def test_axes_too_narrow_are_refused(draw):
    ax = plt.figure(figsize=(1.5, 4)).add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"ax is 1\.5 inches wide"):
        draw(cases.patient(), ax=ax)


def test_names_that_are_cut_to_one_text_show_their_codes():
    long = "Secondary malignant neoplasm of "
    titles = {"I10": long + "bone", "E119": long + "lung", "N179": "Gout"}
    table = cases.patient(codes=["I10", "E119", "N179"], labs=[])
    narrow, wide = (cases.shown(plot.waterfall(table, titles=titles, width=width)) for width in (3.5, 7))
    for code in ("I10", "E119"):
        (cut,) = (text for text in narrow if f"({code})" in text)
        assert cut.startswith("Seco")
    assert not [text for text in (*narrow, *wide) if "(N179)" in text]
    assert not [text for text in wide if "(I10)" in text]
