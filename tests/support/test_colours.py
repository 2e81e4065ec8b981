import numpy as np
import pytest
from colour_vision import BLINDNESS, apart, lab

from deeplift_fast.support.colours import (
    INK,
    LOWERS,
    NEUTRAL,
    RAISES,
    Scale,
    contrast,
    ink_on,
    luminance,
    mark,
    text_of,
)


@pytest.mark.parametrize("seen", BLINDNESS)
def test_both_signs_can_be_told_apart(seen):
    assert apart(RAISES, LOWERS, seen) > 40
    for part in (0.6, 0.3):  # of the limit; a difference of 2.3 is just noticed
        assert apart(Scale(1).colour(part), Scale(1).colour(-part), seen) > 10


def test_both_signs_differ_in_lightness_and_stand_out_from_paper():
    assert abs(lab(RAISES, "none")[0] - lab(LOWERS, "none")[0]) > 15  # in greyscale
    for colour in (RAISES, LOWERS, NEUTRAL, INK):
        assert contrast(colour, "#ffffff") >= 4.5


def test_texts_stand_out_from_every_cell():
    for value in np.linspace(-1, 1, 501):
        colour = Scale(1).colour(value)
        assert contrast({"black": "#000000", "white": "#ffffff"}[ink_on(colour)], colour) >= 4.5


def test_contrast_is_wcags():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert luminance("#ffffff") == pytest.approx(1)


def test_scales_are_symmetric_and_end_at_round_numbers():
    assert [Scale.of(np.array([v])).limit for v in (0.0, 0.07, -0.26, 1.0, 8.5, 123.0)] == pytest.approx(
        [1, 0.08, 0.3, 1, 10, 150]
    )
    scale = Scale(2)
    assert text_of(scale.colour(0)) == "#ffffff"
    assert text_of(scale.colour(2)) == text_of(scale.colour(5)) == RAISES
    assert text_of(scale.colour(-2)) == LOWERS
    assert (mark(1), mark(-1), mark(0)) == (RAISES, LOWERS, NEUTRAL)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_bad_limits_are_refused(limit):
    with pytest.raises(ValueError, match="accepted: a finite number above 0"):
        Scale(limit)
