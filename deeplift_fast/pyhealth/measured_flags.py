"""`K_measured` of a batch: flags of the measured values of a continuous feature `K`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.core.devices import moved
from deeplift_fast.core.questions import NOW, Questions


def flags_key(key: str) -> str:
    """The key of a feature's flags in a batch."""
    return f"{key}_measured"


def own_names(model: Any) -> set[str]:
    """Names of a model's features and labels: fields of these names are never metadata."""
    features = {*model.feature_keys, *getattr(model.dataset, "input_processors", {})}
    return {*features, *getattr(model, "label_keys", ())}


def read_flags(
    name: str, given: Any, value: Tensor, questions: Questions = NOW, unknown: Tensor | None = None
) -> Tensor:
    """The flags of measured values, checked: bool, of the value's shape and on its device.

    Args:
        name: the key in the batch.
        given: a bool tensor of the value's shape, padded as the value; or a list with a bool array or tensor per
            sample, `[steps, …]`, without padding, as PyHealth's collate leaves other objects than tensors. Both may end
            after the first dimensions (`[steps]`: one flag for all values of a step). `None` for a sample is unknown.
        value: the feature's value, `[batch, …]`.
        questions: takes the check that no sample is longer than its flags.
        unknown: the flags of samples whose flags are unknown, bool, of the value's shape; `None` for values other
            than 0.

    Raises:
        TypeError: for any dtype or object other than bool arrays.
        ValueError: for another shape.
    """
    accepted = (
        f"accepted: bool of the value's shape, {tuple(value.shape)}, or of its first dimensions, or a list of one such "
        "array per sample"
    )
    if isinstance(given, Tensor) or (isinstance(given, np.ndarray) and not given.dtype.hasobject):
        flags = given if isinstance(given, Tensor) else torch.as_tensor(given, device="cpu")
        _require_bool(name, flags.dtype, accepted)
        flags = moved(flags, value.device)
        if flags.dim() == 0 or flags.shape != value.shape[: flags.dim()]:
            raise ValueError(f"{name} has shape {tuple(flags.shape)}; {accepted}")
        return _expanded(flags, tuple(value.shape))
    if not isinstance(given, list | tuple | np.ndarray):
        raise TypeError(f"{name} is a {type(given).__name__}; {accepted}")
    if len(given) != len(value):
        raise ValueError(f"{name} is a list of {len(given)}; the batch has {len(value)} samples; {accepted}")
    flags = torch.zeros(value.shape, dtype=torch.bool, device="cpu")
    shape, said = tuple(value.shape[1:]), [each is not None for each in given]
    lengths = [shape[0] if shape else 1] * len(flags)
    for place, each in enumerate(given):
        if each is None:
            continue
        array = sample_flags(f"{name} of sample {place} of the batch", each, shape, accepted)
        if shape:
            flags[place, : len(array)] = array
            lengths[place] = len(array)
        else:
            flags[place] = array
    if shape:
        _require_all_steps(name, value, moved(torch.tensor(lengths, device="cpu"), value.device), accepted, questions)
    flags = moved(flags, value.device)
    if all(said):
        return flags
    told = moved(torch.tensor(said, device="cpu"), value.device).reshape(-1, *[1] * len(shape))
    return torch.where(told, flags, value != 0 if unknown is None else unknown)


def sample_flags(what: str, given: Any, shape: tuple[int, ...], accepted: str) -> Tensor:
    """The flags of one sample, checked: bool, of its value's shape, with its own number of steps.

    Args:
        what: their name in error messages.
        given: an array, a tensor or nested lists of bools: of the value's shape, or of its first dimensions.
        shape: shape of the sample's value, maybe padded: `[steps, …]`; empty for a single value.
        accepted: the accepted values, for error messages.

    Raises:
        TypeError: for any dtype or object other than bool arrays.
        ValueError: for another shape.
    """
    try:
        array = torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given), device="cpu")
    except (TypeError, ValueError):
        raise TypeError(f"{what} is a {type(given).__name__}, which is not an array; {accepted}") from None
    if array.numel() == 0 and array.dim() == 1 and shape:
        return torch.zeros(0, *shape[1:], dtype=torch.bool, device="cpu")  # an empty list has no dtype
    _require_bool(what, array.dtype, accepted)
    if not shape and array.shape == (1,):
        array = array[0]
    fits = array.dim() == 0 if not shape else array.dim() > 0 and array.shape[1:] == shape[1 : array.dim()]
    if not fits or array.dim() > len(shape) or array.shape[:1] > shape[:1]:
        raise ValueError(f"{what} has shape {tuple(array.shape)}, its padded value {shape}; {accepted}")
    return _expanded(array, (*array.shape[:1], *shape[1:]))


def _expanded(flags: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Flags of the first dimensions, for all values of the others."""
    return flags.reshape((*flags.shape, *[1] * (len(shape) - flags.dim()))).expand(shape)


def _require_bool(what: str, dtype: torch.dtype, accepted: str) -> None:
    if dtype != torch.bool:
        raise TypeError(f"{what} is {str(dtype).removeprefix('torch.')}; {accepted}")


def _require_all_steps(name: str, value: Tensor, lengths: Tensor, accepted: str, questions: Questions) -> None:
    """Raise if a step without flags holds a value."""
    beyond = torch.arange(value.shape[1], device=value.device) >= lengths[:, None]
    missing = (beyond & (value.flatten(2).any(-1) if value.dim() > 2 else value != 0)).sum()

    def check(found: list[float]) -> None:
        if found[0]:
            raise ValueError(f"{name} has fewer steps than the value: {found[0]:.0f} step(s) are missing; {accepted}")

    questions.ask([missing], check)
