import patient_cases as cases
import pytest

from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.patient.items import items_of
from deeplift_fast.report.patient.position import positions_of
from deeplift_fast.report.patient.rows import read_sample


@pytest.fixture
def table(five):
    return cases.cohort_table(five)


@pytest.fixture
def items(five):
    return items_of(read_sample(CohortFolder(five), 0), cases.Named())


def test_places_are_on_one_scale_in_order(items, table):
    found = positions_of(items[:3], table, 0)
    assert [each.title for each in found] == [item.title for item in items[:3]]
    for each in found:
        assert 0 <= each.low <= each.first <= each.median <= each.third <= each.high <= 100
        assert 0 <= each.own <= 100
    assert len({each.zero for each in found}) == 1
    (first, second, _), (one, other, _) = found, items[:3]
    assert (first.own - first.zero) / one.attribution == pytest.approx(
        (second.own - second.zero) / other.attribution, rel=0.02
    )


def test_words_say_how_many_lie_below(items, table):
    row = table.index[table["code"] == items[0].code][0]
    for share, said in ((50, "above 50 %"), (90, "above 90 %"), (25, "below 75 %"), (5, "below 95 %")):
        given = table.copy()
        columns = [name for name in table.columns if name.startswith("q")]
        given.loc[row, columns] = [items[0].attribution + (int(name[1:]) - share) / 100 for name in columns]
        (found,) = positions_of(items[:1], given, 0)
        assert said in found.text
    (found,) = positions_of(items[:1], table.assign(q100=-9.0, q99=-9.0), 0)
    assert "among the highest of the" in found.text


def test_too_few_patients_and_other_targets_are_left_out(items, table):
    row = table.index[table["code"] == items[0].code][0]
    few = table.copy()
    few.loc[row, "patients"] = 9
    assert len(positions_of(items[:1], few, 0, fewest=10)) == 0
    few.loc[row, "patients"] = 10
    assert len(positions_of(items[:1], few, 0, fewest=10)) == 1
    assert positions_of(items[:3], table, 1) == ()
