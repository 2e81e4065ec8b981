import matplotlib.pyplot as plt
import plot_cases as cases
import pytest

from deeplift_fast.plot.text import shortened, width_of


@pytest.fixture
def ax():
    yield plt.figure().add_subplot()
    plt.close("all")


@pytest.mark.parametrize("name", cases.HOSTILE)
def test_names_fit_their_width(ax, name):
    for width in (30, 100):
        found = shortened(ax, name, width)
        assert width_of(ax, found) <= width
        assert found.isprintable()


def test_the_longest_detail_beside_which_a_name_fits_is_taken(ax):
    details = (" = 130, last of 4", " = 130")
    assert shortened(ax, "Sodium", 200, details) == "Sodium = 130, last of 4"
    assert shortened(ax, "Sodium", width_of(ax, "Sodium = 130") + 1, details) == "Sodium = 130"
    cut = shortened(ax, "Sodium in serum", width_of(ax, "Sodium = 130"), details)
    assert cut.endswith("… = 130")
    assert cut.startswith("Sod")
