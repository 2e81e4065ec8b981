"""A window of samples, made of the slices of blocks that it touches."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplift_fast.cohort.cache.block import Block
from deeplift_fast.cohort.cache.tensors import joined
from deeplift_fast.cohort.identifiers import IDENTIFIERS
from deeplift_fast.cohort.samples import Field, Ragged, RaggedGroup, Stretch


def stretch_of_blocks(blocks: Sequence[Block], part: int, begin: int, end: int) -> Stretch:
    """The stretch that blocks make, with the groups that `samples.stretch_of` would make of the samples.

    Args:
        blocks: slices of blocks that hold each sample from `begin` to `end - 1` once.
        part: number of the part.
        begin: number of the first sample.
        end: number of the last sample, plus 1.
    """
    alike: dict[str, list[Block]] = {}
    for block in blocks:
        if len(block.numbers):
            alike.setdefault(block.kinds, []).append(block)
    # As in `stretch_of`, groups stand in the order of their first samples.
    ordered = sorted(alike.values(), key=lambda pieces: int(pieces[0].numbers[0]))
    groups = [_group(pieces) for pieces in ordered]
    every = [block for pieces in ordered for block in pieces]
    identifiers = {name: _identifiers(every, name, begin, end) for name in IDENTIFIERS}
    return Stretch(part, begin, end, groups, identifiers)


def _group(pieces: Sequence[Block]) -> RaggedGroup:
    numbers = pieces[0].numbers if len(pieces) == 1 else np.concatenate([piece.numbers for piece in pieces])
    described = pieces[0].about["fields"]
    return RaggedGroup(numbers, {each["key"]: _field(pieces, place) for place, each in enumerate(described)})


def _field(pieces: Sequence[Block], field: int) -> Field:
    described = pieces[0].about["fields"][field]
    if described["kind"] == "object":
        return _objects([each for piece in pieces for each in piece.objects(field)])
    parts = [_part(pieces, field, part) for part in range(len(described["parts"]))]
    if described["kind"] == "pair":
        time, value = parts
        assert value is not None
        return time, value
    (value,) = parts
    assert value is not None
    return value


def _part(pieces: Sequence[Block], field: int, part: int) -> Ragged | None:
    found = [piece.tensor(field, part) for piece in pieces]
    return joined([each for each in found if each is not None]) if found[0] is not None else None


def _identifiers(blocks: Sequence[Block], column: str, begin: int, end: int) -> Sequence[str | None]:
    """Identifiers in the order of the samples."""
    if len(blocks) == 1:
        return blocks[0].identifiers(column)
    found = np.full(end - begin, None, object)
    for block in blocks:
        found[block.numbers - begin] = list(block.identifiers(column))
    return found.tolist()


def _objects(values: list[Any]) -> np.ndarray:
    """An array that holds the values themselves, even if they are lists of one length."""
    return np.fromiter(values, object, len(values))
