"""The codes that a reason acts together with, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from deeplift_fast.report.colour_classes import sign
from deeplift_fast.report.patient.items import Item
from deeplift_fast.report.patient.rows import Pair
from deeplift_fast.support.numbers import Numbers

LEAST = 0.1
"""The part of a reason's contribution that an interaction must reach to be told; a smaller one is noise."""

MOST = 2
"""Codes that are told for a reason, the strongest first."""


@dataclass(frozen=True)
class Together:
    """A code that acts together with a reason.

    Attributes:
        title: what it is called.
        did: how far the two move the output beyond the changes that each explains alone: "0.12 higher".
        style: "tp" or "tn".
        mark: "▲" or "▼".
    """

    title: str
    did: str
    style: str
    mark: str


def together_of(item: Item, items: Sequence[Item], pairs: Sequence[Pair]) -> tuple[Together, ...]:
    """The codes that act together with an item, the strongest first.

    Args:
        item: the item.
        items: all items of the sample; codes that none of them names are left out.
        pairs: the sample's pairs.
    """
    named = {(each.feature, each.code): each for each in items if each.count == 1}
    own = item.feature, item.code
    if own not in named:
        return ()
    others = [
        (pair.second if pair.first == own else pair.first, pair.interaction) for pair in pairs if own in pair.codes
    ]
    known = [(named[code], moved) for code, moved in others if code in named]
    told = [each for each in known if abs(each[1]) >= LEAST * abs(item.attribution) > 0]
    strongest = sorted(told, key=lambda each: -abs(each[1]))[:MOST]
    numbers = Numbers(max((abs(moved) for _, moved in strongest), default=1.0), 2)
    return tuple(
        Together(
            other.title,
            f"{numbers.level(abs(moved))} {'higher' if moved > 0 else 'lower'}",
            f"t{sign(moved)}",
            "▲" if moved > 0 else "▼",
        )
        for other, moved in strongest
    )
