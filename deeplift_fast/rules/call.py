"""One call of an operation in both streams."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket

FLOATING = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128))
_IN_PLACE_OPERATORS = frozenset(
    f"__i{name}__" for name in ("add", "sub", "mul", "div", "truediv", "pow", "matmul", "mod", "floordiv")
)


@functools.cache
def shared_name(func: Callable[..., Any]) -> str:
    """The name that an operation's function, tensor method, operator, in-place form and `aten` overloads share.

    Operations of other libraries keep their namespace: `library::name`.
    """
    namespace, name = _qualified(func)
    if namespace not in ("", "aten"):
        return f"{namespace}::{name}"
    return name[3:-2] if name in _IN_PLACE_OPERATORS else name.strip("_")


@functools.cache
def named_in_place(func: Callable[..., Any]) -> bool:
    """Whether an operation writes its result to its first argument, judged by its name."""
    name = _qualified(func)[1]
    return name in (*_IN_PLACE_OPERATORS, "__setitem__") or (name.endswith("_") and not name.startswith("__"))


def _qualified(func: Callable[..., Any]) -> tuple[str, str]:
    """The namespace, empty for a Python function, and the name without its overload."""
    if isinstance(func, OpOverload | OpOverloadPacket):
        qualified = func.name() if isinstance(func, OpOverload) else func._qualified_op_name
        namespace, _, name = qualified.partition("::")
        return namespace, name.partition(".")[0]
    return "", (getattr(func, "__name__", None) or str(func)).partition(".")[0]


@functools.cache
def out_of_place(func: Callable[..., Any]) -> Callable[..., Any]:
    """The operation whose result an in-place form writes to its first argument."""
    name = shared_name(func)
    if name == "setitem":
        return _with_item
    for home in (Tensor, torch, F):
        found = getattr(home, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    return getattr(Tensor, f"__{name}__", func)  # the operators that have no method: a /= b


def _with_item(tensor: Tensor, index: Any, value: Any) -> Tensor:
    result = tensor.clone()
    result[index] = value
    return result


def leaves(value: Any) -> Iterator[Any]:
    """The values in a call's arguments, also those inside lists, tuples and dicts."""
    if isinstance(value, tuple | list):
        for entry in value:
            yield from leaves(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from leaves(entry)
    else:
        yield value


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """The same structure with `change` of every leaf."""
    if isinstance(value, tuple | list):
        entries = [mapped(change, entry) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    if isinstance(value, dict):
        return {key: mapped(change, entry) for key, entry in value.items()}
    return change(value)


def is_floating(value: Any) -> bool:
    """Whether a value is a tensor of real or complex floating-point numbers."""
    return isinstance(value, Tensor) and value.dtype in FLOATING


def _sort(values: Iterable[Any], floats: list[Tensor], choices: list[Any]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            (floats if value.dtype in FLOATING else choices).append(value)
        elif isinstance(value, tuple | list):
            _sort(value, floats, choices)
        elif isinstance(value, dict):
            _sort(value.values(), floats, choices)
        else:
            choices.append(value)


@dataclass(slots=True)  # not frozen: that takes four times as long to make, and each call makes several
class Arguments:
    """A call's arguments in one stream; nobody writes to them.

    Attributes:
        args: those by position.
        kwargs: those by name.
        floats: the floating-point tensors among them.
        choices: the rest: masks, indices, numbers and other options.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    floats: list[Tensor]
    choices: list[Any]

    @staticmethod
    def of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Arguments":
        """Sort a call's arguments."""
        floats: list[Tensor] = []
        choices: list[Any] = []
        _sort(args, floats, choices)
        if kwargs:
            _sort(kwargs.values(), floats, choices)
        return Arguments(args, kwargs, floats, choices)

    def with_leaves(self, floats: list[Tensor], choices: list[Any]) -> "Arguments":
        """The same structure with other tensors and choices."""
        ours = iter(leaves((self.args, self.kwargs)))
        left = {True: iter(floats), False: iter(choices)}
        args, kwargs = mapped(lambda _: next(left[is_floating(next(ours))]), (self.args, self.kwargs))
        return Arguments(args, kwargs, floats, choices)

    def run(self, func: Callable[..., Any], floats: dict[int, Tensor] | None = None) -> Any:
        """`func` of these arguments, detached; `floats` replaces floating-point tensors by their index."""
        floats = floats or {}
        index = -1

        def change(leaf: Any) -> Any:
            nonlocal index
            if not is_floating(leaf):
                return leaf
            index += 1
            return floats[index] if index in floats else leaf.detach()

        args, kwargs = mapped(change, (self.args, self.kwargs))
        return func(*args, **kwargs)


def whole(result: Any, arguments: Iterable[Tensor]) -> Any:
    """An operation's result, with copies of views into memory that no argument holds.

    The model may write to a result, but autograd refuses writes to a view that was made inside of a `Function`.
    """
    held = {tensor.untyped_storage().data_ptr() for tensor in arguments}

    def copied(leaf: Any) -> Any:
        is_own_view = isinstance(leaf, Tensor) and leaf._is_view() and leaf.untyped_storage().data_ptr() not in held
        return leaf.clone() if is_own_view else leaf

    return copied(result) if isinstance(result, Tensor) else mapped(copied, result)


def same_choices(ours: list[Any], theirs: list[Any]) -> bool:
    """Whether masks, indices and numbers are the same in both streams."""
    if len(ours) != len(theirs):
        return False
    for a, b in zip(ours, theirs, strict=True):  # noqa: SIM110 - quicker than `all`
        if a is not b and not _same(a, b):
            return False
    return True


def still(floats: list[Tensor], floats0: list[Tensor]) -> bool:
    """Whether the tensors without a gradient are the same in both streams."""
    for x, x0 in zip(floats, floats0, strict=True):
        if x is not x0 and not x.requires_grad and not _same(x, x0):
            return False
    return True


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        both = isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype
        return both and (_same_memory(a, b) or bool(torch.equal(a, b)))
    if type(a) is not type(b):
        return False
    if isinstance(a, slice):
        return all(map(_same, (a.start, a.stop, a.step), (b.start, b.stop, b.step)))
    if isinstance(a, int | float | complex | str):
        return bool(a == b) or (a != a and b != b)
    return True


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride() and a.layout == b.layout


@dataclass(slots=True)
class Call:
    """An operation's call at the input, and its partner at the baseline; nobody writes to it.

    Attributes:
        name: its :func:`shared_name`.
        func: the operation, not in place.
        actual: its arguments at the input.
        baseline: its arguments at the baseline, detached.
        moved: indices of the floating-point tensors that depend on the attributed inputs.
        fixed: whether all other arguments are the same in both streams.
    """

    name: str
    func: Callable[..., Any]
    actual: Arguments
    baseline: Arguments
    moved: list[int]
    fixed: bool

    @staticmethod
    def of(name: str, func: Callable[..., Any], actual: Arguments, baseline: Arguments, moved: list[int]) -> "Call":
        """Pair a call with its partner, and compare their other arguments."""
        fixed = still(actual.floats, baseline.floats) and same_choices(actual.choices, baseline.choices)
        return Call(name, func, actual, baseline, moved, fixed)

    @property
    def xs(self) -> list[Tensor]:
        """The moved tensors at the input."""
        return [self.actual.floats[index] for index in self.moved]

    @property
    def x0s(self) -> list[Tensor]:
        """The moved tensors at the baseline."""
        return [self.baseline.floats[index] for index in self.moved]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by name."""
        args = self.actual.args
        return args[position] if len(args) > position else self.actual.kwargs.get(name, default)

    def run(self, *xs: Tensor) -> Any:
        """The operation with other moved tensors."""
        return self.actual.run(self.func, dict(zip(self.moved, xs, strict=True)))

    def as_it_is(self) -> Any:
        """The operation at the input, with its own gradient."""
        return self.func(*self.actual.args, **self.actual.kwargs)
