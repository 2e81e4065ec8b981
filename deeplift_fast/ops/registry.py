"""The registry: every op and its implementations, registered with PyTorch's dispatcher.

The naive implementation is the composite default, the C++ library takes the CPU key and Triton the CUDA key. So the
dispatcher chooses the backend by the tensors' device.
"""

import contextlib
import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.errors import BackendWarning
from deeplift_fast.ops import naive
from deeplift_fast.ops.checks import OPS, check, document, fake, schema
from deeplift_fast.ops.precision import in_full_precision
from deeplift_fast.ops.specs import NAMESPACE, stem_of
from deeplift_fast.ops.values import VALUES

# Stems whose implementations may call PyTorch's products.
PRODUCTS = ("recurrent", "lockstep", "attention", "token_layers", "few_rows")
SCHEMAS = {name: schema(op, naive.FUNCTIONS[name]) for name, op in OPS.items()}


@dataclass(frozen=True)
class Backend:
    """One family of implementations.

    Attributes:
        name: `"naive"`, `"C++"` or `"Triton"`.
        device: the device type that it serves, or `"any"`.
        missing: the reason why it is missing, or `None`.
    """

    name: str
    device: str
    missing: str | None = None


_library = torch.library.Library(NAMESPACE, "DEF")
_backends: dict[str, Backend] = {"naive": Backend("naive", "any")}


def backends() -> list[Backend]:
    """Every backend, present or missing.

    Example:
        >>> from deeplift_fast import ops
        >>> [backend.name for backend in ops.backends()]
        ['naive', 'C++', 'Triton']
    """
    return list(_backends.values())


def backend_for(op: str, device: str) -> str:
    """The backend that the dispatcher picks.

    Args:
        op: a name in `SCHEMAS`.
        device: a device type, such as `"cpu"`.

    Returns:
        The backend's name.

    Raises:
        KeyError: if there is no such op.

    Example:
        >>> from deeplift_fast import ops
        >>> ops.backend_for("secant", "meta")
        'naive'
    """
    if op not in SCHEMAS:
        raise KeyError(f"op is {op!r}; accepted: {', '.join(SCHEMAS)}")
    by_key = {"cpu": ("CPU", "C++"), "cuda": ("CUDA", "Triton")}
    if device in by_key:
        key, name = by_key[device]
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{op}", key):
            return name
    return "naive"


