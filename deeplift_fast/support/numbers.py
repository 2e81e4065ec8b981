"""Numbers as texts, with their signs."""

import math


class Numbers:
    """Contributions as texts, all with the same decimals.

    Args:
        limit: the largest of them.
        digits: significant digits of the largest.
    """

    def __init__(self, limit: float, digits: int = 3) -> None:
        place = math.floor(math.log10(limit)) if limit > 0 else 0
        self._form = f".{max(0, digits - 1 - place)}f" if -3 <= place < 6 else f".{digits - 1}e"

    def plain(self, value: float) -> str:
        """With a sign: "+0.12", "−0.12", and "0.00" for what rounds to 0."""
        text = format(value, "+" + self._form)
        return format(0.0, self._form) if float(text) == 0 else text.replace("-", "−")

    def signed(self, value: float) -> str:
        """With a sign and its mark: "▲ +0.12", "▼ −0.12"; "0.00" for what rounds to 0."""
        text = self.plain(value)
        return {"+": "▲ ", "−": "▼ "}.get(text[0], "") + text

    def level(self, value: float) -> str:
        """An output, which has a sign only if it is negative."""
        text = format(value, self._form)
        return (format(0.0, self._form) if float(text) == 0 else text).replace("-", "−")


def short(number: float) -> str:
    """A value of the data, with at most four digits: "130", "7.35", "−0.002"."""
    return f"{number:.4g}".replace("-", "−")
