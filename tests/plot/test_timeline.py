import matplotlib.pyplot as plt
import plot_cases as cases
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from deeplift_fast import plot
from deeplift_fast.support.colours import contrast


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.mark.parametrize(
    "patient",
    [
        cases.patient(),
        cases.patient(stays=50),
        cases.patient(stays=30, with_days=False),
        cases.patient(labs=[]),
        cases.patient(stays=1),
    ],
    ids=["stays", "many stays", "steps", "codes", "one stay"],
)
def test_nothing_overlaps_or_is_cut_off(patient):
    cases.check_everywhere(lambda **how: plot.timeline(patient, **how))


def test_long_values_make_columns_wide():
    table = cases.patient(stays=20)
    table["value"] *= -1.2345e-7
    for width in (3.5, 7.0):
        cases.check(plot.timeline(table, width=width))


def cells(ax):
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def test_cells_hold_sums_and_the_newest_values():
    table = cases.patient()
    ax = plot.timeline(table, top=20)
    table["day_of"] = table["day"].astype(int)
    first = table[(table["code"] == "Sodium") & table["measured"].astype(bool)].iloc[0]
    assert f"{first['value']:.4g}" in cases.shown(ax)
    assert f"{first['attribution']:+.2f}".replace("-", "−") in " ".join(cases.shown(ax))
    assert str(first["day_of"]) in cases.shown(ax)


def test_values_not_measured_are_hollow():
    table = cases.patient(codes=["I10"])
    table = table[table["feature"] == "labs"]
    ax = plot.timeline(table)
    hollow = [cell for cell in cells(ax) if to_rgb(cell.get_facecolor()) == (1, 1, 1) and cell.get_linewidth() == 0.9]
    assert len(hollow) == (~table["measured"].astype(bool)).sum()
    assert any("hollow: not measured" in text for text in cases.shown(ax))


def test_a_table_without_measured_goes_by_null_values():
    table = cases.patient()
    one, other = plot.timeline(table), plot.timeline(table.drop(columns="measured"))
    assert [c.get_facecolor() for c in cells(one)] == [c.get_facecolor() for c in cells(other)]


def test_older_stays_share_a_column():
    table = cases.patient(stays=50)
    ax = plot.timeline(table)
    assert any(text.startswith("≤ ") for text in cases.shown(ax))
    assert str(int(table["day"].max())) in cases.shown(ax)


def test_texts_stand_out_from_their_cells():
    ax = plot.timeline(cases.patient(stays=12))
    for cell in cells(ax):
        middle = (cell.get_x() + cell.get_width() / 2, cell.get_y() + cell.get_height() / 2)
        inside = [text for text in ax.texts if text.xy == pytest.approx(middle, abs=1e-6)]
        for text in inside:
            assert contrast(to_rgb(text.get_color()), to_rgb(cell.get_facecolor())) >= 4.5


def test_the_scale_is_symmetric_and_holds_every_cell():
    shown = cases.shown(plot.timeline(cases.patient(), width=7))
    (low,) = [text for text in shown if text.startswith("▼ −") and f"+{text[3:]} ▲" in shown]
    assert float(low[3:]) > 0
    assert "+2 ▲" in cases.shown(plot.timeline(cases.patient(), limit=2.0))


def test_hostile_names_are_text():
    ax = plot.timeline(cases.patient(codes=list(cases.HOSTILE), labs=["<b>", "$a$"]))
    cases.check(ax)
    cases.check_vector(ax)


def test_bad_limits_are_refused():
    with pytest.raises(ValueError, match="limit is -1"):
        plot.timeline(cases.patient(), limit=-1)
