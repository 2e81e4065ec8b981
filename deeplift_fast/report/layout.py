"""Lines of text that fit a width: numbers are whole, names and titles take several lines, and long ones end in "…"."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import get_character_cell_size

MOST_LINES = 3
"""The most lines of a name or title; longer ones are cut and end in "…"."""

_GAP, _LEAST_GAP = 2, 1
_NAME = 12
"""Columns of the terminal that a name beside numbers has at least, unless all names are shorter."""
_SAID = 40
"""Columns of the terminal of a name that is the same in each row."""
_WIDENS = "\ufe0f"
"""Makes some signs before it wide, on some terminals."""


@dataclass(frozen=True)
class Cells:
    """One column of a table.

    Attributes:
        name: its heading.
        texts: one text per row.
        is_name: whether texts are names, which may take several lines; else numbers, which are never cut.
    """

    name: str
    texts: tuple[str, ...]
    is_name: bool = False

    @property
    def width(self) -> int:
        """Columns of the terminal that the widest text takes."""
        return max(map(width_of, (self.name, *self.texts)))


def width_of(text: str) -> int:
    """Columns of a terminal that a printable text takes: two for wide East Asian characters, none for accents."""
    return sum(map(_size, text))


def wrapped(text: str, width: int, most: int | None = None, indent: int = 0) -> list[str]:
    """A text in lines of at most `width` columns of a terminal, broken at spaces where there are some.

    Args:
        text: the text, printable.
        width: columns of a line, with its indentation.
        most: the most lines; the last one ends in "…" if the text is longer. `None` for any number.
        indent: spaces in front of each line but the first.

    Returns:
        At least one line.
    """
    lines: list[str] = []
    begin = 0
    while True:
        room = max(width - (indent if lines else 0), 1)
        last = most is not None and len(lines) == most - 1
        end = _fitting(text, begin, room)
        if end < len(text) and last:
            end = _fitting(text, begin, room - 1)
            piece = text[begin:end].rstrip() + "…"
        else:
            if end < len(text) and (space := text.rfind(" ", begin + 1, end + 1)) > begin:
                end = space
            piece = text[begin:end].rstrip() if end < len(text) else text[begin:]
        lines.append(" " * (indent if lines else 0) + piece)
        if end >= len(text) or last:
            return lines
        begin = end
        while begin < len(text) and text[begin] == " ":
            begin += 1


def table(columns: Sequence[Cells], below: Sequence[str], width: int, keep: Iterable[str] = ()) -> list[str]:
    """Lines of a table.

    A column whose entries are all the same is left out and said once, above the others. Names stand beside the numbers
    if there is room, else above them. Of numbers that do not fit one line, columns are left out and named, from the
    last one on.

    Args:
        columns: the columns; their texts are printable.
        below: a text per row that follows on lines of its own, such as the title of a code; may be empty.
        width: columns of the terminal.
        keep: headings of number columns that are left out only after all others.

    Returns:
        The lines, none of them wider than `width`, unless a single number is.
    """
    columns, head = _varying(columns)
    names = [each for each in columns if each.is_name]
    numbers = [each for each in columns if not each.is_name]
    needed = sum(min(each.width, _NAME) + _GAP for each in names)
    beside = needed + _across(numbers, _GAP) <= width
    gap = _GAP if beside or _across(numbers, _GAP) + _GAP <= width else _LEAST_GAP
    numbers, left_out = _fit(numbers, width if not names else width - _GAP, gap, set(keep))
    if left_out:
        head.append(f"too narrow for: {', '.join(left_out)}")
    lines = [line for text in head for line in wrapped(text, width, indent=2)]
    if beside:
        lines += _beside([each for each in columns if each in names or each in numbers], below, width)
    else:
        lines += _above(names, numbers, below, width, gap)
    return lines


def _varying(columns: Sequence[Cells]) -> tuple[list[Cells], list[str]]:
    """The columns that differ between rows, and a text that says the others; the last name always stays."""
    names = [each for each in columns if each.is_name]
    several = len(columns[0].texts) > 1
    same = [
        each
        for each in columns
        if len(set(each.texts)) == 1 and (several or each.is_name) and not (names and each is names[-1])
    ]
    said = [f"{each.name} {_short(each)}" for each in same if each.texts[0].strip()]
    return [each for each in columns if each not in same], [f"each row: {', '.join(said)}"] if said else []


def _short(column: Cells) -> str:
    return wrapped(column.texts[0], _SAID, 1)[0] if column.is_name else column.texts[0]


def _across(columns: Sequence[Cells], gap: int) -> int:
    return sum(each.width for each in columns) + gap * max(len(columns) - 1, 0)


def _fit(numbers: list[Cells], width: int, gap: int, keep: set[str]) -> tuple[list[Cells], list[str]]:
    """The number columns that fit a width, and the names of the others."""
    left_out: list[str] = []
    while len(numbers) > 1 and _across(numbers, gap) > width:
        last = next((each for each in reversed(numbers) if each.name not in keep), numbers[-1])
        numbers = [each for each in numbers if each is not last]
        left_out.insert(0, last.name)
    return numbers, left_out


def _beside(columns: list[Cells], below: Sequence[str], width: int) -> list[str]:
    """Rows with names and numbers on one line."""
    room = width - sum(each.width for each in columns if not each.is_name) - _GAP * (len(columns) - 1)
    widths = _shared([each.width for each in columns if each.is_name], room)
    sizes = [widths.pop(0) if each.is_name else each.width for each in columns]
    lines = _row(columns, [wrapped(each.name, size) for each, size in zip(columns, sizes, strict=True)], sizes)
    for number, text in enumerate(below):
        cells = [
            wrapped(each.texts[number], size, MOST_LINES) if each.is_name else [each.texts[number]]
            for each, size in zip(columns, sizes, strict=True)
        ]
        lines += _row(columns, cells, sizes)
        lines += _below(text, width)
    return lines


def _shared(wanted: list[int], room: int) -> list[int]:
    """Widths of names that fit a room together; the widest give way first."""
    widths = list(wanted)
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    return widths


def _row(columns: Sequence[Cells], cells: Sequence[Sequence[str]], sizes: Sequence[int]) -> list[str]:
    lines = []
    for number in range(max(map(len, cells))):
        texts = [cell[number] if number < len(cell) else "" for cell in cells]
        lines.append((" " * _GAP).join(map(_padded, texts, sizes, (each.is_name for each in columns))).rstrip())
    return lines


def _above(names: list[Cells], numbers: list[Cells], below: Sequence[str], width: int, gap: int) -> list[str]:
    """Rows with names on a line of their own, above the numbers."""

    def line(texts: Iterable[str]) -> str:
        padded = (_padded(text, each.width, False) for text, each in zip(texts, numbers, strict=True))
        return " " * _GAP + (" " * gap).join(padded)

    lines = wrapped("  ".join(each.name for each in names), width) if names else []
    lines.append(line(each.name for each in numbers))
    for number, text in enumerate(below):
        if names:
            lines += wrapped("  ".join(each.texts[number] for each in names), width, MOST_LINES)
        lines.append(line(each.texts[number] for each in numbers))
        lines += _below(text, width)
    return lines


def _below(text: str, width: int) -> list[str]:
    return [f"    {line}" for line in wrapped(text, width - 4, MOST_LINES)] if text else []


def _padded(text: str, size: int, left: bool) -> str:
    spare = " " * (size - width_of(text))
    return text + spare if left else spare + text


def _size(letter: str) -> int:
    return 1 if letter == _WIDENS else get_character_cell_size(letter)


def _fitting(text: str, begin: int, room: int) -> int:
    """The end of the longest piece of a text that fits a room, of one letter at least.

    Letters without a width, such as accents, count as part of one, up to as many as the room has columns.
    """
    taken, end, most = 0, begin, begin + 2 * room
    while end < min(len(text), most):
        taken += _size(text[end])
        if taken > room and end > begin:
            break
        end += 1
    return end
