"""CSS classes of contributions, made from the colours of the figures.

A filled cell has the class `p1` to `p8` (raises) or `n1` to `n8` (lowers): the nearest eighth of the scale's limit. A
hollow one has `hp`, `hn`, or `h` at exactly 0. `tp` and `tn` colour text, `fp` and `fn` fill shapes of SVG.
"""

from deeplift_fast.support.colours import LOWERS, RAISES, Scale, ink_on, text_of

STEPS = 8
"""Shades of each sign."""


def css() -> str:
    """The classes."""
    scale = Scale(STEPS)
    lines = [".h{box-shadow:inset 0 0 0 1.5px #6b6b6b}"]
    for sign, letter in ((1, "p"), (-1, "n")):
        for step in range(1, STEPS + 1):
            colour = scale.colour(sign * step)
            lines.append(f".{letter}{step}{{background:{text_of(colour)};color:{ink_on(colour)}}}")
    for letter, own in (("p", RAISES), ("n", LOWERS)):
        lines.append(
            f".h{letter}{{box-shadow:inset 0 0 0 1.5px {own}}}.t{letter}{{color:{own}}}.f{letter}{{fill:{own}}}"
        )
    return "\n".join(lines) + "\n"


def shade(value: float, limit: float) -> str:
    """The class of a filled cell; "" for a contribution near 0."""
    step = min(STEPS, round(STEPS * abs(value) / limit))
    return f"{'p' if value > 0 else 'n'}{step}" if step else ""


def sign(value: float) -> str:
    """ "p", "n" or "", as the classes of hollow cells, texts and shapes end."""
    return "p" if value > 0 else "n" if value < 0 else ""
