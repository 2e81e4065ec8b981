"""Metadata of samples: fields that describe a feature's steps, a patient's stays and the split, and no model reads.

Beside a feature `K`, a sample may have these lists, in the order of the steps that `K`'s processor makes:

    K_days      days from the patient's first record to each step: numbers; `None` for an unknown one
    K_stay      the stay of each step: its label, or its place in `stays`, from 0; `None` for an unknown one
    K_measured  whether the values of each step were measured there: bool `[steps]` or `[steps][dimensions]`

and for the whole sample

    stays       the patient's stays: pairs (label, begin), or dicts of both; begin in days, or `None`
    split       text, such as "train"

Each may be `None`: unknown. A feature or label of such a name is that, and no metadata. A feature without steps counts
as one step; steps of nested values are those of the first axis.
"""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor

from deeplift_fast.cohort.identifiers import as_text, single
from deeplift_fast.pyhealth.measured_flags import flags_key, own_names, sample_flags

STAYS, SPLIT = "stays", "split"

ANY_STEPS = 2**31 - 1
"""In place of the first dimension of a shape: any number of steps."""

Stays = list[tuple[str, float | None]]
"""Label and begin of each stay."""


class Fault(ValueError):
    """Metadata that do not fit.

    Args:
        reason: the field and its fault, without a number of this sample.
        detail: the numbers of this sample.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


def days_key(key: str) -> str:
    """The field of a feature's days."""
    return f"{key}_days"


def stay_key(key: str) -> str:
    """The field of a feature's stays."""
    return f"{key}_stay"


def names_of(model: Any) -> set[str]:
    """Every field that is metadata for this model."""
    own = own_names(model)
    of_steps = (named(key) for key in own for named in (days_key, stay_key, flags_key))
    return {*of_steps, STAYS, SPLIT} - own


def compact(name: str, given: Any) -> Any:
    """A sample's field; flags in nested lists become an array, which is shorter and read faster."""
    if not isinstance(given, list) or not name.endswith(flags_key("")):
        return given
    try:
        flags = np.asarray(given)
    except (ValueError, TypeError, RuntimeError):  # rows of different lengths, or no flags at all
        return given
    return flags if flags.dtype == np.bool_ else given


def listed(name: str, field: Any, size: int) -> list[Any]:
    """A field of a batch, one entry per sample; all `None` if the batch does not have it.

    Raises:
        Fault: if it is something else.
    """
    if field is None:
        return [None] * size
    if not isinstance(field, list | tuple | np.ndarray) or getattr(field, "ndim", 1) == 0:
        raise Fault(f"{name} is a {type(field).__name__}; accepted: a plain list with one entry per sample, or None")
    if len(field) != size:
        raise Fault(f"{name} has another number of entries than there are samples", f"{len(field)}, {size} samples")
    return list(field)


def days_of(name: str, given: Any) -> np.ndarray:
    """The days of a sample's steps, float32 `[steps]`; NaN for `None`.

    Raises:
        Fault: for anything but finite numbers and `None`.
    """
    entries = _entries(name, given, "numbers (days)")
    numbers = {*map(type, entries)} - {type(None)}
    if not all(issubclass(kind, Real) and not issubclass(kind, bool) for kind in numbers):
        raise Fault(f"{name} holds something else than numbers; accepted: days as numbers, or None")
    try:
        with np.errstate(over="ignore"):
            days = np.array(entries, np.float64).astype(np.float32)  # NumPy makes NaN of None
    except OverflowError:
        days = np.full(len(entries), np.inf, np.float32)
    if np.count_nonzero(np.isfinite(days)) + entries.count(None) != len(entries):
        raise Fault(f"{name} holds NaN, inf or a number beyond float32; accepted: days as finite numbers, or None")
    return days


def stay_of(name: str, given: Any, stays: Stays | None) -> list[str | None]:
    """The label of each step's stay.

    Args:
        name: the field.
        given: the field's content.
        stays: the sample's stays; `None` if it does not have them.

    Raises:
        Fault: for anything but labels of these stays, their places and `None`.
    """
    labels = None if stays is None else [label for label, _ in stays]
    entries = _entries(name, given, "texts (labels) or ints (places in stays)")
    kinds = {type(each) for each in entries} - {type(None)}
    if not all(issubclass(kind, str | Integral) and not issubclass(kind, bool) for kind in kinds):
        raise Fault(f"{name} holds something else than texts and ints; accepted: labels, places in stays, or None")
    texts = {each: _label(name, each, labels) for each in {*entries}}
    if labels is not None and not {*texts.values()} <= {None, *labels}:
        raise Fault(f"{name} holds a label that is not in stays; accepted: their labels, their places, or None")
    return [texts[each] for each in entries]


