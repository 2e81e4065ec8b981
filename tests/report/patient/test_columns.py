from dataclasses import replace

import pytest

from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.patient.columns import MOST, columns_of
from deeplift_fast.report.patient.rows import read_sample


@pytest.fixture
def sample(five):
    return read_sample(CohortFolder(five), 0)


def placed(columns):
    return [row for column in columns.each for row in column.rows]


def test_stays_stand_under_their_days_in_order(sample):
    columns = columns_of(sample)
    assert columns.kind == "stay"
    assert [column.head for column in columns.each] == [f"day {begin:.0f}" for _, begin in sample.stays]
    assert [column.label for column in columns.each] == [label for label, _ in sample.stays]
    assert sorted(map(id, placed(columns))) == sorted(map(id, sample.rows))
    backwards = replace(sample, stays=sample.stays[::-1], rows=sample.rows[::-1])
    assert [column.head for column in columns_of(backwards).each] == [column.head for column in columns.each]
    assert [column.label for column in columns_of(sample, names_stays=False).each] == [f"stay {n}" for n in range(1, 6)]


def test_stays_that_the_sample_does_not_list_begin_with_their_first_row(sample):
    columns = columns_of(replace(sample, stays=()))
    assert [column.head for column in columns.each] == [column.head for column in columns_of(sample).each]


def test_stays_without_days_keep_the_order_of_the_data(sample):
    rows = tuple(replace(row, day=None) for row in sample.rows)
    columns = columns_of(replace(sample, stays=(), rows=rows))
    assert [column.head for column in columns.each] == ["no date"] * 5
    assert "do not say when" in columns.explained


def test_rows_outside_stays_come_first(sample):
    rows = (*sample.rows[:-1], replace(sample.rows[-1], stay=None))
    columns = columns_of(replace(sample, rows=rows))
    assert columns.each[0].head == "outside stays"
    assert columns.each[0].rows == rows[-1:]


def test_the_newest_stays_have_columns_of_their_own(fifty):
    sample = read_sample(CohortFolder(fifty), 0)
    columns = columns_of(sample)
    assert len(columns.each) == MOST + 1
    older, *newest = columns.each
    assert older.older == 26
    assert older.label == "26 older stays"
    assert older.head == f"to day {sample.stays[25][1]:,.0f}"
    assert [column.label for column in newest] == [label for label, _ in sample.stays[26:]]
    assert sorted(map(id, placed(columns))) == sorted(map(id, sample.rows))


def test_days_times_and_steps_are_described_for_what_they_are(sample):
    days = replace(sample, stays=(), rows=tuple(replace(row, stay=None) for row in sample.rows))
    assert columns_of(days).kind == "day"
    assert columns_of(days).each[0].head == "day 0"
    times = replace(days, rows=tuple(replace(row, day=None) for row in days.rows))
    assert columns_of(times).kind == "time"
    assert "do not say in what unit" in columns_of(times).explained
    some = replace(times, rows=(*times.rows[:-1], replace(times.rows[-1], time=None)))
    assert columns_of(some).kind == "step"
    assert columns_of(some).each[-1].head == "step 30"
    assert "may be different times" in columns_of(some).explained
