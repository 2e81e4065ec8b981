import pandas as pd
import pytest

from deeplift_fast.plot.items import items_of
from deeplift_fast.plot.rows import Rows, normalised


def items(titles=None, **columns):
    return items_of(Rows(normalised(pd.DataFrame(columns))), titles)


def test_a_codes_contributions_are_summed():
    first, second = items(feature=["c"] * 3, code=["a", "b", "a"], attribution=[1.0, -3.0, 1.0])
    assert (first.name, first.details, first.attribution) == ("b", ("",), -3)
    assert (second.name, second.details, second.attribution) == ("a", (" ×2",), 2)


def test_values_are_told():
    found = items(feature=["l"] * 4, code=["a", "a", "b", "c"], value=[1, 2.5, 7, None], attribution=[4, 4, 2, 1])
    assert [item.details for item in found] == [
        (" = 2.5, last of 2", " = 2.5"),
        (" = 7",),
        (" (not measured)", ""),
    ]


def test_codes_of_two_features_with_one_name_say_their_feature():
    found = items(feature=["diagnoses", "procedures"], code=["0040", "0040"], attribution=[2.0, 1.0])
    assert [item.name for item in found] == ["0040 (diagnoses)", "0040 (procedures)"]
    titled = items(
        {("diagnoses", "0040"): "Cholera"}, feature=["diagnoses", "p"], code=["0040"] * 2, attribution=[2, 1]
    )
    assert [item.name for item in titled] == ["Cholera", "0040"]


def test_unnamed_dimensions_are_numbered():
    (item,) = items(feature=["v"], slot=[3], code=[None], value=[1.0], attribution=[1.0])
    assert item.name == "dimension 3"
    assert item.attribution == pytest.approx(1)
