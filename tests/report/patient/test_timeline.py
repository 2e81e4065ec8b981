import re

import patient_cases as cases
import pytest

from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.patient.columns import columns_of
from deeplift_fast.report.patient.items import items_of
from deeplift_fast.report.patient.rows import Row, Sample, read_sample
from deeplift_fast.report.patient.timeline import CODES, FOLD_MOMENTS, MOST_MOMENTS, VALUES, timeline_of


def made(out):
    sample = read_sample(CohortFolder(out), 0)
    items, columns = items_of(sample, cases.Named()), columns_of(sample)
    return sample, items, timeline_of(items, columns)


def number(text):
    return float(re.sub("[▲▼ ]", "", text).replace("−", "-"))


def sums_agree(lines, total):
    """Columns of the lines, and the lines' own totals, add up to the last line, but for rounding."""
    for place, cell in enumerate(total.cells):
        inside = [number(line.cells[place].moved) for line in lines if line.cells[place]]
        assert sum(inside) == pytest.approx(number(cell.moved) if cell else 0, abs=0.006 * (len(inside) + 1))
    assert sum(number(line.total) for line in lines) == pytest.approx(number(total.total), abs=0.006 * len(lines))


@pytest.mark.parametrize("name", ["five", "fifty", "one"])
def test_nothing_is_lost_cells_add_up(name, request):
    sample, _, timeline = made(request.getfixturevalue(name))
    lines = [line for group in timeline.groups for line in group.lines]
    sums_agree(lines, timeline.total)
    assert number(timeline.total.total) == pytest.approx(sample.change, abs=0.006)


def test_rows_are_the_top_codes_and_the_labs_the_others_are_one_row_each(five):
    _, items, timeline = made(five)
    codes, values = timeline.groups
    assert (codes.heading, values.heading) == ("Codes", "Values")
    own = [item.title for item in items if not item.is_value]
    assert [line.title for line in codes.lines] == [*own[:CODES], f"{len(own) - CODES} other codes"]
    assert len(values.lines) == len(cases.LABS) <= VALUES
    assert len(own) > CODES


def test_a_cell_holds_the_newest_value_and_is_hollow_where_nothing_was_measured(five):
    _, _, timeline = made(five)
    rows, stays = cases.record()
    labs = {line.title: line for line in timeline.groups[1].lines}
    hollow = 0
    for (lab, stay), part in rows[rows["feature"] == "labs"].groupby(["code", "stay"]):
        place = [each["label"] for each in stays].index(stay)
        cell, measured = labs[lab].cells[place], part["value"].dropna()
        hollow += measured.empty
        assert cell.style.startswith("h") == measured.empty
        before = rows[(rows["code"] == lab) & (rows["step"] < part["step"].min())].dropna(subset="value")
        if measured.empty and before.empty:
            assert (cell.value, cell.more, cell.how) == ("", "not measured", "")
        elif measured.empty:
            assert cell.value == f"({before['value'].iloc[-1]:.4g})"
            assert cell.more == f"from day {int(before['day'].iloc[-1])}"
            assert cell.how == "last measured,"
        else:
            assert cell.value == f"{measured.iloc[-1]:.4g}"
        _, _, low, high = cases.LABS[lab]
        flag = "" if measured.empty else "H" if measured.iloc[-1] > high else "L" if measured.iloc[-1] < low else ""
        assert cell.flag == flag
    assert hollow
    assert timeline.is_hollow
    assert timeline.is_flagged


def bracketed(rows, carried=()):
    """The cells of the one value, by column, and what the key says of brackets; each row is a day."""
    each = tuple(
        Row("labs", "Sodium", step, None, float(place), None, measured, value if measured else None, 0.1)
        for place, (step, measured, value) in enumerate(rows)
    )
    sample = Sample(0, None, None, None, 0, 0.0, 0.0, None, None, 0.0, (), each, frozenset({"labs"}))
    timeline = timeline_of(items_of(sample, None), columns_of(sample), carried=carried)
    return [(cell.value, cell.more, cell.how) for cell in timeline.groups[0].lines[0].cells], timeline.brackets


