"""Targets: the number of a model's output that is explained, for each sample."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.errors import ArgumentTypeError, ArgumentValueError, TargetIndexError
from deeplift_fast.support.integers import as_int

Target = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | Callable[[Any], Tensor] | None


def reduce(output: Any, target: Target, batch: int) -> Tensor:
    """The model's output as a tensor that :func:`indices` can index; a callable target is applied here.

    Args:
        output: the model's output.
        target: as in :func:`deeplift_fast.core.attribution.attribute`.
        batch: the number of samples.

    Returns:
        `[batch, …]`, or `[batch]` for a callable target.

    Raises:
        TypeError: if the output is no floating-point tensor.
        ValueError: if its first dimension is not the batch, or a callable returned another shape than `[batch]`.
    """
    if callable(target):
        chosen = target(output)
        if not isinstance(chosen, Tensor) or chosen.shape not in ((batch,), (batch, 1)):
            found = f"shape {tuple(chosen.shape)}" if isinstance(chosen, Tensor) else f"a {type(chosen).__name__}"
            raise ValueError(
                f"target, a callable, returned {found}; accepted: a tensor of shape ({batch},), one number per sample"
            )
        if not chosen.is_floating_point():
            raise TypeError(f"target, a callable, returned {chosen.dtype}; accepted: a floating-point tensor")
        return chosen.reshape(batch)
    require_tensor(output)
    if output.dim() == 0 or output.shape[0] != batch:
        raise ValueError(
            f"the model returned shape {tuple(output.shape)} for {batch} samples; its first dimension must be the batch"
        )
    return output


def require_tensor(output: Any) -> None:
    """Raise `TypeError`, with a target that fits, unless a model's output is a floating-point tensor."""
    if isinstance(output, Tensor) and output.is_floating_point():
        return
    shown = output.dtype if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise TypeError(
        f"the model returned {shown}; accepted: a floating-point tensor, or a callable target that selects one, as "
        f"target=lambda output: {selection(output)}"
    )


def selection(output: Any) -> str:
    """An expression for the first number per sample of an output that holds tensors."""
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(output, Mapping):
        entries = output.items()
    elif isinstance(output, tuple | list):
        entries = enumerate(output)
    for key, value in entries:
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim():
            further = ", 0" * (value.dim() - 1)
            return f"output[{key!r}][:{further}]" if further else f"output[{key!r}]"
    return "output['logit'][:, 0]"


def indices(output: Tensor, target: Target) -> Tensor | None:
    """The position of each sample's target in `output`, `[batch, …]`; negative indices count from the end.

    Args:
        output: the result of :func:`reduce`.
        target: as in :func:`deeplift_fast.core.attribution.attribute`.

    Returns:
        int64 `[batch, k]` for an output of `k + 1` dimensions, or `None` for a callable target.

    Raises:
        ArgumentTypeError: if `target` has an unknown type or dtype.
        ArgumentValueError: if it does not fit the output's shape.
        TargetIndexError: if it lies outside the output.
    """
    if callable(target):
        return None
    if target is None:
        return _largest(output)
    if isinstance(target, list):
        target = listed(target)
    if isinstance(target, Tensor):
        found = _per_sample(target, len(output)).to(output.device)
    elif _is_index(target) or (isinstance(target, tuple) and target and all(map(_is_index, target))):
        return _alike(output, target)
    else:
        raise ArgumentTypeError(
            f"target is {target!r}; accepted: None, an int, a tuple of ints, an int64 tensor or a list with one "
            "per sample, or a callable on the model's output"
        )
    limits = torch.tensor(_classes(output, found.shape[1]), device=output.device)
    outside = ((found < -limits) | (found >= limits)).any(1)
    if outside.any():
        first = int(outside.nonzero()[0])
        given = tuple(found[first].tolist())
        raise _outside(output, f"{given if len(given) > 1 else given[0]} for sample {first}")
    return torch.where(found < 0, found + limits, found)[:, : output.dim() - 1]


