"""A place inside a model: the input or the output of one of its modules, at one of the module's calls."""

import contextlib
import difflib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils import _pytree as pytree

from deeplift_fast.errors import ArgumentTypeError, ArgumentValueError
from deeplift_fast.support.integers import as_int


@dataclass(frozen=True)
class Place:
    """The input or the output of a module inside a model.

    Attributes:
        module: the module.
        name: its name in the model.
        at_input: whether the place is the module's input.
        call: the number of the call, counted from 0; negative ones count from the last. `None` stands for the only
            call.
        in_compiled: whether the model holds modules from `torch.compile`.
        twins: names of other modules of this kind with the same weights.
    """

    module: nn.Module
    name: str
    at_input: bool = False
    call: int | None = None
    in_compiled: bool = False
    twins: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"the {'input' if self.at_input else 'output'} of layer {self.name!r}"


def place_in(modules: tuple[nn.Module, ...], layer: nn.Module | str, at_input: bool, call: int | None) -> Place:
    """Find a layer in a model.

    Args:
        modules: the model, or nothing for a callable whose modules are unknown.
        layer: a module of the model, or its name.
        at_input: whether the place is the layer's input.
        call: the number of the call.

    Returns:
        The place.

    Raises:
        ArgumentTypeError: if the layer is neither a module nor a name, or the call is no int.
        ArgumentValueError: if the model has no such layer.
    """
    number = None if call is None else as_int(call)
    if call is not None and number is None:
        raise ArgumentTypeError(f"call is {call!r}; accepted: None, or an int: 0 for the first call, -1 for the last")
    if not isinstance(layer, nn.Module | str):
        raise ArgumentTypeError(
            f"layer is a {type(layer).__name__}; accepted: one module of the model, or its name, as 'encoder.0'"
        )
    names = {name: module for root in modules for name, module in root.named_modules(remove_duplicate=False)}
    compiled = any("_orig_mod" in module._modules for module in names.values())
    if isinstance(layer, str):
        if layer not in names:
            raise ArgumentValueError(f"layer is {layer!r}, and the model has no such module; {_near(layer, names)}")
        return Place(names[layer], layer, at_input, number, compiled, _twins(names[layer], names))
    found = next((name for name, module in names.items() if module is layer), None)
    if found is None and modules:
        raise ArgumentValueError(
            f"layer is a {type(layer).__name__} that is not part of the model; accepted: a module of "
            "model.named_modules(), or its name"
        )
    name = type(layer).__name__ if found is None else found
    return Place(layer, name, at_input, number, compiled, _twins(layer, names))


def _twins(layer: nn.Module, names: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The names of other modules of a layer's type that share a parameter with it."""
    own = {id(weight) for weight in layer.parameters(recurse=False)}
    alike = ((name, module) for name, module in names.items() if type(module) is type(layer) and module is not layer)
    return tuple(name for name, module in alike if own & {id(each) for each in module.parameters(recurse=False)})


def _near(name: str, names: dict[str, nn.Module]) -> str:
    if not names:
        return "it is a function, whose modules are unknown; accepted: the module itself, as net.encoder"
    near = difflib.get_close_matches(name, names, n=3) or [each for each in names if each][:6]
    return f"accepted: names of model.named_modules(), such as {', '.join(map(repr, near))}" if near else "it has none"


class Calls:
    """The number of calls that a module got in one run of its model."""

    def __init__(self) -> None:
        self.count = 0


@contextlib.contextmanager
def watched(place: Place, act: Callable[[int, Any], Any]) -> Iterator[Calls]:
    """Call a function at each call of a module, in this thread alone.

    The hooks are those of all modules, since attribution in another thread restores the model's own ones.

    Args:
        place: the module, and whether its input or its output is asked for.
        act: takes the number of the call and its input (a tuple of the positional arguments) or its output. The result
            goes in its place.

    Yields:
        The number of calls so far.
    """
    thread, calls = threading.get_ident(), Calls()
    given: list[tuple[Any, Any, list[int | None]]] = []

    def hook(module: nn.Module, args: Any, output: Any = None) -> Any:
        if module is not place.module or threading.get_ident() != thread:
            return None
        with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            calls.count += 1
            found = act(calls.count - 1, args if place.at_input else output)
            if place.at_input:
                given.append((args, found, versions(found)))
        return found

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if module is place.module and threading.get_ident() == thread and given:
            _write_back(*given.pop())

    register: Any = register_module_forward_pre_hook if place.at_input else register_module_forward_hook
    with contextlib.ExitStack() as stack:
        if place.in_compiled:  # its modules warn of hooks of all modules, which this one tells apart
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Using `torch.compile")
        stack.callback(register(hook).remove)
        if place.at_input:
            stack.callback(register_module_forward_hook(after).remove)
        yield calls


def versions(value: Any) -> list[int | None]:
    """How often each tensor of a value was written to."""
    leaves = pytree.tree_leaves(value)
    return [leaf._version if isinstance(leaf, Tensor) and not leaf.is_inference() else None for leaf in leaves]


def _write_back(args: Any, found: Any, versions: list[int | None]) -> None:
    """Repeat a module's writes to its replaced input on the original, which the model may read afterwards."""
    for old, new, before in zip(pytree.tree_leaves(args), pytree.tree_leaves(found), versions, strict=True):
        if before is not None and new is not old and new._version != before:
            with torch.enable_grad():
                old.copy_(new)


class _Reached(BaseException):
    """Ends a run of the model at the place; no `except Exception` in the model catches it."""


def value_at(place: Place, run: Callable[[], Any], stop: bool = True) -> tuple[Any, int]:
    """Run a model up to a place.

    Args:
        place: the place.
        run: runs the model.
        stop: whether to end the run at the place, if its call is not counted from the last.

    Returns:
        The value there, as the model holds it, and the number of the call that it is of.

    Raises:
        ArgumentValueError: if the run does not call the module, or not as often.
    """
    values: list[Any] = []
    stop = stop and (place.call is None or place.call >= 0)

    def act(number: int, value: Any) -> Any:
        values.append(_cloned(value) if not stop else value)
        if stop and number == (place.call or 0):
            raise _Reached
        return value

    try:
        with watched(place, act):
            run()
    except _Reached:
        return values[-1], len(values) - 1
    check_calls(place, len(values))
    number = (place.call or 0) % len(values)
    return values[number], number


def _cloned(value: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, value)  # the model may write to it


def check_calls(place: Place, count: int) -> None:
    """Raise `ArgumentValueError` unless a run of the model reaches a place, which called its module `count` times."""
    shown = f"layer {place.name!r}"
    if count == 0:
        raise ArgumentValueError(
            f"{shown} is not called by the forward pass, so that it has no "
            f"{'input' if place.at_input else 'output'}; accepted: a module that the model calls as module(x), not "
            f"one that only holds others or whose weights or forward are used directly{_instead(place)}"
        )
    if place.call is None and count > 1:
        raise ArgumentValueError(
            f"{shown} is called {count} times in one forward pass; name the call: call=0 to call={count - 1} in their "
            "order, or call=-1 for the last"
        )
    if place.call is not None and not -count <= place.call < count:
        raise ArgumentValueError(
            f"call is {place.call}, and {shown} is called {count} time(s) in one forward pass; accepted: {-count} to "
            f"{count - 1}"
        )


def _instead(place: Place) -> str:
    return f". These modules have the same weights: {', '.join(map(repr, place.twins))}" if place.twins else ""
