import re

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast.report.cohort.swarm import HEIGHT, MARK, WIDTH, place, swarm_of, swarmed
from deeplift_fast.support.colours import contrast

NONE = (float("nan"), float("nan"))


def dots(path):
    """The places of a path's dots."""
    steps = re.findall(r"m(-?\d+) ?(-?\d+)h0", path)
    assert "".join(f"m{x}{'' if y.startswith('-') else ' '}{y}h0" for x, y in steps) == path
    return np.cumsum(np.array(steps, int).reshape(-1, 2), axis=0)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=60))
def test_every_point_is_a_dot_within_the_drawing(numbers):
    points = pd.DataFrame({"contribution": numbers, "value": np.nan})
    swarm = swarm_of(points, 2.0, 0.0, NONE, 400)
    found = {level: dots(path) for level, path in swarm.paths}
    for level, sign in (("p", 1), ("n", -1)):
        mine = sorted(each for each in numbers if (each < 0) == (sign < 0))
        assert sorted(x for x, _ in found.get(level, [])) == sorted(place(each, 2.0) for each in mine)
    for each in found.values():
        assert ((each[:, 0] >= MARK / 2) & (each[:, 0] <= WIDTH - MARK / 2)).all()
        assert ((each[:, 1] >= MARK / 2) & (each[:, 1] <= HEIGHT - MARK / 2)).all()


def test_values_have_the_colour_of_their_third():
    points = pd.DataFrame({"contribution": np.linspace(-1, 1, 10), "value": [*range(9), np.nan]})
    swarm = swarm_of(points, 1.0, 0.25, (0.0, 0.5), 400)
    assert {level: len(dots(path)) for level, path in swarm.paths} == {"low": 3, "middle": 3, "high": 3, "none": 1}
    assert swarm.text == (("low", points["contribution"][1]), ("high", points["contribution"][7]))
    assert (swarm.mean, swarm.low, swarm.high) == (place(0.25, 1.0), place(0, 1.0), place(0.5, 1.0))


def test_no_more_points_than_asked():
    points = pd.DataFrame({"contribution": np.ones(9), "value": np.nan})
    ((_, path),) = swarm_of(points, 2.0, 1.0, NONE, 4).paths
    assert len(dots(path)) == 4


@given(st.lists(st.floats(0, 300), min_size=1, max_size=80))
def test_marks_of_one_place_do_not_share_a_height(places):
    places = np.sort(places)
    heights = swarmed(places, 3.0)
    cells = np.floor(places / 3.0)
    assert len(set(zip(cells, heights, strict=True))) == len(places)
    assert np.abs(heights).max() <= 1


def test_colours_of_dots_stand_out_and_differ_in_lightness():
    from deeplift_fast.report.page import TEMPLATES

    style = (TEMPLATES / "cohort.css").read_text()
    colours = {
        level: re.search(rf"\.dots \.{level} {{ stroke: (#\w+)", style)[1]
        for level in ("low", "middle", "high", "none", "p", "n")
    }
    assert all(contrast(colour, "#ffffff") >= 3 for colour in colours.values())
    assert contrast(colours["low"], colours["middle"]) >= 1.7
    assert contrast(colours["middle"], colours["high"]) >= 2
