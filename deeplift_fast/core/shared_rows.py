"""One computation for all samples that are equal, as the samples of a baseline often are.

In the pass at the baseline, a tensor that repeats along some dimensions has a *twin*: a tensor of the same shape and
values, whose stride is 0 along these dimensions. An operation that treats them one by one runs on the twin's distinct
values, and its result is copied into an ordinary tensor for the model, so that the model sees nothing of all this.
"""

import math
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.rules import operations as tables
from deeplift_fast.rules.call import Arguments, is_floating, named_in_place, shared_name

SMALLEST = 4096  # numbers of an input; with fewer, the work in Python costs more than it saves

_ELEMENT_BY_ELEMENT = (tables.ELEMENTWISE - {"prelu", "rrelu", "mvlgamma"}) | {
    "relu", "sigmoid", "tanh", "add", "sub", "subtract", "radd", "rsub", "mul", "multiply", "rmul", "div", "divide",
    "true_divide", "truediv",
}  # fmt: skip
_RESHAPED = frozenset(("view", "reshape", "flatten", "unflatten"))
_VIEWS = frozenset(
    ("transpose", "swapaxes", "swapdims", "permute", "squeeze", "unsqueeze", "chunk", "split", "select", "unbind")
)
_COPIES = frozenset(("contiguous", "clone"))
_BY_SAMPLE = {f"{name}{n}d": n + 2 for name in ("conv", "max_pool", "avg_pool", "adaptive_avg_pool") for n in (1, 2, 3)}
_EVADING = frozenset(("data_ptr", "storage", "untyped_storage", "set", "set_data", "resize", "share_memory"))

Run = Callable[..., Any]