def _label(name: str, given: Any, labels: Sequence[str] | None) -> str | None:
    if given is None or isinstance(given, str):
        return None if given is None else as_text(given)
    place = int(given)
    if place < 0 or (labels is not None and place >= len(labels)):
        raise Fault(f"{name} holds a place that stays does not have; accepted: ints from 0 on, below their number")
    return str(place) if labels is None else labels[place]


def stays_of(given: Any) -> Stays | None:
    """The stays of a sample.

    Raises:
        Fault: for anything but pairs or dicts with different labels, and a finite begin or `None`.
    """
    if given is None:
        return None
    found = [_stay(each) for each in _entries(STAYS, given, "pairs (label, begin)")]
    begins = [begin for _, begin in found]
    days = days_of(f"begin in {STAYS}", begins).tolist()
    if len({label for label, _ in found}) < len(found):
        raise Fault(f"{STAYS} holds a label twice; accepted: labels that tell the patient's stays apart")
    return [(label, None if begin is None else day) for (label, begin), day in zip(found, days, strict=True)]


def _stay(given: Any) -> tuple[str, Any]:
    accepted = 'accepted: pairs (label, begin) or dicts {"label": …, "begin": …}'
    if isinstance(given, dict) and given.keys() == {"label", "begin"}:
        label, begin = given["label"], given["begin"]
    elif isinstance(given, list | tuple) and len(given) == 2:
        label, begin = given
    else:
        raise Fault(f"{STAYS} holds something else than pairs; {accepted}")
    if not isinstance(label, str):
        raise Fault(f"{STAYS} holds a label that is no text; {accepted}")
    return as_text(label), begin


def split_of(given: Any) -> str | None:
    """The split of a sample.

    Raises:
        Fault: for anything but a text or `None`.
    """
    found = single(given)
    if found is None or isinstance(found, str):
        return None if found is None else as_text(found)
    raise Fault(f"{SPLIT} is a {type(found).__name__}; accepted: a text such as 'train', or None")


def flags_of(name: str, given: Any, shape: tuple[int, ...], is_token: bool) -> np.ndarray:
    """Whether the values of a sample's steps were measured: bool `[steps, …]`, with the sample's own number of steps.

    Args:
        name: the field.
        given: the field's content.
        shape: the shape of the sample's value, with :data:`ANY_STEPS` for its steps; empty for a single value.
        is_token: whether the value holds tokens; the flags of a step may then be as few as its tokens.

    Raises:
        Fault: for anything but bools, and for another shape than the value's or its first dimensions'.
    """
    accepted = "accepted: bool, [steps] or [steps][dimensions]"
    if is_token and len(shape) == 2 and isinstance(given, np.ndarray) and given.ndim == 2:
        given = list(map(list, given))  # lists of one length are read as an array
    if is_token and len(shape) == 2 and isinstance(given, list | tuple):
        given = [[*row, *[False] * (shape[1] - len(row))] if isinstance(row, list | tuple) else row for row in given]
    try:
        return sample_flags(name, given, shape, accepted).numpy()
    except TypeError:
        raise Fault(f"{name} holds something else than bools, or rows of different lengths; {accepted}") from None
    except ValueError:
        given_shape = getattr(given, "shape", None) or np.shape(given)
        detail = f"shape {tuple(given_shape)}"
        raise Fault(f"{name} does not have the shape of its feature's values; {accepted}", detail) from None


def _entries(name: str, given: Any, accepted: str) -> list[Any]:
    """The entries of one sample's list."""
    if isinstance(given, Tensor) or getattr(given, "ndim", 1) != 1 or not isinstance(given, list | tuple | np.ndarray):
        raise Fault(f"{name} is a {type(given).__name__}; accepted: a plain list of {accepted}, one per step, or None")
    return given.tolist() if isinstance(given, np.ndarray) else list(given)
