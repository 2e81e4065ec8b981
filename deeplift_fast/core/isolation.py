"""Keeps a call's side effects away from the user's model and from the process.

A forward pass may write to tensors, set attributes of modules and draw random numbers. Such changes go to copies or
are undone, so that both streams start from the same state and the model ends in it.
"""

import collections
import contextlib
import functools
import operator
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils import _pytree as pytree

from deeplift_fast.core.generators import RandomState
from deeplift_fast.errors import TrainingModeWarning, warn

# Calls that write to running statistics in training mode, and the position of the flag for it.
_STATISTICS = {"batch_norm", "instance_norm", "native_batch_norm"}
_TRAINING = 5
_RENORMALISING = {"embedding", "embedding_bag"}
_MAX_NORM = 3


class Kept:
    """Tensors that must not change.

    Args:
        kept: tensors, and modules with their parameters, buffers and other tensor attributes. For a module that is
            isolated already, these are its tensors from before.
    """

    def __init__(self, kept: Iterable[nn.Module | Tensor]) -> None:
        self._tensors: list[Tensor] = []  # held, so that no other tensor gets their addresses
        for entry in kept:
            known = _in_use.get(id(entry))
            self._tensors.extend(known[0].tensors if known else _tensors(entry))
        self.storages = {pointer for tensor in self._tensors if (pointer := _storage_pointer(tensor))}
        self.of_inference = [tensor for tensor in self._tensors if tensor.is_inference()]


class ShadowState:
    """Stand-ins for the user's own tensors that a pass writes to.

    The first write to a kept tensor, or to a view of one, copies its storage. Later calls of the pass read and write
    the copy, gradients included. Tensors made in inference mode are copied at once, since autograd refuses them.

    Args:
        kept: the tensors that must not change.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._owned = kept.storages
        self._copies: dict[int, Tensor] = {}
        self._stand_ins: dict[int, tuple[Tensor, Tensor]] = {}
        self._copy_owned(kept.of_inference)

    def substitute(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, with copies in the place of written tensors."""
        if self._owned and _writes(func, args, kwargs):
            self._copy_owned(pytree.tree_leaves((args, kwargs)))
        if self._copies:
            args, kwargs = pytree.tree_map_only(Tensor, self._stand_in, (args, kwargs))
        return args, kwargs

    def _copy_owned(self, leaves: Iterable[Any]) -> None:
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                pointer = _storage_pointer(leaf)
                if pointer in self._owned and pointer not in self._copies:
                    copy = leaf.untyped_storage().clone()
                    self._copies[pointer] = torch.empty(0, dtype=leaf.dtype, device=leaf.device).set_(copy)

    def _stand_in(self, tensor: Tensor) -> Tensor:
        if id(tensor) in self._stand_ins:
            return self._stand_ins[id(tensor)][1]
        copy = self._copies.get(_storage_pointer(tensor))
        if copy is None:
            return tensor
        size, stride, offset = tensor.size(), tensor.stride(), tensor.storage_offset()
        if tensor.dtype == copy.dtype:
            with torch.enable_grad():  # autograd refuses later writes to a view that was made without it
                view = copy.as_strided(size, stride, offset)
        else:
            view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            view.set_(copy.untyped_storage(), offset, size, stride)
        self._stand_ins[id(tensor)] = (tensor, view)  # held, so that no other tensor gets its id
        return view


def modules_in(root: nn.Module) -> list[nn.Module]:
    """The module and its submodules, each once, in the order of `root.modules()`, which takes several times as long."""
    found: dict[nn.Module, None] = {}
    waiting = [root]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            if module._modules:
                waiting += [inner for inner in reversed(module._modules.values()) if inner is not None]
    return list(found)


def _tensors(entry: nn.Module | Tensor) -> list[Tensor]:
    return [entry] if isinstance(entry, Tensor) else _survey(modules_in(entry))[0]