def test_a_hollow_cell_says_which_value_it_carries_forward_and_since_when():
    rows = [(0, False, 0), (1, True, 140), (2, False, 0), (3, False, 0), (4, True, 150), (5, False, 0)]
    cells, key = bracketed(rows, {"labs"})
    assert cells == [
        ("", "not measured", ""),
        ("140", "", ""),
        ("(140)", "from day 1", "carried forward"),
        ("(140)", "from day 1", "carried forward"),
        ("150", "", ""),
        ("(150)", "from day 4", "carried forward"),
    ]
    assert key == "the value carried forward"
    cells, key = bracketed(rows)  # a processor that may do something else
    assert cells[2] == ("(140)", "from day 1", "last measured,")
    assert key == "the value last measured before"


def test_a_value_that_was_never_measured_says_so():
    assert bracketed([(0, False, 0), (1, False, 0)], {"labs"}) == ([("", "not measured", "")] * 2, "")


def test_of_two_dimensions_of_one_name_no_value_is_said_to_be_carried():
    cells, _ = bracketed([(0, True, 140), (0, True, 20), (1, False, 0), (1, False, 0)], {"labs"})
    assert cells[2:] == [("", "not measured", "")] * 2


def test_signs_show_as_class_mark_and_sign(five):
    _, _, timeline = made(five)
    cells = [cell for group in timeline.groups for line in group.lines for cell in line.cells if cell and cell.style]
    assert {cell.style[-2] if cell.style[0] != "h" else cell.style for cell in cells} >= {"p", "n"}
    for cell in cells:
        sign = cell.style[1] if cell.style[0] == "h" else cell.style[0]
        assert cell.moved == "0.00" or cell.moved.startswith({"p": "▲+", "n": "▼−"}[sign])


def test_the_scale_is_that_of_single_stays(fifty):
    _, _, timeline = made(fifty)
    assert float(timeline.limit) < 0.6  # 26 older stays sum to more than 1 in some rows
    older = [abs(number(line.cells[0].moved)) for line in timeline.groups[0].lines if line.cells[0]]
    assert max(older) > 1


@pytest.mark.parametrize("name", ["five", "fifty", "one"])
def test_folds_hold_the_steps_of_their_column(name, request):
    _, _, timeline = made(request.getfixturevalue(name))
    moments = 0
    for column, place in zip(timeline.columns.each, timeline.places, strict=True):
        if place is None:
            assert column.older or name == "one"
            continue
        fold = timeline.folds[place]
        moments += len(fold.heads)
        total = sum(row.attribution for row in column.rows)
        assert sum(number(line.total) for line in fold.lines) == pytest.approx(total, abs=0.01 * len(fold.lines))
        for line in fold.lines:
            inside = [number(cell.moved) for cell in line.cells if cell]
            assert sum(inside) == pytest.approx(number(line.total), abs=0.006 * (len(inside) + 1))
    assert moments <= max(FOLD_MOMENTS, MOST_MOMENTS)
    assert (name == "one") == (not timeline.folds)


def test_moments_of_days_are_hours_of_their_stay(five):
    _, _, timeline = made(five)
    assert timeline.folds[0].heads == ("+0 h", "+7 h", "+15 h", "+22 h", "+30 h", "+37 h")
    assert timeline.folds[0].title == "Day 0 · secret-stay-0: 6 moments"


def test_weaker_moments_share_a_column(fifty):
    _, _, timeline = made(fifty)
    fold = timeline.folds[0]
    assert fold.heads[-1] == "others"
    assert fold.left_out == f"{12 - len(fold.heads) + 1} weaker moments"
    without = timeline.with_moments(0)
    assert without.is_cut
    assert without.folds == ()
    assert set(without.places) == {None}
