"""What a patient's reasons act together with, in words and on the page."""

import page_checks
import patient_cases as cases
import pytest

from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.patient.items import items_of
from deeplift_fast.report.patient.rows import Pair, read_sample
from deeplift_fast.report.patient.together import MOST, together_of


@pytest.fixture
def items(five):
    return items_of(read_sample(CohortFolder(five), 0), cases.Named())


def pair(one, other, interaction):
    return Pair((one.feature, one.code), (other.feature, other.code), interaction)


def codes(items):
    return [item for item in items if not item.is_value]


def test_the_strongest_are_told_in_either_order_of_a_pair(items):
    own, *others = codes(items)
    size = abs(own.attribution)
    pairs = [
        pair(own, others[0], 0.2 * size),
        pair(others[1], own, -0.4 * size),
        pair(own, others[2], 0.3 * size),
        pair(others[0], others[1], 9 * size),
    ]
    first, second = together_of(own, items, pairs)
    assert MOST == 2
    assert (first.title, first.style, first.mark) == (others[1].title, "tn", "▼")
    assert (second.title, second.style, second.mark) == (others[2].title, "tp", "▲")
    assert first.did == f"{0.4 * size:.2f} lower"
    assert second.did == f"{0.3 * size:.2f} higher"


@pytest.mark.parametrize(("share", "told"), [(0.099, 0), (-0.099, 0), (0.101, 1), (0.0, 0)])
def test_what_is_small_beside_the_contribution_is_noise(items, share, told):
    own, other, *_ = codes(items)
    assert len(together_of(own, items, [pair(own, other, share * own.attribution)])) == told


def test_values_and_codes_that_are_not_named_have_none(items):
    own, other, *_ = codes(items)
    value = next(item for item in items if item.is_value)
    pairs = [pair(own, other, 9.0)]
    assert together_of(value, items, pairs) == ()
    assert together_of(own, [item for item in items if item is not other], pairs) == ()


def test_a_page_says_it_in_a_sentence(patient_page, acting, five):
    parsed = page_checks.check(patient_page(acting, sample=0))
    assert parsed.shown.count("It acts together with ") == 6
    own, first = "Encounter for palliative care", "Acute respiratory failure with hypoxia"
    assert f"by 0.35. It acts together with {first}: with both, the logit is ▲ 0.20 higher than the two" in parsed.shown
    assert (
        f"It acts together with {own}: with both, the logit is ▲ 0.20 higher than the two explain one" in parsed.shown
    )
    assert "▼ 0.09 lower" in parsed.shown
    assert parsed.shown.count("“Acts together” compares") == 1
    assert "acts together" not in page_checks.check(patient_page(five, sample=0)).shown.lower()


def test_a_pseudonymous_page_names_no_rare_code(patient_page, acting):
    shown = page_checks.check(patient_page(acting, sample=0, pseudonymous=True)).shown
    assert "It acts together with Sepsis, unspecified organism" in shown
    assert "palliative" not in shown


def test_a_patient_without_pairs_has_a_page(patient_page, acting):
    assert "acts together" not in page_checks.check(patient_page(acting, sample=1)).shown
