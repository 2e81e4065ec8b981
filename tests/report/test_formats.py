import math

import plot_cases as cases
import pytest

from deeplift_fast.report.formats import LONGEST, count, cut, day, name, share


@pytest.mark.parametrize("text", cases.HOSTILE)
def test_names_are_text_in_one_line(text):
    shown = cut(text)
    assert shown.isprintable()
    assert shown
    assert len(shown) <= LONGEST + 25
    html = str(name(text))
    assert html.startswith("<bdi>")
    assert html.count("<") == html.count(">") == 2
    assert '"' not in html


def test_a_long_name_says_how_long_it_is():
    assert cut("x" * 10_000) == "x" * LONGEST + "… (10,000 characters)"
    assert cut("x" * LONGEST) == "x" * LONGEST
    assert cut("\x07" * 100).endswith("… (100 characters)")  # each is shown as four


def test_numbers_in_words():
    assert (day(12.9), day(-0.5), day(math.nan), day(None)) == ("day 12", "day −1", "no date", "no date")
    assert (count(1, "stay"), count(1200, "stay"), count(2, "entry", "entries")) == (
        "1 stay",
        "1,200 stays",
        "2 entries",
    )
    parts = (0.34, 0.023, 0.0004, 1e-9, 0.999, 1 - 1e-9, 0.0, 1.0)
    assert [share(part) for part in parts] == [
        *("34 %", "2.3 %", "0.04 %", "< 0.01 %", "99.90 %", "> 99.99 %", "0 %", "100 %")
    ]
