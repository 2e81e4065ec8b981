"""Models and batches of any size for a GPU; needs PyHealth."""

import functools
from typing import Any

import model_cases
import patients
import torch
from model_cases import Case
from torch import Tensor

SIZES = (128, 1024, 4096)
DRAWN = 256  # patients; larger batches repeat them
CASES = {
    name.rpartition(", batch")[0]: model_cases.CASES[name]
    for name in ("StageNet, batch 128", "Transformer, 1 layer, batch 128", "MLP, batch 256", "RNN (GRU), batch 128")
}


@functools.cache
def dataset(data: str, drawn: int = DRAWN) -> Any:
    """The patients of a key of `model_cases.SCHEMAS`."""
    draw = {"StageNet": patients.stagenet, "sequence": patients.sequences}[data]
    return model_cases.make_dataset(draw(drawn), data)


def batch_of(case: Case, size: int, drawn: int = DRAWN) -> dict[str, Any]:
    """A batch of `size` patients on the CPU, which are some of the drawn ones, or all of them several times."""
    batch = model_cases.first_batch(dataset(case.data, drawn), min(size, drawn))
    return resized(batch, size, min(size, drawn))


def resized(value: Any, size: int, given: int) -> Any:
    """The first `size` patients of a batch that is repeated as often as needed.

    Args:
        value: a batch of `given` patients, or a part of one.
        size: the new number.
        given: the old number.
    """
    if isinstance(value, dict):
        return {key: resized(part, size, given) for key, part in value.items()}
    times = -(-size // given)
    if isinstance(value, Tensor):
        return value.repeat(times, *[1] * (value.dim() - 1))[:size]
    if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
        return type(value)(resized(part, size, given) for part in value)
    return (value * times)[:size] if isinstance(value, list) else value


def changed(change: Any, value: Any) -> Any:
    """A batch with a function applied to each of its tensors."""
    if isinstance(value, dict):
        return {key: changed(change, part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(changed(change, part) for part in value)
    return change(value) if isinstance(value, Tensor) else value


def on(device: torch.device, batch: dict[str, Any], dtype: torch.dtype | None = None) -> dict[str, Any]:
    """A batch on the device, with floating-point numbers in the dtype."""
    return changed(lambda x: x.to(device, dtype if dtype and x.is_floating_point() else x.dtype), batch)
