from collections import Counter

import pytest

from deeplift_fast.report.lab_items import CATEGORIES, Measure, measure


def test_the_categories_are_pyhealths():
    tasks = pytest.importorskip("pyhealth.tasks")
    theirs = tasks.MortalityPredictionStageNetMIMIC4.LAB_CATEGORIES
    assert {name: tuple(items) for name, items in theirs.items()} == CATEGORIES


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, Measure()),
        ({("", None, None): 3}, Measure()),
        ({("", 7.35, 7.45): 3}, Measure(None, 7.35, 7.45)),
        ({("mEq/L", 133.0, 145.0): 3, ("", None, None): 9}, Measure("mEq/L", 133.0, 145.0)),
        ({("mEq/L", None, None): 9, ("mEq/L", None, 145.0): 1}, Measure("mEq/L", None, 145.0)),
        ({("mg/dl", 1.0, 2.0): 2, ("mg/dL", 1.0, 3.0): 3, ("MG / DL", 1.0, 2.0): 2}, Measure("mg/dL", 1.0, 2.0)),
        ({("mg/dL", 8.4, 10.3): 2, ("mmol/L", 1.12, 1.32): 3}, Measure("mmol/L", 1.12, 1.32, mixed=True)),
        ({("mg/dL", 8.4, 10.3): 2, ("mmol/L", None, None): 3}, Measure("mmol/L", None, None, mixed=True)),
    ],
)
def test_the_most_common_unit_and_range_of_it(counts, expected):
    assert measure(["50808"], {"50808": Counter(counts), "1": Counter({("no", 1.0, 2.0): 99})}) == expected


def test_items_of_a_dimension_count_together():
    ranges = {
        "1": Counter({("a", 0.0, 1.0): 3}),
        "2": Counter({("b", 2.0, 3.0): 2}),
        "3": Counter({("b", 2.0, 3.0): 2}),
    }
    assert measure("123", ranges) == Measure("b", 2.0, 3.0, mixed=True)
    assert measure("1", ranges) == Measure("a", 0.0, 1.0)
