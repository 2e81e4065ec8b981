"""Tells features of values from features of codes, also where no value was measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HasValues:
    """Whether a feature has values, as opposed to codes, by its rows in `attributions`; true or false as a condition.

    Attributes:
        known: whether a row has a value.
        gap: whether a row was not measured.
        named: whether a row was measured and has no value, as codes have none.
    """

    known: bool = False
    gap: bool = False
    named: bool = False

    def __bool__(self) -> bool:
        return self.known or (self.gap and not self.named)

    def merged(self, other: "HasValues") -> "HasValues":
        """The signs of both."""
        return HasValues(self.known or other.known, self.gap or other.gap, self.named or other.named)
