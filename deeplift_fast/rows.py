"""What a model is given, for a batch that is repeated."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def repeated(values: Any, batch: int, count: int) -> Any:
    """The same structure with everything that has a row per sample repeated `count` times."""
    if count == 1:
        return values
    if isinstance(values, Tensor):
        return values.repeat(count, *[1] * (values.dim() - 1)) if values.dim() and len(values) == batch else values
    if isinstance(values, Mapping):
        return {key: repeated(value, batch, count) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(repeated(value, batch, count) for value in values)
    if isinstance(values, Sequence) and not isinstance(values, str):
        plain = not any(isinstance(value, Tensor | tuple | list) for value in values)
        return list(values) * count if plain and len(values) == batch else [repeated(v, batch, count) for v in values]
    return values
