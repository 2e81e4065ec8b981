"""Texts of a model's modules: classes, plain attributes and hooks, which decide its numbers beside the weights.

Attributes are read after a forward pass, so that earlier use of the model does not matter: a flag that the first pass
sets is set. Attributes that every pass changes, such as counters, are left out.

Tensors other than parameters and buffers are left out, and so are objects that are not plain. Their effect shows in the
outputs that :mod:`deeplift_fast.cohort.outputs` compares.
"""

import contextlib
import dataclasses
import enum
import functools
import numbers
from collections.abc import Callable, Mapping, Sequence, Set
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from deeplift_fast.cohort.hashing import SHORT, class_name, digest
from deeplift_fast.core.intercept import IsolatedPass
from deeplift_fast.core.isolation import Kept, ShadowState, isolated

ITSELF = "(itself)"
"""Name of the model itself among its modules."""

EVERY = "(every module)"
"""Name under which global hooks are listed."""

_LONGEST = 500
_DEEPEST = 4
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_EVERY_HOOK = tuple(f"_global{name}" for name in _HOOKS)
_OWN = vars(nn.Module()).keys() - {"training"}
# The manifest has fields of its own for these.
_ELSEWHERE = {"device", "dataset"}
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, type(torch.add), type(np.add))


def of_modules(model: nn.Module, run: Callable[[], Any] | None = None) -> dict[str, str]:
    """Each module by its path in the model: its class, with plain attributes and hooks.

    Args:
        model: the model.
        run: runs the model once, always on the same sample; the model's state is restored afterwards.

    Returns:
        Texts such as `"torch.nn.modules.dropout.Dropout(inplace=False, p=0.5, training=False)"`; a module in
        several places is listed in each. Long texts end with a digest of the whole.
    """
    changing = _settled(model, run) if run is not None else {}
    found = {path: _short(_of_module(module, 0, changing.get(path, {}))) for path, module in _named(model)}
    every = [text for name in _EVERY_HOOK if (text := _hooks(getattr(torch_module, name, {}), name))]
    return found | ({EVERY: _short("; ".join(every))} if every else {})


def _named(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(path or ITSELF, module) for path, module in model.named_modules(remove_duplicate=False)]


def _settled(model: nn.Module, run: Callable[[], Any]) -> dict[str, dict[str, str | None]]:
    """Attributes that two passes change, by module: the value after both, or `None` if the second pass changes it."""
    devices = {each.device for each in model.parameters() if each.is_cuda}
    before = {path: _attributes(module, 0) for path, module in _named(model)}
    after = []
    with isolated([model], devices), torch.inference_mode(False), torch.no_grad():
        for _ in range(2):
            # Attribution reports a sample that the model cannot take.
            with contextlib.suppress(Exception), IsolatedPass(ShadowState(Kept([model]))):
                run()
            after.append({path: _attributes(module, 0) for path, module in _named(model)})
    found: dict[str, dict[str, str | None]] = {}
    for path, old in before.items():
        first, second = (each.get(path, old) for each in after)
        names = {name for name in old | first | second if not old.get(name) == first.get(name) == second.get(name)}
        found[path] = {name: first.get(name) if first.get(name) == second.get(name) else None for name in names}
    return found


def _attributes(module: nn.Module, depth: int) -> dict[str, str]:
    """A module's plain attributes, by name."""
    state = {name: value for name, value in vars(module).items() if name not in _OWN | _ELSEWHERE}
    return {name: text for name, value in state.items() if (text := _plain(value, depth)) is not None}


def _of_module(module: nn.Module, depth: int, changing: Mapping[str, str | None] = MappingProxyType({})) -> str:
    plain = sorted({**_attributes(module, depth), **changing}.items())
    hooks = [text for name in _HOOKS if (text := _hooks(getattr(module, name, {}), name))]
    shown = ", ".join(f"{name}={text}" for name, text in plain if text is not None)
    return "; ".join([f"{class_name(module)}({shown})", *hooks])


def _hooks(hooks: Mapping[Any, Any], name: str) -> str:
    texts = [_plain(hook, 0) or class_name(hook) for hook in hooks.values()]
    return f"{name.removeprefix('_global').removeprefix('_')}: {', '.join(texts)}" if texts else ""


def _plain(value: Any, depth: int) -> str | None:
    """A plain value as text; `None` for other objects, and for `None`.

    `None` does not count as a value: some attributes are `None` until the first pass makes them a tensor.
    """
    if isinstance(value, enum.Enum):  # its repr may hold an address
        return f"{class_name(value)}({value.name}, {_plain(value.value, depth)})"
    if isinstance(value, str | bytes | bool | complex | slice | range | torch.dtype | torch.memory_format):
        return repr(value)
    if isinstance(value, numbers.Number | np.generic):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, type):
        return class_name(value)
    if isinstance(value, _FUNCTIONS):
        return _function(value)
    if value is None or isinstance(value, Tensor | np.ndarray) or depth == _DEEPEST:
        return None
    return _compound(value, depth + 1)


def _compound(value: Any, depth: int) -> str | None:
    """A container of plain values as text; `None` for other objects."""
    if isinstance(value, nn.Module):
        return _of_module(value, depth)
    if isinstance(value, functools.partial):
        return f"partial({_plain(value.func, depth)}, {_all(value.args, depth)}, {_pairs(value.keywords, depth)})"
    if isinstance(value, Mapping):
        return f"{{{_pairs(value, depth)}}}"
    if isinstance(value, Set):
        return f"{{{', '.join(sorted(_plain(each, depth) or class_name(each) for each in value))}}}"
    if isinstance(value, Sequence):
        return f"[{_all(value, depth)}]"
    if dataclasses.is_dataclass(value):
        fields = {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
        return f"{class_name(value)}({_pairs(fields | getattr(value, '__dict__', {}), depth)})"
    if callable(value) or isinstance(value, SimpleNamespace):
        return f"{class_name(value)}({_pairs(getattr(value, '__dict__', {}), depth)})"
    return None


def _all(values: Sequence[Any], depth: int) -> str:
    return ", ".join(_plain(each, depth) or class_name(each) for each in values)


def _pairs(values: Mapping[Any, Any], depth: int) -> str:
    texts = {(_plain(key, depth) or class_name(key)): _plain(value, depth) for key, value in values.items()}
    return ", ".join(f"{key}: {text}" for key, text in sorted(texts.items()) if text is not None)


def _function(function: Any) -> str:
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", getattr(function, "__name__", type(function).__name__))
    return f"{module}.{name}" if module else str(name)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… {digest(text)[:SHORT]}"
