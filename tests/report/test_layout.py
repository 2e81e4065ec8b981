import pytest

from deeplift_fast.report.layout import Cells, table, width_of, wrapped


@pytest.mark.parametrize(
    ("text", "width", "most", "indent", "expected"),
    [
        ("", 10, None, 0, [""]),
        ("two words", 9, None, 0, ["two words"]),
        ("two words", 8, None, 0, ["two", "words"]),
        ("two  words", 5, None, 0, ["two", "words"]),
        ("two words more", 8, None, 2, ["two", "  words", "  more"]),
        ("abcdefgh", 3, None, 0, ["abc", "def", "gh"]),
        ("abcdefgh", 3, 2, 0, ["abc", "de…"]),
        ("abcdef", 3, 2, 0, ["abc", "def"]),
        ("two words more", 9, 1, 0, ["two word…"]),
        ("高血圧症", 5, None, 0, ["高血", "圧症"]),
        ("高血圧症", 5, 1, 0, ["高血…"]),
        ("高血", 1, None, 0, ["高", "血"]),
        ("  x: y", 4, None, 0, ["  x:", "y"]),
        ("e\u0301" * 4, 2, None, 0, ["e\u0301" * 2] * 2),
    ],
)
def test_lines_fit_and_break_at_spaces(text, width, most, indent, expected):
    assert wrapped(text, width, most, indent) == expected


def test_accents_without_end_end():
    lines = wrapped("e" + "\u0301" * 10_000, 20, 3)
    assert len(lines) == 3
    assert max(map(len, lines)) <= 41


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("高血", 4), ("e\u0301", 1), ("❤\ufe0f", 2)])
def test_widths_are_those_of_a_terminal(text, width):
    assert width_of(text) == width


COLUMNS = (
    Cells("feature", ("codes", "codes"), True),
    Cells("code", ("I10", "Calculated Bicarbonate, Whole Blood"), True),
    Cells("count", ("5", "5")),
    Cells("mean", ("+0.1", "-1.23e-05")),
    Cells("interval", ("-0.1 … +0.3", "too few patients")),
    Cells("positive", ("3%", "100%")),
)
BELOW = ["Hypertension, essential", ""]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            80,
            """\
each row: feature codes, count 5
code                                      mean          interval  positive
I10                                       +0.1       -0.1 … +0.3        3%
    Hypertension, essential
Calculated Bicarbonate, Whole Blood  -1.23e-05  too few patients      100%""",
        ),
        (
            52,
            """\
each row: feature codes, count 5
code                mean          interval  positive
I10                 +0.1       -0.1 … +0.3        3%
    Hypertension, essential
Calculated     -1.23e-05  too few patients      100%
Bicarbonate,
Whole Blood""",
        ),
        (
            40,
            """\
each row: feature codes, count 5
code
       mean          interval  positive
I10
       +0.1       -0.1 … +0.3        3%
    Hypertension, essential
Calculated Bicarbonate, Whole Blood
  -1.23e-05  too few patients      100%""",
        ),
        (
            29,
            """\
each row: feature codes,
  count 5
too narrow for: positive
code
       mean         interval
I10
       +0.1      -0.1 … +0.3
    Hypertension, essential
Calculated Bicarbonate, Whole
Blood
  -1.23e-05 too few patients""",
        ),
    ],
)
def test_numbers_stand_beside_names_or_below_them(width, expected):
    assert table(COLUMNS, BELOW, width, ("mean",)) == expected.splitlines()


def test_columns_to_keep_are_left_out_last():
    lines = table(COLUMNS, BELOW, 14, ("positive",))
    assert "too narrow" in lines[4]
    assert "  positive" in lines
    assert "      100%" in lines


def test_a_column_without_entries_is_left_out_and_one_row_keeps_its_numbers():
    lines = table([Cells("code", ("I10",), True), Cells("planted", ("",)), Cells("mean", ("+1",))], [""], 80)
    assert lines == ["code  planted  mean", "I10              +1"]
    several = [Cells("code", ("I10", "b"), True), Cells("planted", ("", "")), Cells("mean", ("+1", "2"))]
    assert table(several, BELOW, 80)[0] == "code  mean"


@pytest.mark.parametrize("width", [5, 20, 60, 80, 120])
def test_no_line_is_wider_and_no_number_is_cut(width):
    columns = [
        Cells("code", ("x" * 10_000, "高" * 50, "I10"), True),
        Cells("count", ("9,999,999,999,999", "1", "2")),
        Cells("mean", ("+0.1", "-0.2", "+0.3")),
    ]
    lines = table(columns, ["y" * 10_000, "", "高 " * 50], width, ("mean",))
    assert max(map(width_of, lines)) <= max(width, 6)
    assert all(number in "\n".join(lines) for number in columns[2].texts)
    assert width < 40 or "9,999,999,999,999" in "\n".join(lines)
