"""A neuron of a layer, or the sum of several, as the output of a model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from deeplift_fast.core.cut import Place, value_at
from deeplift_fast.core.layers import Run
from deeplift_fast.core.targets import selection
from deeplift_fast.errors import ArgumentTypeError, ArgumentValueError, TargetIndexError

Selector = int | tuple[int | slice, ...] | Callable[[Any], Tensor]


@dataclass(frozen=True)
class Neuron:
    """A model up to a layer. Its call returns the layer's value, and :meth:`select` picks the neuron from it.

    Attributes:
        model: the module or callable.
        place: the layer, with the number of its call.
        selector: an int or a tuple of ints and slices, the position without the batch (slices are summed, and with them
            all dimensions that the tuple leaves out), or a callable from the layer's value to the neuron.
        inputs: the number of the model's attributed arguments.
        whole: whether the selector returns one number for the whole batch, so that the batch counts as one sample.
            The inputs are then `[1, batch, …]`.
    """

    model: Callable[..., Any]
    place: Place
    selector: Selector
    inputs: int
    whole: bool = False

    def __call__(self, *given: Any) -> Any:
        """The layer's value, from a run of the model that ends there."""
        if self.whole:
            with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
                given = (*(x.squeeze(0) for x in given[: self.inputs]), *given[self.inputs :])
        return value_at(self.place, lambda: self.model(*given))[0]

    def select(self, value: Any) -> Tensor:
        """The neuron in the layer's value, `[batch]`, or `[1]` for the whole batch."""
        chosen = self.chosen(value)
        return chosen.reshape(1) if self.whole else chosen

    def chosen(self, value: Any) -> Tensor:
        """The selector's result.

        Raises:
            ArgumentTypeError: if the layer holds no floating-point tensor, or the selector has an unknown type.
            ArgumentValueError: if a position does not fit the layer.
            TargetIndexError: if it lies outside of the layer.
        """
        leaves = pytree.tree_leaves(value)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        if not tensors:
            raise ArgumentTypeError(f"{self.place} holds no floating-point tensor and so no neuron")
        single = tensors[0] if len(tensors) == 1 else None
        if callable(self.selector):
            return self.selector(value if single is None else single)
        if single is None:
            raise ArgumentValueError(
                f"neuron_selector is {self.selector!r}, and {self.place} holds {len(tensors)} tensors; accepted: a "
                "callable that takes them and returns one number per sample, as "
                f"lambda output: {selection(value)}"
            )
        position = _position(self.selector)
        rest = single.shape[1 + len(position) :]
        sums = any(isinstance(each, slice) for each in position)
        if len(position) > single.dim() - 1 or (rest.numel() != 1 and not sums):
            raise ArgumentValueError(
                f"neuron_selector is {self.selector!r}, and {self.place} has shape {tuple(single.shape)}; accepted: "
                f"{single.dim() - 1} int(s) or slice(s), one for each dimension after the batch; the last ones "
                "may be left out if their dimensions have size 1, or if another entry is a slice, which adds them up"
            )
        try:
            found = single[(slice(None), *position)]
        except IndexError as error:
            raise TargetIndexError(
                f"neuron_selector is {self.selector!r}, which lies outside of {self.place}, of shape "
                f"{tuple(single.shape)}"
            ) from error
        return found.reshape(len(found), -1).sum(1) if found.dim() > 1 else found


def _position(selector: Any) -> tuple[int | slice, ...]:
    entries = selector if isinstance(selector, tuple) else (selector,)
    try:
        if any(isinstance(each, bool) for each in entries):
            raise TypeError
        return tuple(each if isinstance(each, slice) else index(each) for each in entries)
    except TypeError:
        raise ArgumentTypeError(
            f"neuron_selector is {selector!r}; accepted: an int, a tuple of ints and slices, or a callable that takes "
            "the layer's value"
        ) from None


def neuron_at(run: Run, place: Place, selector: Selector) -> Neuron:
    """Find a neuron by a plain run of the model at the input.

    Args:
        run: the model and its inputs.
        place: the layer.
        selector: as for :class:`Neuron`.

    Returns:
        The neuron.

    Raises:
        ValueError, TypeError: for a layer that is not called or is called several times, and for a selector that does
            not fit; the message names it.
    """
    found = Neuron(run.model, place, selector, len(run.inputs))

    def probed(once: Callable[[], Any]) -> tuple[Any, int]:
        value, number = value_at(place, once, stop=place.call is not None)  # otherwise, all calls count
        return found.chosen(value), number

    ((chosen, number),) = run.plainly(probed, (run.inputs,))
    fits = isinstance(chosen, Tensor) and (chosen.shape in ((run.batch,), (run.batch, 1)) or chosen.numel() == 1)
    if not fits:
        shown = f"shape {tuple(chosen.shape)}" if isinstance(chosen, Tensor) else f"a {type(chosen).__name__}"
        raise ArgumentValueError(
            f"neuron_selector gives {shown} for {run.batch} samples; accepted: one number per sample, ({run.batch},), "
            "or one for the whole batch"
        )
    whole = run.batch > 1 and chosen.numel() == 1
    return replace(found, place=replace(place, call=number), whole=whole)
