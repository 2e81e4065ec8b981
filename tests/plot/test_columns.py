import numpy as np
import pandas as pd
import plot_cases as cases

from deeplift_fast.plot.columns import columns_of
from deeplift_fast.plot.rows import normalised


def table(**columns):
    size = len(next(iter(columns.values())))
    return normalised(pd.DataFrame({"feature": "f", "attribution": np.zeros(size), **columns}))


def test_stays_come_by_the_day_of_their_beginning():
    found = columns_of(table(stay=["b", "a", "b"], day=[9.5, 2.0, 11.0]), 5)
    assert found.of.tolist() == [1, 0, 1]
    assert found.heads == ("2", "9")


def test_older_stays_share_a_column():
    found = columns_of(normalised(cases.patient(stays=10)), 4)
    assert len(found.heads) == 4
    assert found.heads[0].startswith("≤ ")
    assert "7 stays" in found.label
    assert sorted(set(found.of)) == [0, 1, 2, 3]


def test_stays_without_days_come_in_their_order():
    assert columns_of(table(stay=["x", "x", "y", None]), 5).heads == ("x", "y", "no date")


def test_days_times_and_steps():
    assert columns_of(table(day=[0.2, 0.9, 3.0, np.nan]), 5).heads == ("0", "3", "no date")
    timed = columns_of(table(time=[0.5, 2.0], step=[0, 1]), 5)
    assert timed.heads == ("0.5", "2")
    assert "as the model is given it" in timed.label
    assert columns_of(table(time=[0.5, np.nan], step=[0, 1]), 5).heads == ("0", "1")


def test_neighbours_are_put_together_where_there_are_too_many():
    found = columns_of(table(step=list(range(9))), 3)
    assert found.heads == ("0–2", "3–5", "6–8")
    assert found.of.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_ends_of_runs_have_no_decimals_from_10_on():
    found = columns_of(table(time=[0.25, 11.3, 14.18, 30.27], step=[0, 1, 2, 3]), 2)
    assert found.heads == ("0.25–11", "14–30")
