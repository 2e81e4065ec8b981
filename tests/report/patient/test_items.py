from dataclasses import replace

import patient_cases as cases
import plot_cases
import pytest

from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.patient.items import HIDDEN, items_of
from deeplift_fast.report.patient.rows import read_sample


@pytest.fixture
def sample(five):
    return read_sample(CohortFolder(five), 0)


def test_items_sum_their_rows_the_strongest_first(sample):
    items = items_of(sample, cases.Named())
    rows, _ = cases.record()
    sums = rows.astype({"attribution": "float32"}).groupby("code")["attribution"].sum()
    assert {item.code: item.attribution for item in items} == pytest.approx(sums.to_dict(), abs=1e-6)
    sizes = [abs(item.attribution) for item in items]
    assert sizes == sorted(sizes, reverse=True)


def test_titles_units_and_ranges_stand_beside_names(sample):
    items = {item.code: item for item in items_of(sample, cases.Named())}
    sodium = items["Sodium"]
    assert (sodium.title, sodium.detail, sodium.is_value) == ("Sodium", "133–145 mEq/L", True)
    assert [sodium.shown(131.0), *map(sodium.flag, (131.0, 140.0, 146.0))] == ["131 mEq/L", "L", "", "H"]
    titled = next(code for code in items if code in cases.TITLES)
    assert (items[titled].title, items[titled].detail) == (cases.TITLES[titled], titled)
    untitled = next(code for code in items if code.startswith("Z7"))
    assert (items[untitled].title, items[untitled].detail) == (untitled, "")


def test_items_of_one_title_say_their_feature(sample):
    class Same(cases.Named):
        def find(self, feature, code):
            return super().find(feature, "N179" if feature == "conditions" else code)

    titles = [item.title for item in items_of(sample, Same()) if not item.is_value]
    assert set(titles) == {"Acute kidney failure, unspecified (conditions)"}


def test_rare_codes_are_one_item_without_a_name(sample):
    codes = [row.name for row in sample.rows if row.feature == "conditions"]
    items = items_of(sample, cases.Named(), rare={("conditions", code) for code in codes})
    (rare,) = [item for item in items if not item.is_value]
    assert rare.title == f"{len(set(codes))} rare codes"
    assert rare.count == len(set(codes))
    assert rare.code == ""


def test_identifiers_within_names_are_hidden(sample):
    class Telling(cases.Named):
        def find(self, feature, code):
            found = super().find(feature, code)
            return None if found is None else type(found)(f"{found.text} of {cases.PATIENT}, {cases.PATIENT}x")

    items = items_of(sample, Telling(), hidden={cases.PATIENT, "of"})
    assert items[0].title.endswith(f"of {HIDDEN}, {cases.PATIENT}x")  # whole words alone


@pytest.mark.parametrize("name", plot_cases.HOSTILE)
def test_hostile_names_are_one_line(sample, name):
    class Hostile(cases.Named):
        def find(self, feature, code):
            return type(super().find(feature, "N179"))(name)

    for item in items_of(sample, Hostile()):
        assert item.title.isprintable()
        assert 0 < len(item.title) < 200


def test_values_of_several_units_have_no_range(sample):
    class Mixed(cases.Named):
        def find(self, feature, code):
            found = super().find(feature, code)
            return found and replace(found, mixed=True)

    sodium = next(item for item in items_of(sample, Mixed()) if item.code == "Sodium")
    assert sodium.detail == "mostly mEq/L"
    assert sodium.flag(1000.0) == ""
