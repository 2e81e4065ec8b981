"""Checks of the content of `manifest.json`, made before any of it is used.

Others may be able to write to the folder, and the manifest decides which files are opened and how parts count. So each
field has its type and bounds, and a part may name only its own files.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from deeplift_fast.support.printable import printable

FOLDERS = ("attributions", "samples")
"""Folders of the tables that every run writes."""

INTERACTIONS = "interactions"
"""Folder, and entry of identity and parts, of the table that a run writes if it is asked for."""

ALL_FOLDERS = (*FOLDERS, INTERACTIONS)
"""Folders of all tables that a run may write."""


def folders_of(interactions: int | None) -> tuple[str, ...]:
    """Folders of the tables that a run writes; `interactions` is `None` for a run without that table."""
    return FOLDERS if interactions is None else ALL_FOLDERS


MOST_BYTES = 1 << 28
"""Largest accepted number of bytes: enough for half a million parts."""

MOST_PARTS = 1 << 31
"""`failures.parquet` numbers parts by int32."""

_MOST = 1 << 62
_DEEPEST = 16
_NUMBER = re.compile("0|[1-9][0-9]{0,9}")
_SHOWN = 60  # characters of a faulty value in messages


def file_name(folder: str, part: int) -> str:
    """Name of a part's file in one of the folders."""
    return f"{folder}/part-{part:06d}.parquet"


def parsed(content: bytes) -> dict[str, Any]:
    """The JSON object in a manifest; raises ValueError if there is none."""
    repeated = False

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        found = dict(pairs)
        repeated = repeated or len(found) < len(pairs)  # the last of equal names would hide the first
        return found

    try:
        found = json.loads(content, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not an object")
    if repeated:
        raise ValueError("a name stands twice in one of its objects")
    return found


def check_parts(parts: Any, check: Callable[[int, Mapping[str, Any]], None]) -> None:
    """Raise ValueError, with the fault, unless this is an object of parts by number.

    Args:
        parts: the value to check.
        check: checks the number and the fields of each part.
    """
    if not isinstance(parts, dict):
        raise ValueError(f"parts is a {type(parts).__name__}")
    for key, part in parts.items():
        if not _NUMBER.fullmatch(key) or int(key) >= MOST_PARTS:
            raise ValueError(f"a part has the number {quoted(key)}")
        if not isinstance(part, dict):
            raise ValueError(f"part {key} is a {type(part).__name__}")
        check(int(key), part)


def check_files(number: int, files: Any) -> None:
    """Raise ValueError, with the fault, unless this is an object about a part's own files; some may be missing."""
    if not isinstance(files, dict) or not all(isinstance(about, dict) for about in files.values()):
        raise ValueError(f"part {number}: files is not an object of objects")
    for name, about in files.items():
        if name not in {file_name(folder, number) for folder in ALL_FOLDERS}:
            raise ValueError(f"part {number} has the file {quoted(name)}, which is not one of its own")
        if "bytes" in about and not is_count(about["bytes"]):
            raise ValueError(f"part {number}: bytes is {quoted(about.get('bytes'))}")


def check_place(number: int, part: Mapping[str, Any], size: Any) -> None:
    """Raise ValueError unless a part holds its own samples among parts of `size` samples.

    An invalid size makes the identities differ, which is reported elsewhere.
    """
    begin, end = part["begin"], part["end"]
    if end < begin or (is_count(size, 1) and (begin != number * size or end > begin + size)):
        raise ValueError(f"part {number} holds the samples from {begin} to {end}, which are not its own")


def check_interactions(identity: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError, with the fault, unless parts have the table `interactions` where the identity asks for it."""
    asked = identity.get(INTERACTIONS)
    if INTERACTIONS in identity and not is_count(asked, 1):
        raise ValueError(f"identity: {INTERACTIONS} is {quoted(asked)}")
    for key, part in parts.items():
        rows = part.get(INTERACTIONS)
        if (rows is None) != (asked is None) or not (rows is None or is_count(rows)):
            raise ValueError(f"part {key}: {INTERACTIONS} is {quoted(rows)}, where the identity says {quoted(asked)}")
        own = [name for name in part["files"] if name.startswith(f"{INTERACTIONS}/")]
        if own and asked is None:
            raise ValueError(f"part {key} has the file {quoted(own[0])}, which the identity does not ask for")


def check_identity(identity: Any) -> None:
    """Raise ValueError, with the fault, unless this is an object of bounded depth."""
    if not isinstance(identity, dict):
        raise ValueError(f"identity is a {type(identity).__name__}")
    level: list[Any] = [identity]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
        level = [each for each in level if isinstance(each, dict | list)]
    if level:
        raise ValueError(f"identity is nested more than {_DEEPEST} levels deep")


def check_outputs(outputs: Any) -> None:
    """Raise ValueError, with the fault, unless this is null or a list of lists of numbers and nulls."""
    each = outputs if isinstance(outputs, list) else [None if outputs is None else outputs]
    for logits in each:
        if logits is not None and not (isinstance(logits, list) and all(map(_is_finite, logits))):
            raise ValueError(f"outputs holds {quoted(logits)}")


def _is_finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def is_count(number: Any, least: int = 0) -> bool:
    """Whether this is an integer from `least` on that can count something."""
    return isinstance(number, int) and not isinstance(number, bool) and least <= number < _MOST


def is_duration(seconds: Any) -> bool:
    """Whether this is a finite number of 0 or more."""
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < math.inf


def quoted(thing: Any) -> str:
    """A value as errors quote it: one short line."""
    shown = printable(thing if isinstance(thing, str) else repr(thing)[: 2 * _SHOWN])
    return f'"{shown[:_SHOWN]}…"' if len(shown) > _SHOWN else f'"{shown}"'