def _alike(output: Tensor, target: Any) -> Tensor:
    """One int, or a tuple of them, for every sample."""
    given = [int(each) for each in target] if isinstance(target, tuple) else [int(target)]
    limits = _classes(output, len(given))
    if not all(-limit <= each < limit for each, limit in zip(given, limits, strict=True)):
        raise _outside(output, str(target))
    found = [each % limit for each, limit in zip(given, limits, strict=True)][: output.dim() - 1]
    if len(found) == 1:
        return torch.full((len(output), 1), found[0], device=output.device)
    return torch.tensor(found, dtype=torch.int64, device=output.device).repeat(len(output), 1)


def _classes(output: Tensor, given: int) -> Sequence[int]:
    """The output's sizes behind the batch, `[1]` if there is none; raise unless `given` indices fit them."""
    classes = output.shape[1:] or torch.Size([1])
    if given != len(classes):
        raise ArgumentValueError(
            f"target gives {given} index(es) per sample; an output of shape {tuple(output.shape)} needs {len(classes)}"
        )
    return classes


def _outside(output: Tensor, given: str) -> TargetIndexError:
    return TargetIndexError(f"target is {given}, outside the model's output of shape {tuple(output.shape)}")


def class_target(model: Any, given: int | None, name: str = "target_class_idx") -> int | None:
    """The logit of a class of a PyHealth model.

    Args:
        model: the model. If its dataset does not give the number of logits, any class from 0 on is accepted.
        given: the class; negative ones count from the end; `None` is each sample's predicted class.
        name: the argument's name in error messages.

    Returns:
        The logit's index: 0 for both classes of a model with a single logit; `None` for `None`.

    Raises:
        TypeError: if `given` is no int.
        ValueError: if the model has no such class.
    """
    if given is None:
        return None
    index = as_int(given)
    if index is None:
        raise TypeError(f"{name} is {given!r}; accepted: an int, or leave it out for the predicted class")
    said = getattr(getattr(model, "dataset", None), "output_processors", None) is not None
    size = int(model.get_output_size()) if said else None
    classes = 2 if size == 1 else size  # a single logit serves classes 0 and 1
    if index < 0 and classes is not None:
        index += classes
    if index < 0 or (classes is not None and index >= classes):
        accepted = "0 and up" if classes is None else f"{-classes} to {classes - 1}"
        raise ValueError(f"{name} is {given}; accepted: {accepted}, or leave it out for the predicted class")
    return 0 if size == 1 else index


def listed(target: list[Any]) -> Tensor:
    """A list with one target per sample, ints or tuples of equal length, as a tensor."""
    rows = [each if isinstance(each, tuple | list) else (each,) for each in target]
    wrong = [i for i, row in enumerate(rows) if len(row) != len(rows[0]) or not row or not all(map(_is_index, row))]
    if wrong or not rows:
        given = f"target[{wrong[0]}] is {target[wrong[0]]!r}" if rows else "target is []"
        raise ArgumentTypeError(
            f"{given}; a list must hold one int per sample, or one tuple of ints per sample, equally long"
        )
    found = torch.tensor([[int(each) for each in row] for row in rows], device="cpu")
    return found if isinstance(target[0], tuple | list) else found[:, 0]


def _is_index(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _largest(output: Tensor) -> Tensor:
    if output.dim() > 2:
        raise ArgumentValueError(
            f"target is None, and the model's output has shape {tuple(output.shape)}: name a target (a tuple of ints "
            "or a callable on the output)"
        )
    if output.dim() == 1:
        return torch.empty((output.shape[0], 0), dtype=torch.int64, device=output.device)
    return output.detach().argmax(1, keepdim=True)


def _per_sample(target: Tensor, batch: int) -> Tensor:
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ArgumentTypeError(f"target is a tensor of {target.dtype}; accepted: an integer tensor")
    if target.is_inference():
        target = target.clone()  # autograd keeps it
    if target.dim() == 0:
        return target.expand(batch, 1).long()
    if target.shape != (batch,) and (target.dim() != 2 or target.shape[0] != batch):
        raise ArgumentValueError(f"target has shape {tuple(target.shape)}; accepted: ({batch},), one class per sample")
    return target.reshape(batch, -1).long()


def select(output: Tensor, found: Tensor | None) -> Tensor:
    """The output at each sample's target: `[batch]`."""
    if found is None or found.shape[1] == 0:
        return output
    if output.dim() == 2:
        return output.gather(1, found).squeeze(1)
    rows = torch.arange(output.shape[0], device=output.device)
    return output[(rows, *found.unbind(1))]
