"""From the output at the baseline to the output: bars that add up in logits, with places in percent of the width."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from deeplift_fast.report.colour_classes import sign
from deeplift_fast.report.patient.items import Item
from deeplift_fast.report.patient.rows import Sample
from deeplift_fast.support.numbers import Numbers, short

TOP = 10
"""Bars of their own; all others are one."""

GAP = 0.005
"""The part of the largest bar from which on the bar "not accounted for" is drawn."""

_ROOM = 4.0
"""Percent of the width that stay free at both ends."""

_ROUND = (0.5, 0.1, 0.9, 0.01, 0.99, 0.2, 0.8, 0.05, 0.95, 0.3, 0.7, 0.02, 0.98, 0.4, 0.6, 0.001, 0.999)
_PROBABILITIES = (*_ROUND, *(n / 20 for n in range(3, 18, 2)))
_FINE = tuple(n / 1000 for n in range(1, 1000))
"""Probabilities at which there may be a tick, the most welcome first; the fine ones where others do not suffice."""

_APART, _FAR_APART = 11.0, 25.0
"""Percent of the width between two ticks, and between two that a narrow screen shows."""


@dataclass(frozen=True)
class Bar:
    """A bar.

    Attributes:
        title: what it stands for.
        detail: more about it; may be empty.
        moved: its contribution, as text.
        style: "p", "n", or "gap" for what the contributions miss.
        left: its left end, in percent of the width.
        width: its width, in percent.
        end: where the next bar begins, in percent.
    """

    title: str
    detail: str
    moved: str
    style: str
    left: float
    width: float
    end: float


@dataclass(frozen=True)
class Tick:
    """A tick of an axis.

    Attributes:
        place: its place, in percent.
        text: its number.
        is_spare: whether a narrow screen leaves it out.
    """

    place: float
    text: str
    is_spare: bool


@dataclass(frozen=True)
class Waterfall:
    """Bars between two outputs.

    Attributes:
        begin: the output at the baseline, as text.
        begin_at: its place.
        end: the output at the input, as text.
        end_at: its place.
        bars: the bars, the largest first.
        ticks: ticks of the output.
        probabilities: ticks of probabilities, at their logits; empty where outputs have none.
    """

    begin: str
    begin_at: float
    end: str
    end_at: float
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    probabilities: tuple[Tick, ...]


def waterfall_of(sample: Sample, items: Sequence[Item]) -> Waterfall:
    """The waterfall of a sample's items, the strongest first."""
    parts = _parts(sample, items)
    edges = [sample.baseline_output]
    for _, _, value in parts:
        edges.append(edges[-1] + value)
    low, high = min(*edges, sample.output), max(*edges, sample.output)
    spread = (high - low) or 1.0

    def at(output: float) -> float:
        return round(_ROOM + (100 - 2 * _ROOM) * (output - low) / spread, 2)

    numbers = Numbers(max((abs(value) for _, _, value in parts), default=1.0))
    bars = tuple(
        Bar(
            title,
            detail,
            numbers.signed(value),
            "gap" if title == _MISSED else sign(value),
            min(at(begin), at(end)),
            round(abs(at(end) - at(begin)), 2),
            at(end),
        )
        for (title, detail, value), begin, end in zip(parts, edges, edges[1:], strict=False)
    )
    return Waterfall(
        numbers.level(sample.baseline_output),
        at(sample.baseline_output),
        numbers.level(sample.output),
        at(sample.output),
        bars,
        _ticks((at(value), short(value)) for value in _round_numbers(low, high)),
        _likely(at) if sample.is_likely else (),
    )


_MISSED = "not accounted for"


def _parts(sample: Sample, items: Sequence[Item]) -> list[tuple[str, str, float]]:
    """Title, detail and size of each bar."""
    own = items if len(items) <= TOP + 1 else items[:TOP]
    rest = items[len(own) :]
    parts = [(item.title, _detail(item), item.attribution) for item in own]
    if rest:
        total = math.fsum(item.attribution for item in rest)
        parts.append((f"{sum(item.count for item in rest):,} others", "together", total))
    missed = sample.change - math.fsum(value for _, _, value in parts)
    if abs(missed) > GAP * max(abs(sample.change), *(abs(value) for _, _, value in parts), abs(missed)):
        parts.append((_MISSED, "the contributions do not add up to the change in output", missed))
    return parts


def _detail(item: Item) -> str:
    if not item.is_value:
        often = f"{len(item.rows)} times" if len(item.rows) > 1 and item.count == 1 else ""
        return ", ".join(each for each in (item.detail, often) if each)
    measured = [row.value for row in item.rows if row.value is not None and row.measured is not False]
    if item.count > 1:
        return item.detail
    if not measured:
        return "not measured"
    last = f"{item.shown(measured[-1])}{' ' + flag if (flag := item.flag(measured[-1])) else ''}"
    return last if len(measured) == 1 else f"{last}, last of {len(measured)}"


def _round_numbers(low: float, high: float) -> list[float]:
    """Up to six round numbers between two outputs."""
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 6))
    step = next(n * unit for n in (1, 2, 5, 10) if n * unit >= span / 6)
    first = math.ceil(low / step)
    return [0.0 if n == 0 else n * step for n in range(first, math.floor(high / step) + 1)]


def _likely(at: Callable[[float], float]) -> tuple[Tick, ...]:
    """Ticks of round probabilities."""
    found: tuple[Tick, ...] = ()
    for wanted in (_PROBABILITIES, _FINE):
        places = ((at(math.log(part / (1 - part))), f"{100 * part:g} %") for part in wanted)
        found = found if len(found) > 1 else _ticks((place, text) for place, text in places if 1 <= place <= 99)
    return found


def _ticks(wanted: Iterable[tuple[float, str]]) -> tuple[Tick, ...]:
    """Ticks at these places, the most welcome first, as far as they are not too close to one another."""
    found: list[Tick] = []
    for place, text in wanted:
        if all(abs(place - tick.place) >= _APART for tick in found):
            near = any(abs(place - tick.place) < _FAR_APART for tick in found if not tick.is_spare)
            found.append(Tick(place, text, near))
    return tuple(sorted(found, key=lambda tick: tick.place))