def repeating(values: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
    """The twins of the tensors on the CPU, `[batch, …]`, in which all samples are equal, by name."""
    found = {}
    for name, x in values.items():
        if x.is_cpu and x.dim() and len(x) > 1 and x.numel() >= SMALLEST:
            twin = x[:1].expand(x.shape)
            if x.stride(0) == 0 or torch.equal(x, twin):
                found[name] = twin
    return found


@cache
def evades(func: Run) -> bool:
    """Whether a call may lead to writes that no version counter shows, so that twins may not be used any more."""
    return func == _DATA or _name(func) in _EVADING or _name(func) in tables.LEAVING


_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
_name = cache(shared_name)


class SharedRows:
    """The twins of one pass without gradients."""

    def __init__(self) -> None:
        self._twins: dict[int, tuple[weakref.ref[Tensor], Tensor, int]] = {}

    def add(self, tensor: Tensor, twin: Tensor) -> None:
        """Remember a tensor's twin until the tensor is written to."""
        self._twins[id(tensor)] = weakref.ref(tensor), twin, tensor._version

    def twin(self, tensor: Tensor) -> Tensor:
        """A tensor's twin, or the tensor itself."""
        found = self._twins.get(id(tensor))
        if found is None or found[0]() is not tensor or found[2] != tensor._version:
            return tensor
        return found[1]

    def arguments(self, given: Arguments) -> Arguments:
        """A call's arguments with twins in the place of their tensors."""
        floats = list(map(self.twin, given.floats))
        if all(map(_is, floats, given.floats)):
            return given
        args = tuple([self.twin(each) if isinstance(each, Tensor) else each for each in given.args])
        if sum(map(is_floating, args)) == len(floats):  # none by name or in a list
            return Arguments(args, given.kwargs, floats, given.choices)
        return given.with_leaves(floats, given.choices)

    def run(self, func: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`func(*args, **kwargs)`, computed once for what repeats."""
        way = _way(func)
        if way is None or not args or not isinstance(args[0], Tensor):
            return func(*args, **kwargs)
        twins = [self.twin(each) if isinstance(each, Tensor) else each for each in args]
        if all(map(_is, twins, args)) or _in_place(func, args, kwargs):
            return func(*args, **kwargs)
        named = [each for each in kwargs.values() if isinstance(each, Tensor)]
        if named and (way not in _WITH_NAMED or not all(map(_is, map(self.twin, named), named))):
            return func(*args, **kwargs)
        found = way(self, func, args, twins, kwargs)
        return func(*args, **kwargs) if found is None else found

    def _spread(self, found: Tensor, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """An ordinary tensor of a shape, with the values of `found`, which broadcasts to it."""
        if found.shape == torch.Size(shape):
            return found
        twin = found.expand(shape)
        if like is None:
            full = torch.empty(shape, dtype=found.dtype, device=found.device)
        else:
            full = torch.empty_like(like, dtype=found.dtype)
        full.copy_(twin)
        self.add(full, twin)
        return full


def _is(a: Any, b: Any) -> bool:
    return a is b


def _in_place(func: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a functional form writes to its first argument."""
    position = tables.IN_PLACE_POSITION.get(_name(func), len(args))
    return bool(kwargs.get("inplace", args[position] if len(args) > position else False))


def _cut(twin: Tensor, until: int, kept: int | None = None) -> Tensor:
    """The distinct values: size 1 in those of the first `until` dimensions, but `kept`, that have stride 0."""
    shape, strides = list(twin.shape), list(twin.stride())
    for dim in reversed(range(until)):
        if strides[dim] == 0 and dim != kept:
            shape[dim] = min(shape[dim], 1)
            if dim + 1 < len(shape):  # kernels take detours for a stride of 0
                strides[dim] = shape[dim + 1] * strides[dim + 1]
            else:
                strides[dim] = 1
    return twin.as_strided(shape, strides, twin.storage_offset())


def _element_by_element(
    shared: SharedRows, func: Run, args: tuple[Any, ...], twins: list[Any], kwargs: dict[str, Any]
) -> Any:
    shapes = [each.shape for each in args if isinstance(each, Tensor)]
    if len(shapes) > 1 and torch.broadcast_shapes(*shapes) != shapes[0]:
        return None
    small = [_cut(t, t.dim()) if t is not each else each for t, each in zip(twins, args, strict=True)]
    return shared._spread(func(*small, **kwargs), shapes[0], args[0])


def _row_by_row(shared: SharedRows, func: Run, args: tuple[Any, ...], twins: list[Any], kwargs: dict[str, Any]) -> Any:
    """Operations that treat the first dimensions of their first tensor one by one."""
    x, kept = args[0], None
    if not all(map(_is, twins[1:], args[1:])):
        return None
    name = _name(func)
    if name == "linear":
        until = x.dim() - 1
    elif name == "layer_norm":
        until = x.dim() - len(args[1] if len(args) > 1 else kwargs["normalized_shape"])
    elif name in ("softmax", "log_softmax"):
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        if dim is None:
            return None
        until, kept = x.dim(), dim % x.dim()
    else:
        until = 1 if x.dim() == _BY_SAMPLE[name] and x.is_contiguous() else 0
    small = _cut(twins[0], until, kept)
    found = func(small, *args[1:], **kwargs)
    if not isinstance(found, Tensor):
        return None
    return shared._spread(found, [*x.shape[:until], *found.shape[until:]])


def _product(shared: SharedRows, func: Run, args: tuple[Any, ...], twins: list[Any], kwargs: dict[str, Any]) -> Any:
    a, b = args
    if a.dim() < 2 or b.dim() < 2:
        return None
    found = func(_cut(twins[0], a.dim() - 1), _cut(twins[1], b.dim() - 2))
    return shared._spread(found, [*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]])


def _view(shared: SharedRows, func: Run, args: tuple[Any, ...], twins: list[Any], kwargs: dict[str, Any]) -> Any:
    found, of_twin = func(*args, **kwargs), func(*twins, **kwargs)
    pairs = [(found, of_twin)] if isinstance(found, Tensor) else zip(found, of_twin, strict=True)
    for each, other in pairs:
        shared.add(each, other)
    return found


def _reshaped(shared: SharedRows, func: Run, args: tuple[Any, ...], twins: list[Any], kwargs: dict[str, Any]) -> Any:
    found = func(*args, **kwargs)
    twin, shape = twins[0], found.shape
    small = list(shape)
    for dim, (size, stride) in enumerate(zip(twin.shape, twin.stride(), strict=True)):
        if stride == 0 and size > 1:
            before = math.prod(twin.shape[:dim])
            places = (at for at, each in enumerate(shape) if each == size and math.prod(shape[:at]) == before)
            place = next(places, None)
            if place is None:  # the dimension is split, or joined with another one
                return found
            small[place] = 1
    shared.add(found, _cut(twin, twin.dim()).reshape(small).expand(shape))
    return found


def _copy(shared: SharedRows, func: Run, args: tuple[Any, ...], twins: list[Any], kwargs: dict[str, Any]) -> Any:
    found = func(*args, **kwargs)
    if found is not args[0]:
        shared.add(found, twins[0])
    return found


def _self_attention(
    shared: SharedRows, func: Run, args: tuple[Any, ...], twins: list[Any], kwargs: dict[str, Any]
) -> Any:
    """`multi_head_attention_forward` of one tensor, `[length, batch, width]`, without masks, dropout and weights."""
    x = args[0]
    plain = len(args) == 13 and args[1] is x and args[2] is x and x.dim() == 3 and twins[0].stride(1) == 0
    options = {"training": True, "need_weights": True} | kwargs
    dropped = options["training"] and args[10] > 0
    others = ("key_padding_mask", "attn_mask", "static_k", "static_v")
    if not plain or dropped or options["need_weights"] or any(kwargs.get(name) is not None for name in others):
        return None
    if not all(map(_is, twins[3:], args[3:])):
        return None
    small = twins[0][:, :1]
    found, _ = func(small, small, small, *args[3:], **kwargs)
    return shared._spread(found, x.shape), None


_WITH_NAMED = (_row_by_row, _self_attention)


@cache
def _way(func: Run) -> Callable[..., Any] | None:
    name = _name(func)
    if named_in_place(func):
        return None
    if name in _ELEMENT_BY_ELEMENT:
        return _element_by_element
    if name in ("linear", "layer_norm", "softmax", "log_softmax") or name in _BY_SAMPLE:
        return _row_by_row
    if name == "matmul":
        return _product
    if name == "multi_head_attention_forward":
        return _self_attention
    if name in _VIEWS:
        return _view
    if name in _RESHAPED:
        return _reshaped
    return _copy if name in _COPIES else None
