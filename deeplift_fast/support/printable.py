"""Text from data, made safe to show: on a terminal, and in a spreadsheet.

Names of codes, columns and groups come from files that others wrote. On a terminal, control characters move the cursor
and bidirectional ones turn the reading order; in a spreadsheet, some first characters make a cell a formula
(https://owasp.org/www-community/attacks/CSV_Injection).
"""

import re
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, of formatting and bidirectional ones, surrogates, and line breaks."""

_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")


def printable(text: object) -> str:
    r"""A text with control, formatting and bidirectional characters as escapes, such as `\x1b` and `\u202e`.

    Args:
        text: what is to be shown; what is no text is made one.

    Returns:
        One line; other characters stay as they are.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(_escaped(letter) if unicodedata.category(letter) in _HIDDEN else letter for letter in shown)


def printable_lines(text: object) -> str:
    """As :func:`printable`, but that line feeds stay."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def cell(text: str) -> str:
    """As :func:`printable`, for a cell of a spreadsheet: what would be a formula there begins with an apostrophe."""
    shown = printable(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
