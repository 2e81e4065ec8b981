"""`K_measured` of a batch: flags of the measured values of a continuous feature `K`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.core.questions import NOW, Questions


def flags_key(key: str) -> str:
    """The key of a feature's flags in a batch."""
    return f"{key}_measured"


def read_flags(name: str, given: Any, value: Tensor, questions: Questions = NOW) -> Tensor:
    """The flags of measured values, checked: bool, of the value's shape and on its device.

    Args:
        name: the key in the batch.
        given: a bool tensor of the value's shape, padded as the value; or a list with a bool array or tensor per
            sample, `[steps, …]`, without padding, as PyHealth's collate leaves other objects than tensors.
        value: the feature's value, `[batch, …]`.
        questions: takes the check that no sample is longer than its flags.

    Raises:
        TypeError: for any dtype or object other than bool arrays.
        ValueError: for another shape.
    """
    accepted = f"accepted: bool of the value's shape, {tuple(value.shape)}, or a list of one bool array per sample"
    if value.dim() == 1 and isinstance(given, list | tuple):
        given = np.asarray(given)  # one flag per sample
    if isinstance(given, Tensor | np.ndarray):
        flags = torch.as_tensor(given, device=value.device)
        _require_bool(name, str(flags.dtype).removeprefix("torch."), accepted)
        if flags.shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(flags.shape)}; {accepted}")
        return flags
    if not isinstance(given, list | tuple):
        raise TypeError(f"{name} is a {type(given).__name__}; {accepted}")
    if len(given) != len(value):
        raise ValueError(f"{name} is a list of {len(given)}; the batch has {len(value)} samples; {accepted}")
    flags = torch.zeros(value.shape, dtype=torch.bool, device="cpu")
    lengths = []
    for i, each in enumerate(given):
        array = _array(name, i, each, tuple(value.shape[1:]), accepted)
        flags[i, : len(array)] = array
        lengths.append(len(array))
    _require_all_steps(name, value, torch.tensor(lengths, device=value.device), accepted, questions)
    return flags.to(value.device).reshape(value.shape)


def _array(name: str, place: int, given: Any, padded: tuple[int, ...], accepted: str) -> Tensor:
    """The flags of one sample, `[steps, …]`; `padded` is the shape of its value in the batch."""
    what = f"{name} of sample {place} of the batch"
    try:
        array = torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given), device="cpu")
    except (TypeError, ValueError):
        raise TypeError(f"{what} is a {type(given).__name__}, which is not an array; {accepted}") from None
    if array.numel() == 0 and array.dim() == 1:
        return torch.zeros(0, *padded[1:], dtype=torch.bool, device="cpu")  # an empty list has no dtype
    _require_bool(what, str(array.dtype).removeprefix("torch."), accepted)
    if array.dim() != len(padded) or array.shape[1:] != padded[1:] or array.shape[:1] > padded[:1]:
        raise ValueError(f"{what} has shape {tuple(array.shape)}, its padded value {padded}; {accepted}")
    return array


def _require_bool(what: str, dtype: str, accepted: str) -> None:
    if dtype != "bool":
        raise TypeError(f"{what} is {dtype}; {accepted}")


def _require_all_steps(name: str, value: Tensor, lengths: Tensor, accepted: str, questions: Questions) -> None:
    """Raise if a step without flags holds a value."""
    beyond = torch.arange(value.shape[1], device=value.device) >= lengths[:, None]
    missing = (beyond & (value.flatten(2).any(-1) if value.dim() > 2 else value != 0)).sum()

    def check(found: list[float]) -> None:
        if found[0]:
            raise ValueError(f"{name} has fewer steps than the value: {found[0]:.0f} step(s) are missing; {accepted}")

    questions.ask([missing], check)
