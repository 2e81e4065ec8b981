"""The tensors of a layer's input or output, batch first, and their way back into its structure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from deeplift_fast.core.cut import Place
from deeplift_fast.errors import ArgumentTypeError, ArgumentValueError


@dataclass(frozen=True)
class Axis:
    """The place of the samples in a tensor.

    Attributes:
        dim: the dimension of the batch; `None` if one sample is the whole tensor.
        folded: the number of rows of each sample, for a tensor that holds the steps of samples as rows; 0 for others.
        steps_first: whether such rows are in the order of steps, not of samples.
    """

    dim: int | None
    folded: int = 0
    steps_first: bool = False

    def first(self, x: Tensor) -> Tensor:
        """The tensor with the batch as its first dimension."""
        if self.steps_first:
            return x.unflatten(0, (self.folded, -1)).movedim(1, 0)
        if self.folded:
            return x.unflatten(0, (-1, self.folded))
        return x.unsqueeze(0) if self.dim is None else x.movedim(self.dim, 0)

    def fits(self, x: Tensor, rows: int) -> bool:
        """Whether a tensor has so many rows at this place."""
        if self.dim is None:
            return rows == 1
        return x.dim() > self.dim and x.shape[self.dim] == rows * max(self.folded, 1)

    def back(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`first`."""
        if self.folded:
            return (x.movedim(0, 1) if self.steps_first else x).flatten(0, 1)
        return x.squeeze(0) if self.dim is None else x.movedim(0, self.dim)


