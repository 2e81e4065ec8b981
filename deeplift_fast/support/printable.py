"""Text from data, made safe for a terminal and for a spreadsheet.

Names of codes, columns and groups come from untrusted files. Control characters move a terminal's cursor, and
bidirectional ones change the reading order. In a spreadsheet, some first characters turn a cell into a formula
(https://owasp.org/www-community/attacks/CSV_Injection).
"""

import re
import unicodedata

# Unicode's categories of control characters, formatting and bidirectional characters, surrogates and line breaks.
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")


def printable(text: object) -> str:
    r"""A text with control, formatting and bidirectional characters as escapes, such as `\x1b` and `\u202e`.

    Args:
        text: the text, or an object whose `str` is shown.

    Returns:
        One line; other characters stay unchanged.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(_escaped(letter) if unicodedata.category(letter) in _HIDDEN else letter for letter in shown)


def printable_lines(text: object) -> str:
    """A text as from :func:`printable`, with its line feeds."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def cell(text: str) -> str:
    """A text as from :func:`printable`, for a cell of a spreadsheet: an apostrophe goes before a formula."""
    shown = printable(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
