import numpy as np
import pytest

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
    rgb,
    text_of,
)

# Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency":
# what people without one kind of cones see, in linear RGB.
BLINDNESS = {
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3).tolist(),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour, seen):
    """CIELAB of a colour as someone sees it."""
    channels = np.array(rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(np.array(BLINDNESS[seen]) @ linear, 0, 1) / (XYZ @ np.ones(3))
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen", BLINDNESS)
def test_both_signs_can_be_told_apart(seen):
    assert np.linalg.norm(lab(RAISES, seen) - lab(LOWERS, seen)) > 40
    for part in (0.6, 0.3):  # of the limit; a difference of 2.3 is just noticed
        assert np.linalg.norm(lab(Scale(1).colour(part), seen) - lab(Scale(1).colour(-part), seen)) > 10


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