def candidates(x: Tensor, rows: int) -> list[Axis]:
    """Every place that the samples can have in a tensor, judged by its shape; rows of steps before later dimensions."""
    found = [Axis(dim) for dim, size in enumerate(x.shape) if size == rows]
    if rows and x.dim() and len(x) > rows and len(x) % rows == 0:
        return [Axis(0, len(x) // rows), Axis(0, len(x) // rows, steps_first=True), *found]
    return found


def _axis(x: Tensor, rows: int, doubled: Tensor | None) -> Axis | None:
    """The place of the samples in a tensor; `None` if it has none.

    Args:
        x: the tensor.
        rows: the number of samples.
        doubled: the tensor for these samples twice, one batch after the other; `None` if the model fails for them. Then
            the first candidate counts.
    """
    found = candidates(x, rows)
    if doubled is not None and doubled.dim() == x.dim():
        found = [each for each in found if _is_doubled(each, x, doubled, rows)]
    return found[0] if found else Axis(None) if rows == 1 else None


def _is_doubled(axis: Axis, x: Tensor, doubled: Tensor, rows: int) -> bool:
    dim = axis.dim or 0
    if doubled.shape[dim] != 2 * x.shape[dim]:
        return False
    half, ours = axis.first(doubled)[:rows], axis.first(x)
    return not axis.folded or (half.shape == ours.shape and torch.allclose(half, ours, rtol=1e-3, atol=1e-5))


@dataclass(frozen=True)
class Form:
    """The structure of a layer's input or output.

    Attributes:
        place: the layer.
        spec: the structure.
        size: the number of its leaves.
        axes: by the number of a leaf, the place of its samples: those of attributed tensors.
        still: by the number of a leaf, a tensor that is the same in both streams and has no samples.
        steps: by the number of a leaf, a tensor of a packed sequence that says which step each row is.
    """

    place: Place
    spec: Any
    size: int
    axes: dict[int, Axis]
    still: dict[int, Tensor]
    steps: dict[int, Tensor]

    @staticmethod
    def of(place: Place, value: Any, value0: Any, rows: int, of_doubled: Callable[[], Any]) -> "Form":
        """The structure of the layer's values at the input and at the baseline.

        Args:
            place: the layer.
            value: its value at the input.
            value0: its value at the baseline.
            rows: the number of samples.
            of_doubled: finds the value for twice as many samples, where shapes do not tell the place of the batch.

        Returns:
            The structure.

        Raises:
            ArgumentTypeError: if it holds no floating-point tensor.
            ArgumentValueError: if structures or shapes differ between the streams, or a tensor has no dimension of the
                batch.
        """
        leaves, spec = pytree.tree_flatten(value)
        leaves0, spec0 = pytree.tree_flatten(value0)
        shapes, shapes0 = ([tuple(x.shape) for x in _floats(each).values()] for each in (leaves, leaves0))
        if spec != spec0 or shapes != shapes0:
            raise ArgumentValueError(
                f"{place} has shape {_shown(shapes)} at the input and {_shown(shapes0)} at the baseline; they must be "
                "equal: choose a baseline with the same shapes and lengths"
            )
        found = {number: x for number, x in _floats(leaves).items() if not _is_mask(x, leaves0[number])}
        if not found:
            raise ArgumentTypeError(_nothing_floating(place, leaves))
        fixed = {number for number, x in found.items() if torch.equal(x, leaves0[number])}  # such as a table's rows
        unclear = any(number in fixed or len(candidates(x, rows)) > 1 for number, x in found.items())
        doubled = _floats(pytree.tree_leaves(of_doubled())) if unclear else {}
        axes = {number: _axis(x, rows, doubled.get(number)) for number, x in found.items()}
        still = {number: found[number] for number, axis in axes.items() if axis is None}
        for number, x in still.items():
            if number not in fixed:
                raise ArgumentValueError(
                    f"{place} has shape {tuple(x.shape)}, in which the {rows} samples have no dimension (packed "
                    "sequences have none); attribute to one sample at a time, or to another layer, such as the one "
                    "before"
                )
        known = {number: axis for number, axis in axes.items() if axis is not None}
        if not known:
            raise ArgumentValueError(
                f"{place} has shape {_shown(shapes)}, in which the {rows} samples have no dimension, and is the same "
                "at the input and at the baseline; attribute to a layer whose values depend on the samples"
            )
        return Form(place, spec, len(leaves), known, still, _steps(value, leaves))

    def tensors(self, value: Any) -> dict[str, Tensor]:
        """The attributed tensors of a value, batch first, by their names in messages."""
        leaves = pytree.tree_leaves(value)
        return {self._name(number): axis.first(leaves[number].detach()) for number, axis in self.axes.items()}

    def _name(self, number: int) -> str:
        return str(self.place) if len(self.axes) == 1 else f"{self.place}, tensor {number}"

    def given(self, value: Any, tensors: dict[str, Tensor]) -> Any:
        """A layer's value with other tensors in the place of its own."""
        leaves, spec = pytree.tree_flatten(value)
        with torch.enable_grad():  # the model may call the layer under torch.no_grad()
            for number, axis in self.axes.items():
                leaves[number] = _Placed.apply(tensors[self._name(number)], axis, leaves[number])
        return pytree.tree_unflatten(leaves, spec)

    def layer_order(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Tensors of batch-first order with their dimensions in the layer's order."""
        return tuple(axis.back(x) for x, axis in zip(tensors, self.axes.values(), strict=True))

    def batch_first(self, tensors: Sequence[Tensor], like: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The inverse of :meth:`layer_order`; tensors of other shapes than `like` have their batch first already."""
        return tuple(
            axis.first(x) if x.shape == axis.back(own).shape else x
            for x, axis, own in zip(tensors, self.axes.values(), like, strict=True)
        )

    def structure(self, tensors: Sequence[Tensor]) -> Any:
        """Batch-first tensors in the layer's structure: a tensor, or a tuple; `None` stands for all other entries.

        A packed sequence keeps its integers.
        """
        found = self.layer_order(tensors)
        if len(self.axes) + len(self.still) == 1:
            return found[0]
        leaves: list[Any] = [self.steps.get(number) for number in range(self.size)]
        for number, x in zip(self.axes, found, strict=True):
            leaves[number] = x
        for number, x in self.still.items():
            leaves[number] = torch.zeros_like(x)
        made = pytree.tree_unflatten(leaves, self.spec)
        return tuple(made) if isinstance(made, list) else made


def _floats(leaves: list[Any]) -> dict[int, Tensor]:
    return {n: leaf for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()}


def _steps(value: Any, leaves: list[Any]) -> dict[int, Tensor]:
    """The integers of packed sequences, by number: no packed sequence can be made without them."""
    nodes = pytree.tree_leaves(value, is_leaf=lambda each: isinstance(each, PackedSequence))
    own = {id(entry) for node in nodes if isinstance(node, PackedSequence) for entry in node[1:] if entry is not None}
    return {number: leaf for number, leaf in enumerate(leaves) if id(leaf) in own}


def _is_mask(x: Tensor, x0: Tensor) -> bool:
    """Whether a tensor holds infinities and is the same in both streams."""
    return not bool(x.isfinite().all()) and torch.equal(x, x0)


def _shown(shapes: list[tuple[int, ...]]) -> str:
    return str(shapes[0]) if len(shapes) == 1 else str(shapes)


def _nothing_floating(place: Place, leaves: list[Any]) -> str:
    kinds = {str(leaf.dtype) if isinstance(leaf, Tensor) else type(leaf).__name__ for leaf in leaves}
    remedy = "attribute to its output, or to another layer"
    if place.at_input and not kinds:
        remedy = f"the model gives it named arguments alone, which are not attributed: {remedy}"
    return f"{place} holds no floating-point tensor ({', '.join(sorted(kinds)) or 'nothing'}); {remedy}"


class _Placed(torch.autograd.Function):
    """A batch-first tensor with the dimensions and the memory order of the layer's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis, own: Tensor) -> Tensor:
        ctx.axis = axis
        return torch.empty_like(own).copy_(axis.back(x))

    @staticmethod
    def backward(ctx: Any, multipliers: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return ctx.axis.first(multipliers), None, None
