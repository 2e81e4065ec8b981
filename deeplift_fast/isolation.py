"""Keeps a call's side effects away from the user's model and from the process.

What a forward pass may change (buffers and parameters written in place, attributes set on modules, random number
generators, compiled code) is redirected or put back, so that both streams start alike and nothing is left behind.
"""

import contextlib
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# Calls that write to running statistics without an in-place name.
_STATISTICS = {"batch_norm", "instance_norm"}
_RENORMALISING = {"embedding", "embedding_bag"}
_MAX_NORM = 3  # its position in the signature of both


class ShadowState:
    """Stand-ins for the model's own tensors that a pass writes to.

    The first write to a parameter or buffer (or to a view of one) copies its storage; from then on every call of
    the pass reads and writes the copy. A pass that writes to none pays for the look-up of a name.

    Args:
        modules: the modules whose parameters and buffers must not change.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(modules)
        self._owned: set[int] | None = None
        self._copies: dict[int, torch.UntypedStorage] = {}

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`func(*args, **kwargs)` with the model's written tensors replaced by their copies."""
        if self._modules and _writes(func, args, kwargs):
            self._copy_owned(pytree.tree_leaves((args, kwargs)))
        if self._copies:
            args, kwargs = pytree.tree_map_only(Tensor, self._substitute, (args, kwargs))
        return func(*args, **kwargs)

    def _copy_owned(self, leaves: Iterable[Any]) -> None:
        if self._owned is None:
            tensors = (t for m in self._modules for t in (*m.parameters(), *m.buffers()))
            self._owned = {pointer for t in tensors if (pointer := _storage_pointer(t))}
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                pointer = _storage_pointer(leaf)
                if pointer in self._owned and pointer not in self._copies:
                    self._copies[pointer] = leaf.untyped_storage().clone()

    def _substitute(self, tensor: Tensor) -> Tensor:
        copy = self._copies.get(_storage_pointer(tensor))
        if copy is None:
            return tensor
        view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return view.set_(copy, tensor.storage_offset(), tensor.size(), tensor.stride())


def _storage_pointer(tensor: Tensor) -> int:
    """The address of a strided tensor's storage; 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


def _writes(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    if name.endswith("_"):
        return not name.endswith("__") or name == "__setitem__" or name.startswith("__i")
    if name in _STATISTICS:
        return True
    if name in _RENORMALISING:
        return kwargs.get("max_norm") is not None or (len(args) > _MAX_NORM and args[_MAX_NORM] is not None)
    return kwargs.get("out") is not None or kwargs.get("inplace") is True


class _Attributes:
    """What the attributes of a module and of those inside it were, shallowly."""

    def __init__(self, root: nn.Module) -> None:
        self.users = 0
        self._saved = []
        for module in root.modules():
            state = dict(module.__dict__)
            inner = {key: dict(state[key]) for key in ("_buffers", "_parameters", "_modules") if key in state}
            self._saved.append((module, state, inner))

    def restore(self) -> None:
        for module, state, inner in self._saved:
            _restore_dict(module.__dict__, state)
            for key, entries in inner.items():
                _restore_dict(state[key], entries)


def _restore_dict(current: dict[str, Any], saved: dict[str, Any]) -> None:
    if len(current) == len(saved) and all(current.get(key, current) is value for key, value in saved.items()):
        return
    for key in [key for key in current if key not in saved]:
        del current[key]
    current.update(saved)


_attributes: "weakref.WeakKeyDictionary[nn.Module, _Attributes]" = weakref.WeakKeyDictionary()
_attributes_lock = threading.Lock()


@contextlib.contextmanager
def preserved_attributes(modules: Iterable[nn.Module]) -> Iterator[Callable[[], None]]:
    """Puts back, at the end, the attributes that modules set on themselves; yields a function that does so early.

    Threads that use one model at once share the state found by the first, and the last one's end restores it.
    """
    with contextlib.ExitStack() as stack:
        saved = [stack.enter_context(_preserved(module)) for module in modules]

        def restore() -> None:
            for attributes in saved:
                attributes.restore()

        yield restore


@contextlib.contextmanager
def _preserved(module: nn.Module) -> Iterator[_Attributes]:
    with _attributes_lock:
        if module not in _attributes:
            _attributes[module] = _Attributes(module)
        saved = _attributes[module]
        saved.users += 1
    try:
        yield saved
    finally:
        with _attributes_lock:
            saved.restore()
            saved.users -= 1
            if saved.users == 0:
                del _attributes[module]


class RandomState:
    """The state of every generator that a model may draw from: torch (CPU and the given devices), numpy, random.

    Args:
        devices: CUDA devices whose generators count.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._devices = list(devices)
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002 - the legacy generator is the one that models draw from
        self._cpu = torch.get_rng_state()
        self._cuda = [torch.cuda.get_rng_state(device) for device in self._devices]

    def restore(self) -> None:
        """Set every generator back to this state."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._cpu)
        for device, state in zip(self._devices, self._cuda, strict=True):
            torch.cuda.set_rng_state(state, device)


_eager_lock = threading.Lock()
_eager_users = 0
_eager_stance: Any = None


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Runs what was compiled by `torch.compile` as written: interception cannot look into compiled code.

    PyTorch's stance is one for the whole process, so the last of several threads puts it back.
    """
    global _eager_users, _eager_stance
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _eager_lock:
        if _eager_users == 0:
            _eager_stance = torch.compiler.set_stance("force_eager")
            _eager_stance.__enter__()
        _eager_users += 1
    try:
        yield
    finally:
        with _eager_lock:
            _eager_users -= 1
            if _eager_users == 0:
                _eager_stance.__exit__(None, None, None)
                _eager_stance = None
