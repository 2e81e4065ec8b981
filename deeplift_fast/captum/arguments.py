"""Arguments in Captum's forms."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from deeplift_fast.core.targets import listed, require_tensor
from deeplift_fast.errors import ArgumentTypeError, ArgumentValueError

Tensors = Tensor | tuple[Tensor, ...]
Baselines = Tensor | int | float | tuple[Tensor | int | float, ...] | None
Target = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | Callable[[Any], Tensor] | None
AttributionFunction = Callable[..., tuple[Tensor, ...]]


def wrapped[**P, R](method: Callable[P, R]) -> Callable[P, R]:
    """Wrap a method, since Captum's NoiseTunnel calls `attribute.__wrapped__`."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(*args, **kwargs)

    return call


def as_tuple(name: str, given: Any) -> tuple[Tensor, ...]:
    """One tensor or several of the argument called `name`, as a tuple."""
    values = tuple(given) if isinstance(given, tuple | list) else (given,)
    for value in values:
        if not isinstance(value, Tensor):
            raise ArgumentTypeError(f"{name} holds a {type(value).__name__}; accepted: a tensor or a tuple of tensors")
    if not values:
        raise ArgumentValueError(f"{name} is empty; at least one tensor is needed")
    return values


def baselines_of(inputs: Any, baselines: Any) -> tuple[Any, ...]:
    """One baseline for each input; `None` stands for zeros."""
    count = len(inputs) if isinstance(inputs, tuple | list) else 1
    if baselines is None:
        return (None,) * count
    values = tuple(baselines) if isinstance(baselines, tuple | list) else (baselines,)
    if len(values) != count:
        raise ArgumentValueError(f"baselines holds {len(values)} for {count} input(s); accepted: one for each, or None")
    return values


def background(inputs: Any, baselines: Any, count: int) -> tuple[Tensor, ...]:
    """The background set of `count` inputs, `[baselines, …]` each."""
    if callable(baselines):
        baselines = baselines(inputs) if inspect.signature(baselines).parameters else baselines()
    if baselines is None:
        raise ArgumentValueError(
            "baselines is None; accepted by DeepLiftShap: a background set, tensors [baselines, …], or a function"
        )
    values = as_tuple("baselines", baselines)
    if len(values) != count:
        raise ArgumentValueError(f"baselines holds {len(values)} tensors for {count} input(s); accepted: one for each")
    for x, value in zip(as_tuple("inputs", inputs), values, strict=True):
        if value.dim() != x.dim() or value.shape[1:] != x.shape[1:]:
            raise ArgumentValueError(
                f"baselines hold shape {tuple(value.shape)} for inputs of shape {tuple(x.shape)}; accepted: one or "
                f"more rows of shape {tuple(x.shape[1:])}"
            )
    sizes = [len(value) if value.dim() else 0 for value in values]
    if len(set(sizes)) > 1 or not sizes[0]:
        raise ArgumentValueError(f"baselines have {sizes} rows; accepted: one or more, as many in each tensor")
    return values


def further_of(given: Any) -> tuple[Any, ...]:
    """`additional_forward_args` as a tuple."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, tuple | list) else (given,)


def rows_of(value: Any, index: Tensor, batch: int) -> Any:
    """The rows of a tensor with one row per sample; other values stay."""
    return value[index] if isinstance(value, Tensor) and value.dim() and len(value) == batch else value


def rows_of_target(target: Target, index: Tensor, batch: int) -> Any:
    """The targets of some samples."""
    if isinstance(target, list):
        target = listed(target)
    if not isinstance(target, Tensor) or target.numel() == 1:
        return target
    if target.dim() == 0 or len(target) != batch:
        raise ArgumentValueError(f"target has shape {tuple(target.shape)} for {batch} inputs; accepted: one per input")
    return target[index]


def target_of(target: Target, batch: int) -> Any:
    """Captum's target for a batch, in the form that :mod:`deeplift_fast.core.targets` accepts."""
    if target is None:
        return functools.partial(_single, batch)
    if isinstance(target, list):
        target = listed(target)
    if isinstance(target, Tensor) and target.numel() == 1:
        return int(target)
    return target


def _single(batch: int, output: Tensor) -> Tensor:
    require_tensor(output)
    if output.dim() == 0 and batch != 1:
        raise ArgumentValueError(
            f"target is None, and the model returned one number for {batch} samples; accepted: one output per sample"
        )
    if output.dim() and output.numel() != len(output):
        raise ArgumentValueError(f"target is None, and the model returned shape {tuple(output.shape)}: name a target")
    return output.reshape(-1)
