import re

import pytest
from colour_vision import BLINDNESS, apart, lab

from deeplift_fast.report.colour_classes import STEPS, css, shade, sign
from deeplift_fast.support.colours import contrast

INKS = {"black": "#000000", "white": "#ffffff"}


def test_every_shade_has_a_class_whose_text_stands_out():
    found = re.findall(r"\.([pn]\d)\{background:(#\w{6});color:(\w+)\}", css())
    assert [name for name, _, _ in found] == [f"{s}{n}" for s in "pn" for n in range(1, STEPS + 1)]
    for _, background, ink in found:
        assert contrast(background, INKS[ink]) >= 4.5
    assert len({background for _, background, _ in found}) == 2 * STEPS
    for hollow in re.findall(r"1\.5px (#\w{6})", css()):
        assert contrast(hollow, "#ffffff") >= 4.5


@pytest.mark.parametrize("seen", BLINDNESS)
def test_both_signs_can_be_told_apart_from_the_first_shade_on(seen):
    found = dict(re.findall(r"\.([pn]\d)\{background:(#\w{6})", css()))
    for step in range(1, STEPS + 1):
        assert apart(found[f"p{step}"], found[f"n{step}"], seen) > 4 + 2.5 * step, step


def test_shades_are_in_the_order_of_their_lightness():
    found = dict(re.findall(r"\.([pn]\d)\{background:(#\w{6})", css()))
    for letter in "pn":
        lightness = [lab(found[f"{letter}{step}"], "none")[0] for step in range(1, STEPS + 1)]
        assert lightness == sorted(lightness, reverse=True)


def test_contributions_have_the_class_of_their_sign_and_size():
    found = [shade(v, 0.8) for v in (0.8, -0.8, 0.06, -0.16, 9.0, 0.04, 0.0)]
    assert found == ["p8", "n8", "p1", "n2", "p8", "", ""]
    assert [sign(v) for v in (2.0, -2.0, 0.0)] == ["p", "n", ""]