def overload(op: str) -> Any:
    """The operator of an op, a name in `SCHEMAS`, in PyTorch's dispatcher."""
    return getattr(getattr(torch.ops, NAMESPACE), op).default


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The public function of an op: it checks the arguments, then calls the dispatcher."""
    op, run = OPS[function.__name__], overload(function.__name__)
    values = VALUES.get(op.name)
    names, defaults = op.arguments, function.__defaults__ or ()

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        given = args if len(args) == len(names) and not named else _in_order(op.name, names, defaults, args, named)
        sizes = check(op, given)
        if values is not None:
            values(sizes, *given)
        return run(*given)

    call.__doc__ = document(op, function)
    return call


def _in_order(
    op: str, names: tuple[str, ...], defaults: tuple[Any, ...], args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, ...]:
    left = len(names) - len(args)
    if not named and 0 <= left <= len(defaults):
        return args + defaults[len(defaults) - left :]
    known, values = names[len(args) :], dict(zip(reversed(names), reversed(defaults), strict=False)) | named
    if left < 0 or any(name not in known for name in named) or any(name not in values for name in known):
        raise TypeError(f"{op}() got {len(args)} arguments by position and {list(named)} by name; accepted: {names}")
    return args + tuple(values[name] for name in known)


def release_memory() -> int:
    """Give the memory that the C++ kernels keep for results, up to 512 MiB, back to the system.

    Returns:
        The number of bytes.

    Example:
        >>> from deeplift_fast import ops
        >>> ops.release_memory() >= 0
        True
    """
    if _backends["C++"].missing is not None:
        return 0
    return int(importlib.import_module("deeplift_fast._C").release_memory())


def checksum(tensor: Tensor) -> int | None:
    """A number that depends on every bit of a tensor on the CPU, and on its place.

    A change of a single 4-byte word always changes it, any other change with a probability of about 1 − 2⁻³². It costs
    one reading of the memory.

    Args:
        tensor: any dtype and shape; one that is not contiguous is copied.

    Returns:
        The number; `None` without the C++ library, and for a tensor without memory of its own: one of a subclass that
        wraps others, of `torch.func` or of the meta device.
    """
    if _backends["C++"].missing is not None:
        return None
    try:
        dense = tensor.detach().contiguous()
        address = dense.data_ptr()
    except RuntimeError:
        return None
    if address == 0 and dense.numel():
        return None
    found: int = importlib.import_module("deeplift_fast._C").checksum(address, dense.nbytes)
    return found


@contextlib.contextmanager
def fresh_memory() -> Iterator[None]:
    """Meanwhile PyTorch allocates the results of the C++ kernels in all threads, and its profiler counts them."""
    if _backends["C++"].missing is not None:
        yield
        return
    library = importlib.import_module("deeplift_fast._C")
    kept = library.keep_memory(False)
    try:
        yield
    finally:
        library.keep_memory(kept)


def _load_cpp() -> None:
    missing = None
    try:
        importlib.import_module("deeplift_fast._C")
    except ImportError as error:
        missing = f"the C++ library is missing ({error}); install a C++20 compiler and reinstall deeplift_fast"
        warnings.warn(f"deeplift_fast runs on plain torch on the CPU: {missing}", BackendWarning, stacklevel=2)
    _backends["C++"] = Backend("C++", "cpu", missing)


def _register_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        _backends["Triton"] = Backend("Triton", "cuda", "the package triton is not installed")
        return
    _backends["Triton"] = Backend("Triton", "cuda")
    for op in SCHEMAS:
        if importlib.util.find_spec(f"deeplift_fast.ops.triton.{stem_of(op)}") is not None:
            _library.impl(op, _triton_kernel(op), "CUDA")


def _triton_kernel(op: str) -> Callable[..., Any]:
    """A kernel that imports its launcher at the first call, since the import of Triton is slow."""
    return _in_full(op, _below_autograd(lambda *args: _launcher(op)(*args)))


def _in_full(op: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel, with float32's precision in PyTorch's products."""
    return in_full_precision(kernel) if stem_of(op) in PRODUCTS else kernel


def _launcher(op: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"deeplift_fast.ops.triton.{stem_of(op)}"), op)


def _below_autograd(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel whose results carry no gradient, since the rules above it define gradients."""

    @functools.wraps(kernel)
    def call(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return kernel(*args)

    return call


def _guarded(name: str) -> Callable[..., Any]:
    """The naive implementation with checks of its arguments, for raw calls of `torch.ops`."""
    op, function, values = OPS[name], naive.FUNCTIONS[name], VALUES.get(name)

    def kernel(*given: Any) -> Any:
        sizes = check(op, given)
        if values is not None:
            values(sizes, *given)
        return function(*given)

    return _in_full(name, _below_autograd(kernel))


def _define() -> None:
    for name, text in SCHEMAS.items():
        _library.define(text)
        _library.impl(name, _guarded(name), "CompositeExplicitAutograd")
        # Autograd has nothing to do: C++ kernels write into new tensors, and the others run below it.
        _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake(OPS[name]), lib=_library)


_define()
_load_cpp()
_register_triton()
FUNCTIONS = {op: checked(function) for op, function in naive.FUNCTIONS.items()}
UNCHECKED = SimpleNamespace(**{op: overload(op) for op in SCHEMAS})
"""The ops without the checks in Python, for code that has just made the shapes. Every argument must be given."""