def _survey(modules: Sequence[nn.Module]) -> tuple[list[Tensor], list[Any], list[Any]]:
    """The tensors among the attributes of modules and in their containers, and the filled and the empty containers."""
    tensors: list[Tensor] = []
    filled: list[Any] = [module.__dict__ for module in modules]
    empty: list[Any] = []
    # Plain values are most of them: to leave them out first saves a third of the time of a small model's survey.
    for value in [each for module in modules for each in module.__dict__.values() if type(each) not in _PLAIN]:
        if type(value) in _DICTS or isinstance(value, _CONTAINERS):
            if not value:  # hooks, for example
                empty.append(value)
                continue
            filled.append(value)
            inner = value.values() if isinstance(value, dict) else value
            tensors += [held for held in inner if isinstance(held, Tensor)]
        elif isinstance(value, Tensor):
            tensors.append(value)
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):  # its parameters and buffers are no Python attributes
            tensors += [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return tensors, filled, empty


def _storage_pointer(tensor: Tensor) -> int:
    """The address of a strided tensor's storage; 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


def _writes(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    always, name = _written_by(func)
    if always:
        return True
    if not name:
        return bool(kwargs) and (kwargs.get("out") is not None or kwargs.get("inplace") is True)
    if name in _STATISTICS:
        named = kwargs.get("training", kwargs.get("use_input_stats", True))
        return bool(args[_TRAINING] if len(args) > _TRAINING else named)
    return kwargs.get("max_norm") is not None or (len(args) > _MAX_NORM and args[_MAX_NORM] is not None)


@functools.cache
def _written_by(func: Callable[..., Any]) -> tuple[bool, str]:
    """Whether every call of an operation writes to an argument, and its name if other options than `out` decide."""
    name = getattr(func, "__name__", "")
    if isinstance(func, OpOverload | OpOverloadPacket):
        name = name.partition(".")[0]
        if _is_mutable(func):
            return True, name
    if name.endswith("_"):
        return not name.endswith("__") or name in ("__setitem__", "__set__") or name.startswith("__i"), ""
    return False, name if name in _STATISTICS or name in _RENORMALISING else ""


def _is_mutable(op: OpOverload | OpOverloadPacket) -> bool:
    if isinstance(op, OpOverload):
        return op._schema.is_mutable
    return any(getattr(op, name)._schema.is_mutable for name in op.overloads() if "out" not in name)


_CONTAINERS = (dict, list, set, collections.deque)
_DICTS = frozenset((dict, collections.OrderedDict))
_PLAIN = frozenset((bool, int, float, str, tuple, type(None)))


class _Attributes:
    """The attributes of a module and of its submodules, with the contents of containers and all `tensors`."""

    def __init__(self, root: nn.Module) -> None:
        modules = modules_in(root)
        self.tensors, self._filled, self._empty = _survey(modules)
        self._ends, self._entries = _contents(self._filled)
        self._scripted = [
            (buffer, buffer.clone())
            for module in modules
            if isinstance(module, torch.jit.ScriptModule) and module.training
            for buffer in module.buffers(recurse=False)
        ]

    def restore(self) -> None:
        ends, entries = _contents(self._filled)
        if ends != self._ends or not _same(entries, self._entries):  # quicker than one by one
            self._restore_filled()
        if any(self._empty):
            for container in self._empty:
                container.clear()
        if self._scripted:
            with torch.no_grad():
                for buffer, value in self._scripted:  # a pass does not see the writes of scripted code
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)

    def _restore_filled(self) -> None:
        start = 0
        for container, end in zip(self._filled, self._ends, strict=True):
            keys, values, start = self._entries[start:end], None, end
            if isinstance(container, dict):
                half = len(keys) // 2
                keys, values = keys[:half], keys[half:]
            # Copies are compared, since other threads may run the model at the same time.
            if not _same(list(container), keys):
                _restore(container, keys, values)
            elif values is not None and not _same(list(container.values()), values):
                container.update(zip(keys, values, strict=True))


def _contents(containers: list[Any]) -> tuple[list[int], list[Any]]:
    """The entries of all containers, of a dict its keys and then its values, and where each container's end in them."""
    ends: list[int] = []
    entries: list[Any] = []
    for container in containers:
        entries += container
        if isinstance(container, dict):
            entries += container.values()
        ends.append(len(entries))
    return ends, entries


def _restore(container: Any, keys: list[Any], values: list[Any] | None) -> None:
    """Put the entries of a container back, in their order; `values` is `None` if it is no dict."""
    if values is None:
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(keys)
        return
    saved = dict(zip(keys, values, strict=True))
    for key in set(container) - set(saved):
        container.pop(key, None)
    container.update(saved)
    if not _same([key for key in list(container) if key in saved], keys):
        container.clear()
        container.update(saved)


def _same(current: list[Any], saved: list[Any]) -> bool:
    return len(current) == len(saved) and all(map(operator.is_, current, saved))


@contextlib.contextmanager
def isolated(modules: Iterable[nn.Module], devices: Iterable[torch.device]) -> Iterator[Callable[[], None]]:
    """Restores the attributes of modules and the random number generators at the end.

    Meanwhile compiled code runs eagerly. Several threads may be inside: they share the state that the first one saved,
    and the last one restores it. Models with stochastic modules run one at a time, since they share generators.

    Args:
        modules: the modules to restore.
        devices: CUDA devices whose generators are restored.

    Yields:
        A function that restores everything early.
    """
    modules, devices = list(modules), sorted(devices, key=str)
    with contextlib.ExitStack() as stack:
        # torch 2.10 keeps an autocast's copies of weights that a pass without gradients made, and a backward fails.
        stack.callback(torch.clear_autocast_cache)
        if any(map(is_stochastic, modules)):
            stack.enter_context(_one_at_a_time)
        found = [stack.enter_context(_Shared(id(module), functools.partial(_Attributes, module))) for module in modules]
        draws = stack.enter_context(_Shared(("draws", *devices), lambda: RandomState(devices)))
        stack.enter_context(_Shared("stance", _EagerStance))

        def rewind() -> None:
            for attributes in found:
                attributes.restore()
            draws.restore()

        yield rewind


_one_at_a_time = threading.RLock()
_lock = threading.Lock()
_in_use: dict[Hashable, tuple[Any, int]] = {}


class _Shared:
    """The state that the first of overlapping calls saved; the last call restores it."""

    def __init__(self, key: Hashable, find: Callable[[], Any]) -> None:
        self._key, self._find = key, find

    def __enter__(self) -> Any:
        with _lock:
            state, users = _in_use.get(self._key) or (self._find(), 0)
            _in_use[self._key] = state, users + 1
        return state

    def __exit__(self, *_: object) -> None:
        with _lock:
            state, users = _in_use.pop(self._key)
            if users > 1:
                _in_use[self._key] = state, users - 1
            else:
                state.restore()


class _EagerStance:
    """Runs compiled code eagerly, since its operations cannot be intercepted."""

    def __init__(self) -> None:
        self._stance: Any = None
        if "torch._dynamo" in sys.modules:
            self._stance = torch.compiler.set_stance("force_eager")
            self._stance.__enter__()

    def restore(self) -> None:
        if self._stance is not None:
            self._stance.__exit__(None, None, None)


def warn_if_training(models: Iterable[nn.Module]) -> None:
    """Issue a TrainingModeWarning that names the stochastic modules in training mode."""
    for model in models:
        if is_stochastic(model):
            named = stochastic_modules(model)
            warn(
                f"{type(model).__name__} is in training mode; stochastic modules: {', '.join(named)}. Both streams see "
                "the same random draws and no statistics are updated, but the attributions are those of one draw. "
                "Call model.eval() first.",
                TrainingModeWarning,
            )


def warn_if_harmlessly_training(model: nn.Module) -> None:
    """Issue a TrainingModeWarning about a model in training mode without known stochastic modules."""
    if model.training and not is_stochastic(model):
        warn(
            f"{type(model).__name__} is in training mode; none of its modules is known to be stochastic. Call "
            "model.eval() first to be sure.",
            TrainingModeWarning,
        )


def is_stochastic(model: nn.Module) -> bool:
    """Whether there is a module in training mode whose output is random or depends on the batch."""
    return any(map(_varies, [module for module in modules_in(model) if module.training]))


def stochastic_modules(model: nn.Module) -> list[str]:
    """Name the modules in training mode whose output is random or depends on the batch, as `name (type)`."""
    return [
        f"{name or 'the model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if module.training and _varies(module)
    ]


def _varies(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    if isinstance(module, _InstanceNorm):
        return module.track_running_stats
    return isinstance(module, nn.RReLU | nn.FractionalMaxPool2d | nn.FractionalMaxPool3d | _BatchNorm)
