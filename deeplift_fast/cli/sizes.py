"""Reads sizes such as 8GB."""

import re

_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(text: str) -> int:
    """The number of bytes in `"8GB"`, `"512 MiB"` or `"1000000"`.

    Args:
        text: a number and a unit: B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024).

    Raises:
        ValueError: if the text is not a size above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    size = 0 if match is None else int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2].lower()])
    if size <= 0:
        raise ValueError(f"--memory is {text!r}; accepted: a size above 0, such as 8GB or 512MiB")
    return size
