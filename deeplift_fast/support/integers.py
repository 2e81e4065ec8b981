"""Integers among the arguments of a user."""

import operator
from typing import Any


def as_int(value: Any) -> int | None:
    """A plain int of an int, or of another integer number, such as NumPy's; `None` for anything else, and for a bool.

    Example:
        >>> import numpy as np
        >>> as_int(np.int64(8)), as_int(True), as_int(8.0)
        (8, None, None)
    """
    if type(value) is int:
        return value
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
