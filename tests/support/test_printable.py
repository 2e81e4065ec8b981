"""Text from data, as it is shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast.support.printable import cell, printable, printable_lines

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ANY = st.text(st.characters(codec=None), max_size=30)


@given(ANY)
def test_what_is_shown_has_nothing_hidden_and_keeps_the_rest(text):
    shown = printable(text)
    assert not {unicodedata.category(letter) for letter in shown} & HIDDEN
    left = "".join(letter for letter in text if unicodedata.category(letter) not in HIDDEN)
    assert len(shown) >= len(text)
    letters = iter(shown)
    assert all(letter in letters for letter in left)  # in order
    if left == text:
        assert shown == text
    shown.encode()
    assert printable_lines(text).count("\n") == text.count("\n")


@given(ANY)
def test_no_cell_is_a_formula(text):
    found = cell(text)
    assert found.lstrip()[:1] not in tuple("=+-@＝＋－＠")
    assert found in (printable(text), f"'{printable(text)}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ufeffI10\u200b", r"\ufeffI10\u200b"),
        ("\U000e0041\ud800", r"\U000e0041\ud800"),
        ("Ä 患者 😀 5\u00a0mg", "Ä 患者 😀 5\u00a0mg"),
        (r"C:\new", r"C:\new"),
        (7, "7"),
    ],
)
def test_escapes(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("letter", BIDIRECTIONAL)
def test_every_character_that_turns_the_reading_order_is_shown(letter):
    assert printable(f"a{letter}b") == f"a\\u{ord(letter):04x}b"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", " =1", "\u00a0=1", "＝1", "-"])
def test_formulas_are_defused(text):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["I10", "", "a=1", "'=1", "1-2"])
def test_other_cells_are_as_they_are(text):
    assert cell(text) == text
