import matplotlib.pyplot as plt
import plot_cases as cases
import pytest

from deeplift_fast.plot.text import Numbers, short, shortened, width_of


@pytest.fixture
def ax():
    yield plt.figure().add_subplot()
    plt.close("all")


def test_numbers_have_signs_marks_and_the_same_decimals():
    numbers = Numbers(0.31)
    assert numbers.signed(0.31) == "▲ +0.310"
    assert numbers.signed(-0.0561) == "▼ −0.056"
    assert numbers.signed(-0.0004) == "0.000"
    assert numbers.level(-2) == "−2.000"
    assert Numbers(12.5).plain(12.5) == "+12.5"
    assert Numbers(2e-7).plain(2e-7) == "+2.00e−07"
    assert Numbers(0).plain(0) == "0.00"
    assert short(-130.0) == "−130"


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
