import pandas as pd
import pytest

from deeplift_fast.plot.items import items_of
from deeplift_fast.plot.rows import Rows, normalised
from deeplift_fast.report.titles import Titles


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


LABS = {"feature": ["labs"] * 3, "code": ["Sodium"] * 3, "attribution": [1.0] * 3}


def test_values_have_units_and_ranges_from_titles():
    (item,) = items(Titles.packaged(), **LABS, value=[1, 2, 130.5])
    assert item.details == (
        " = 130.5 mEq/L (133–145), last of 3",
        " = 130.5 mEq/L, last of 3",
        " = 130.5 mEq/L",
        " = 130.5",
    )
    assert item.units == (" (mEq/L, 133–145)", " (mEq/L)", "")


@pytest.mark.parametrize(
    ("rows", "details", "units"),
    [
        ("mEq/L,,\nmmol/L,,", (" = 130 (mostly mEq/L)", " = 130"), (" (mostly mEq/L)", "")),
        ("\u202emEq/L,,", (r" = 130 \u202emEq/L", " = 130"), (r" (\u202emEq/L)", "")),
        ("x" * 100 + ",,", (" = 130",), ("",)),
        (",133,145", (" = 130",), ("",)),
    ],
)
def test_units_that_are_mixed_hostile_long_or_missing(tmp_path, rows, details, units):
    (tmp_path / "hosp").mkdir()
    (tmp_path / "hosp/d_labitems.csv").write_text("itemid,label\n50983,Sodium\n")
    events = "".join(f"50983,{row}\n" for row in (rows.splitlines()[0], *rows.splitlines()))
    (tmp_path / "hosp/labevents.csv").write_text(f"itemid,valueuom,ref_range_lower,ref_range_upper\n{events}")
    (item,) = items(Titles(tmp_path), feature=["labs"], code=["Sodium"], value=[130.0], attribution=[1.0])
    assert (item.details, item.units) == (details, units)


def test_a_code_without_values_has_no_unit():
    (item,) = items(Titles.packaged(), **LABS)
    assert (item.details, item.units) == ((" ×3",), ("",))
