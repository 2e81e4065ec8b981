"""Registers every op and its implementations with PyTorch's dispatcher, and knows which are there.

The naive implementation is the composite default, the C++ library takes the CPU key and Triton the CUDA key, so
the dispatcher chooses the backend by the tensors' device.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.ops import arguments, naive
from deeplift_fast.ops.requirements import computed
from deeplift_fast.ops.schema import NAMESPACE, SCHEMAS

ON_CUDA = (  # ops with a Triton kernel; the others run in plain torch there
    "secant",
    "recurrent",
    "recurrent_backward",
    "lockstep",
    "lockstep_backward",
    "stage_window",
    "stage_window_backward",
    "attention",
    "attention_backward",
    "gelu",
    "layer_norm_backward",
    "log_mean_softmax",
    "log_mean_softmax_backward",
    "token_contributions",
    "gated_sum",
    "convergence",
)
_MODULES = {"log_mean_softmax_backward": "log_mean_softmax"}  # where it is not named after the op


class BackendWarning(UserWarning):
    """A compiled backend is missing: results are the same, and slower."""


@dataclass(frozen=True)
class Backend:
    """One family of implementations.

    Attributes:
        name: `"naive"`, `"C++"` or `"Triton"`.
        device: the device type it serves, or `"any"`.
        missing: why it is not there, or `None`.
    """

    name: str
    device: str
    missing: str | None = None


_library = torch.library.Library(NAMESPACE, "DEF")
_backends: dict[str, Backend] = {"naive": Backend("naive", "any")}


def backends() -> list[Backend]:
    """Every backend, present or missing."""
    return list(_backends.values())


def backend_for(op: str, device: str) -> str:
    """The name of the backend that the dispatcher picks for `op` (a name in `SCHEMAS`) on a device type.

    Raises:
        KeyError: if there is no such op.
    """
    if op not in SCHEMAS:
        raise KeyError(f"op is {op!r}; accepted: {', '.join(SCHEMAS)}")
    by_key = {"cpu": ("CPU", "C++"), "cuda": ("CUDA", "Triton")}
    if device in by_key:
        key, name = by_key[device]
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{op}", key):
            return name
    return "naive"


def overload(stem: str) -> Any:
    """What calls an op (a name in `SCHEMAS`) through the dispatcher."""
    return getattr(getattr(torch.ops, NAMESPACE), stem).default


def release_memory() -> int:
    """Give the memory that the C++ kernels keep for results, up to 512 MiB, back to the system; its bytes."""
    if _backends["C++"].missing is not None:
        return 0
    return int(importlib.import_module("deeplift_fast._C").release_memory())


def _load_cpp() -> None:
    missing = None
    try:
        importlib.import_module("deeplift_fast._C")
    except ImportError as error:
        missing = f"the C++ library is not there ({error}); install a C++20 compiler and reinstall deeplift_fast"
        warnings.warn(f"deeplift_fast runs on plain torch on the CPU: {missing}", BackendWarning, stacklevel=2)
    _backends["C++"] = Backend("C++", "cpu", missing)


def _register_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        _backends["Triton"] = Backend("Triton", "cuda", "the package triton is not installed")
        return
    _backends["Triton"] = Backend("Triton", "cuda")
    for stem in ON_CUDA:
        _library.impl(stem, _triton_kernel(stem), "CUDA")


def _triton_kernel(stem: str) -> Callable[..., Any]:
    """Imports the launcher at its first call: importing Triton takes a while, and only CUDA needs it."""

    def launch(*args: Any) -> Any:
        return _launcher(stem)(*args)

    return launch


def _launcher(stem: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"deeplift_fast.ops.triton.{_MODULES.get(stem, stem)}"), stem)


def _below_autograd(stem: str) -> Callable[..., Any]:
    """Results carry no gradient: an op claims no derivative, the rules above it do."""
    op = overload(stem)

    def kernel(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    return kernel


def _define() -> None:
    for stem, schema in SCHEMAS.items():
        _library.define(schema)
        _library.impl(stem, getattr(naive, stem), "CompositeExplicitAutograd")
        _library.impl(stem, _below_autograd(stem), "Autograd")


def _fake_secant(x: Tensor, x0: Tensor, function: str, variant: str) -> tuple[Tensor, Tensor, Tensor]:
    arguments.check_secant(x, x0, function, variant)
    return torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)


def _fake_recurrent(u: Tensor, u0: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    bias, levels = rest[5], rest[10]
    units = bias.shape[0] * bias.shape[2]
    shapes = ((len(u), units), (len(u0), units), (len(u), 2 * levels), (len(u0), 2 * levels))
    return tuple(u.new_empty(shape) for shape in shapes)


def _fake_recurrent_backward(m_h: Tensor, *rest: Any) -> Tensor:
    quarter, inputs = rest[4].shape[-1] // 4, rest[-1]
    return m_h.new_empty(len(m_h), -(-inputs // quarter) * quarter)


def _fake_lockstep(
    projected: Tensor, where: Tensor, steps: list[int], weight: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    rows, levels = len(rest[1]), rest[2]
    return tuple(projected.new_empty(rows, size) for size in (weight.shape[1], weight.shape[1], 2 * levels, 2 * levels))


def _fake_lockstep_backward(m_h: Tensor, *rest: Any) -> Tensor:
    return m_h.new_empty(len(m_h), rest[-2].shape[2])


def _fake_stage_window(h: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    (samples, window), hidden = rest[7].shape, rest[-1]
    shapes = ((samples, window, hidden), (samples, hidden), (samples, hidden), (samples, window))
    return tuple(h.new_empty(2, *shape) for shape in shapes)


def _fake_stage_window_backward(
    m_local: Tensor, m_mean: Tensor, m_last: Tensor, h: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    total, levels, _ = rest[-3:]
    return h.new_empty(h.shape), h.new_empty(total, levels)


def _fake_token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> Tensor:
    return weight.new_empty(tokens.shape)


def _fake_attention(asked: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    heads, pairs = len(asked), rest[-1]
    return torch.empty_like(asked), asked.new_empty(heads * pairs, dtype=computed(asked.dtype))


def _fake_attention_backward(m: Tensor, asked: Tensor, asked0: Tensor, rows: Tensor, *rest: Any) -> tuple:
    return torch.empty_like(asked), torch.empty_like(rows)


def _fake_gelu(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


def _fake_gated_sum(a: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(a), torch.empty_like(a)


def _fake_convergence(totals: Tensor, output: Tensor, output0: Tensor, rescale: bool, *rest: Any) -> tuple[Tensor, ...]:
    batch = len(output)
    parts = -(-batch // arguments.SAMPLES_AT_ONCE) if output.is_cuda else 1
    factor = output.new_empty(batch if rescale else 0, dtype=computed(output.dtype))
    fine = torch.empty_like(output, dtype=torch.bool)
    return torch.empty_like(output), factor, fine, totals.new_empty(parts, 3)


def _fake_layer_norm_backward(m: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


_define()
_load_cpp()
_register_triton()
torch.library.register_fake(f"{NAMESPACE}::secant", _fake_secant, lib=_library)
for _stem, _fake in (
    ("recurrent", _fake_recurrent),
    ("recurrent_backward", _fake_recurrent_backward),
    ("lockstep", _fake_lockstep),
    ("lockstep_backward", _fake_lockstep_backward),
    ("stage_window", _fake_stage_window),
    ("stage_window_backward", _fake_stage_window_backward),
    ("attention", _fake_attention),
    ("attention_backward", _fake_attention_backward),
    ("gelu", _fake_gelu),
    ("layer_norm_backward", _fake_layer_norm_backward),
    ("log_mean_softmax", naive.log_mean_softmax),
    ("log_mean_softmax_backward", naive.log_mean_softmax_backward),
    ("token_contributions", _fake_token_contributions),
    ("gated_sum", _fake_gated_sum),
    ("convergence", _fake_convergence),
):
    torch.library.register_fake(f"{NAMESPACE}::{_stem}", _fake, lib=_library)
