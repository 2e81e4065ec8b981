"""When a patient's codes and values moved the output: a table of cells, and one of its steps for each column."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deeplift_fast.report.colour_classes import shade, sign
from deeplift_fast.report.formats import count, cut
from deeplift_fast.report.patient.columns import Column, Columns, moment_of
from deeplift_fast.report.patient.items import Item
from deeplift_fast.report.patient.rows import Row
from deeplift_fast.support.colours import Scale
from deeplift_fast.support.numbers import Numbers, short

CODES, VALUES = 12, 12
"""Rows of codes and of values; all others are one row of each kind."""

FOLD_ROWS = 12
"""Rows of a fold, the strongest within it; all others are one row."""

FOLD_MOMENTS = 120
"""Moments that all folds of a page show, shared evenly: the strongest of each; all others are one column."""

MOST_MOMENTS = 24
"""Moments of one fold."""

_TITLE = 60
"""Letters of a title within a fold."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        style: its CSS class.
        value: the newest value measured, as text; of a hollow cell the last one before it, in brackets; empty where
            there is none.
        flag: "H" or "L" for a value outside its reference range.
        moved: its contribution, as text with sign and mark.
        more: how many times a code is in it, where there are several; of a hollow cell the day of its value.
        how: what a hollow cell's value is: "carried forward" or "last measured,"; empty where there is none.
    """

    style: str
    value: str
    flag: str
    moved: str
    more: str
    how: str = ""


@dataclass(frozen=True)
class Line:
    """A row: an item, the others of its kind, or the total."""

    title: str
    detail: str
    cells: tuple[Cell | None, ...]
    total: str
    total_style: str


@dataclass(frozen=True)
class Group:
    """Rows of one kind, below a heading."""

    heading: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Fold:
    """The steps of one column: a table of its own.

    Attributes:
        heads: its moments.
        left_out: what the last column sums, in words; empty where every moment has a column.
    """

    title: str
    explained: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    left_out: str


@dataclass(frozen=True)
class Timeline:
    """The table, its scale and its folds.

    Attributes:
        limit: the contribution at which colours end, as text.
        places: for each column the place of its fold, or `None`.
        is_cut: whether folds were left out.
        is_hollow: whether any cell is.
        brackets: what values in brackets are; empty where there are none.
        is_flagged: whether any value is outside its reference range.
        with_moments: makes it again with another number of moments in all folds; 0 for no folds.
    """

    columns: Columns
    groups: tuple[Group, ...]
    total: Line
    limit: str
    folds: tuple[Fold, ...]
    places: tuple[int | None, ...]
    is_cut: bool
    is_hollow: bool
    brackets: str
    is_flagged: bool
    with_moments: Callable[[int], "Timeline"]


def timeline_of(
    items: Sequence[Item], columns: Columns, moments: int = FOLD_MOMENTS, carried: Collection[str] = ()
) -> Timeline:
    """The timeline of a sample's items.

    Args:
        items: codes and dimensions, the strongest first.
        columns: its columns.
        moments: moments that all folds show; 0 for no folds.
        carried: the features whose values are known to be carried forward.
    """
    place = {id(row): number for number, column in enumerate(columns.each) for row in column.rows}
    codes = [item for item in items if not item.is_value]
    values = [item for item in items if item.is_value]
    shown, rest = codes[:CODES] + values[:VALUES], (codes[CODES:], values[VALUES:])
    split = {id(item): _by(item.rows, place, len(columns.each)) for item in shown}
    drawn = _drawn(split.values(), columns, carried)

    def line(item: Item) -> Line:
        return drawn.line(item.title, item.detail, [drawn.cell(item, rows) for rows in split[id(item)]], item.rows)

    def others(left: Sequence[Item], kind: str) -> list[Line]:
        rows = [row for item in left for row in item.rows]
        cells = [drawn.sum(each) for each in _by(rows, place, len(columns.each))]
        return [drawn.line(count(sum(item.count for item in left), f"other {kind}"), "", cells, rows)] if left else []

    groups = [
        Group(heading, tuple([line(item) for item in own] + others(left, kind)))
        for heading, own, left, kind in (
            ("Codes", codes[:CODES], rest[0], "code"),
            ("Values", values[:VALUES], rest[1], "value"),
        )
        if own
    ]
    every = [row for item in items for row in item.rows]
    cells = [drawn.sum(each) for each in _by(every, place, len(columns.each))]
    total = drawn.line("All together", "", cells, every)
    folds, places = _folds(items, columns, drawn, moments)
    filled = [cell for group in groups for each in group.lines for cell in each.cells if cell is not None]
    filled += [cell for fold in folds for each in fold.lines for cell in each.cells if cell is not None]
    return Timeline(
        columns,
        tuple(groups),
        total,
        short(drawn.limit),
        folds,
        places,
        not moments,
        any(cell.style.startswith("h") for cell in filled),
        _brackets({cell.how for cell in filled}),
        any(cell.flag for cell in filled),
        lambda fewer: timeline_of(items, columns, fewer, carried),
    )


def _brackets(hows: set[str]) -> str:
    if hows <= {""}:
        return ""
    return "the value carried forward" if hows <= {"", "carried forward"} else "the value last measured before"


def _drawn(split: Iterable[list[list[Row]]], columns: Columns, carried: Collection[str]) -> "_Drawn":
    """Cells on a scale that ends at the strongest one; what several older columns share may lie beyond it."""
    several = len(columns.each) > 1
    own = [
        math.fsum(row.attribution for row in rows)
        for each in split
        for rows, column in zip(each, columns.each, strict=True)
        if not (several and column.older)
    ]
    limit = Scale.of(np.array(own)).limit
    leading = limit / 10.0 ** math.floor(math.log10(limit)) if limit > 0 else 0.0
    numbers = Numbers(min(limit, 0.99), 3 if leading < 2 and limit < 1 else 2)  # 0.15: "+0.004", not "0.00"
    return _Drawn(limit, numbers, columns, carried)


def _by(rows: Sequence[Row], place: dict[int, int], size: int) -> list[list[Row]]:
    """Rows by their column."""
    found: list[list[Row]] = [[] for _ in range(size)]
    for row in rows:
        found[place[id(row)]].append(row)
    return found


@dataclass(frozen=True)
class _Drawn:
    """Cells and lines on one scale."""

    limit: float
    numbers: Numbers
    columns: Columns
    carried: Collection[str]

    def moved(self, value: float) -> str:
        return self.numbers.signed(value).replace(" ", "")

    def cell(self, item: Item, rows: Sequence[Row]) -> Cell | None:
        if not rows:
            return None
        found = math.fsum(row.attribution for row in rows)
        if not item.is_value:
            more = f"×{len(rows)}" if len(rows) > 1 and item.count == 1 else ""
            return Cell(shade(found, self.limit), "", "", self.moved(found), more)
        measured = [row.value for row in rows if row.value is not None and row.measured is not False]
        if not measured or item.count > 1:
            if measured:
                return Cell(shade(found, self.limit), "", "", self.moved(found), "")
            return self.hollow(item, rows, found)
        newest = measured[-1]
        return Cell(shade(found, self.limit), short(newest), item.flag(newest), self.moved(found), "")

    def hollow(self, item: Item, rows: Sequence[Row], found: float) -> Cell:
        """A cell of which nothing was measured, with the value before it where that is known."""
        style, before = f"h{sign(found)}", item.before(rows)
        if before is None or before.value is None:
            return Cell(style, "", "", self.moved(found), "not measured")
        when = moment_of(before, self.columns)
        how = "carried forward" if item.feature in self.carried else "last measured,"
        return Cell(style, f"({short(before.value)})", "", self.moved(found), f"from {when or 'before'}", how)

    def sum(self, rows: Sequence[Row]) -> Cell | None:
        """A cell without a colour: sums of many things are on no common scale with the others."""
        return Cell("", "", "", self.moved(math.fsum(row.attribution for row in rows)), "") if rows else None

    def line(self, title: str, detail: str, cells: Sequence[Cell | None], rows: Sequence[Row]) -> Line:
        total = math.fsum(row.attribution for row in rows)
        return Line(title, detail, tuple(cells), self.moved(total), f"t{sign(total)}" if sign(total) else "")


def _folds(
    items: Sequence[Item], columns: Columns, drawn: _Drawn, shown: int
) -> tuple[tuple[Fold, ...], tuple[int | None, ...]]:
    """The folds of the columns of several moments, and the place of each column's."""
    of = {id(row): item for item in items for row in item.rows}
    several = [column for column in columns.each if not column.older and len(_moments(column)) > 1]
    if not shown:
        several = []
    room = min(MOST_MOMENTS, max(2, shown // max(1, len(several))))
    folds = tuple(_fold(column, of, room, drawn) for column in several)
    numbers = {id(column): number for number, column in enumerate(several)}
    return folds, tuple(numbers.get(id(column)) for column in columns.each)


def _moments(column: Column) -> dict[tuple[float, str, int], list[Row]]:
    """The rows of a column by when they are: by day, else by time, else by feature and step."""
    found: dict[tuple[float, str, int], list[Row]] = {}
    for row in column.rows:
        known = row.day if row.day is not None else row.time
        key = (math.inf, row.feature, row.step) if known is None else (known, "", 0)
        found.setdefault(key, []).append(row)
    return dict(sorted(found.items(), key=lambda each: each[0]))


def _fold(column: Column, of: dict[int, Item], room: int, drawn: _Drawn) -> Fold:
    moments = _moments(column)
    strength = {key: sum(abs(row.attribution) for row in rows) for key, rows in moments.items()}
    strongest = set(sorted(moments, key=lambda key: -strength[key])[: room if len(moments) <= room else room - 1])
    kept = [key for key in moments if key in strongest]
    rest = [row for key, rows in moments.items() if key not in strongest for row in rows]
    dated = all(row.day is not None for key in kept for row in moments[key])
    heads = _heads(kept, moments, dated)
    inside: dict[int, list[Row]] = {}
    for row in column.rows:
        inside.setdefault(id(of[id(row)]), []).append(row)
    called = {id(item): item for item in of.values()}
    order = sorted(inside, key=lambda key: -sum(abs(row.attribution) for row in inside[key]))
    place = {id(row): number for number, key in enumerate(kept) for row in moments[key]}
    place |= {id(row): len(kept) for row in rest}
    size = len(kept) + bool(rest)
    lines = []
    for key in order[:FOLD_ROWS]:
        item = replace(called[key], title=cut(called[key].title, _TITLE))
        cells = [drawn.cell(item, rows) for rows in _by(inside[key], place, size)]
        lines.append(drawn.line(item.title, "", cells, inside[key]))
    left = [row for key in order[FOLD_ROWS:] for row in inside[key]]
    if left:
        cells = [drawn.sum(rows) for rows in _by(left, place, size)]
        lines.append(drawn.line(count(len(order) - FOLD_ROWS, "other", "others"), "", cells, left))
    head = f"{column.head[:1].upper()}{column.head[1:]}" + (f" · {column.label}" if column.label else "")
    explained = "Hours count from the first step of this column." if dated else ""
    left_out = count(len(moments) - len(kept), "weaker moment") if rest else ""
    return Fold(
        f"{head}: {count(len(moments), 'moment')}",
        explained,
        (*heads, *(["others"] if rest else [])),
        tuple(lines),
        left_out,
    )


def _heads(
    kept: Sequence[tuple[float, str, int]], moments: dict[tuple[float, str, int], list[Row]], dated: bool
) -> list[str]:
    if dated:
        begin = min(key[0] for key in moments)
        return [f"+{round(24 * (key[0] - begin))} h" for key in kept]
    return [f"{cut(key[1], 16)} {key[2] + 1}" if key[1] else f"time {short(key[0])}" for key in kept]
