"""Kernels of the ops around the recurrence, compiled ahead of time: what they load, store, hold and spill."""

import importlib.util
from dataclasses import dataclass

import pytest
from compiled_kernels import (
    ARCHITECTURES,
    COMPILES,
    ITEMSIZE,
    NVIDIA,
    VECTOR,
    accesses,
    assert_spills_nothing,
    compiled,
    offsets,
)

if importlib.util.find_spec("triton") is not None:
    import torch

    from deeplift_fast.ops.triton import (
        convergence,
        gated_sum,
        gelu,
        layer_norm,
        log_mean_softmax,
    )
    from deeplift_fast.ops.triton import token_contributions as tokens
    from deeplift_fast.ops.triton.tiles import strips, tile

    TORCH = {"fp32": torch.float32, "fp64": torch.float64, "fp16": torch.float16, "bf16": torch.bfloat16}

pytestmark = COMPILES

WIDTH = 128  # of a row; PyHealth's default


@dataclass(frozen=True)
class Kernel:
    """A kernel as its launcher compiles it.

    Attributes:
        function: what `triton.jit` made.
        constants: its constexprs.
        numbers: arguments of the dtype computed with.
        wide: those that are kept in float32 for half types.
        integers: pointers to int64.
        booleans: pointers to bool.
        warps: of a program.
    """

    function: object
    constants: dict
    numbers: tuple
    wide: tuple = ()
    integers: tuple = ()
    booleans: tuple = ()
    warps: int = 4

    def compiled(self, dtype, widths=(), **options):
        wide = "fp64" if dtype == "fp64" else "fp32"
        types = dict.fromkeys(self.numbers, f"*{dtype}") | dict.fromkeys(self.wide, f"*{wide}")
        types |= dict.fromkeys(self.integers, "*i64") | dict.fromkeys(self.booleans, "*i1")
        rest = [name for name in self.function.arg_names if name not in {*types, *self.constants}]
        options = {"num_warps": self.warps, "aligned": ("size",), **options}
        return compiled(self.function, types | dict.fromkeys(rest, "i32") | dict(widths), self.constants, **options)


def gelu_kernel(dtype, secant=True):
    high, columns = strips(WIDTH, TORCH[dtype], 1)
    return Kernel(
        gelu._gelu_kernel,
        {"SECANT": secant, "ROWS": high, "COLUMNS": columns},
        ("x", "x0", "y", "multiplier"),
        integers=("where",),
    )


def layer_norm_kernel(dtype, half=0.5, width=WIDTH):
    high, wide, warps = tile(width, TORCH[dtype], 2)
    names = ("m", "x", "x0", "weight", "out")
    stats = ("average", "average0", "scale", "scale0")
    return Kernel(
        layer_norm._layer_norm_kernel,
        {"HALF": half, "ROWS": high, "COLUMNS": wide},
        names,
        stats,
        ("where",),
        warps=warps,
    )


def token_kernel(dtype, width=WIDTH):
    together, columns = strips(width, TORCH[dtype], tokens.ACCESSES)
    names = ("weight", "multipliers", "out")
    return Kernel(
        tokens._token_kernel,
        {"TOKENS": together, "COLUMNS": columns},
        names,
        integers=("tokens", "baseline"),
    )


def gate_kernel(dtype, half=0.5, variant="rescale"):
    names = ("a", "b", "c", "y", "multipliers")
    return Kernel(
        gated_sum._gate_kernel,
        {"VARIANT": variant, "HALF": half, "BLOCK": gated_sum.BLOCK_BYTES // ITEMSIZE[dtype]},
        names,
    )


def softmax_kernel(dtype, log=False, width=WIDTH):
    high, columns = strips(width, TORCH[dtype], log_mean_softmax.ACCESSES)
    return Kernel(
        log_mean_softmax._softmax_kernel,
        {"LOG": log, "ROWS": high, "COLUMNS": columns},
        ("z", "z0", "y", "mean"),
    )


def softmax_backward_kernel(dtype, width=WIDTH):
    high, columns = strips(width, TORCH[dtype], log_mean_softmax.ACCESSES)
    return Kernel(
        log_mean_softmax._backward_kernel,
        {"ROWS": high, "COLUMNS": columns},
        ("g", "mean", "out"),
    )


KERNELS = {
    "gelu": gelu_kernel,
    "layer norm": layer_norm_kernel,
    "tokens": token_kernel,
    "gate": gate_kernel,
    "softmax": softmax_kernel,
    "softmax backward": softmax_backward_kernel,
}
# Loads and stores of whole rows, 16 bytes at a time, for every walk along a row.
STREAMED = {
    "gelu": (2, 2), "layer norm": (3, 1), "tokens": (3, 0), "gate": (6, 4), "softmax": (4, 2),
    "softmax backward": (4, 1),
}  # fmt: skip
VARIANTS = {
    "derivative": lambda dtype: gelu_kernel(dtype, secant=False),
    "layer norm's gradient": lambda dtype: layer_norm_kernel(dtype, half=0.0),
    "a long layer norm": lambda dtype: layer_norm_kernel(dtype, width=2048),
    "long embeddings": lambda dtype: token_kernel(dtype, width=5000),
    "a gate's gradient": lambda dtype: gate_kernel(dtype, half=0.0),
    "a gate as PyHealth has it": lambda dtype: gate_kernel(dtype, half=0.0, variant="pyhealth"),
    "log_softmax": lambda dtype: softmax_kernel(dtype, log=True),
    "a long softmax": lambda dtype: softmax_kernel(dtype, width=5000),
    "a long softmax backward": lambda dtype: softmax_backward_kernel(dtype, width=5000),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ITEMSIZE)
@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_spills(kernel, dtype, architecture, tmp_path):
    assert_spills_nothing(KERNELS[kernel](dtype).compiled(dtype, architecture=architecture), tmp_path)


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variant_spills(variant, dtype, tmp_path):
    assert_spills_nothing(VARIANTS[variant](dtype).compiled(dtype), tmp_path)


@pytest.mark.parametrize("architecture", NVIDIA)
@pytest.mark.parametrize("dtype", ITEMSIZE)
@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_are_read_and_written_16_bytes_at_a_time(kernel, dtype, architecture):
    found = accesses(KERNELS[kernel](dtype).compiled(dtype, architecture=architecture))
    loads, stores = (found.count((kind, VECTOR[dtype])) for kind in ("ld", "st"))
    least_loads, least_stores = STREAMED[kernel]
    assert loads % least_loads == 0
    assert loads >= least_loads
    assert stores >= least_stores
    assert stores % max(least_stores, 1) == 0


@pytest.mark.parametrize("size", ["i32", "i64"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_offsets_are_64_bits_wide(kernel, size):
    made = KERNELS[kernel]("fp32")
    rest = {"rows", "size", "count"} & {*made.function.arg_names} - {*made.numbers}
    found = offsets(made.compiled("fp32", widths=dict.fromkeys(rest, size)))
    # A layer norm's weight is one row, whose columns int32 counts.
    assert found.count("i32") == (kernel == "layer norm")
    assert {*found} <= {"i32", "i64"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_float64_computes_in_nothing_less(kernel):
    assert "f32" not in KERNELS[kernel]("fp64").compiled("fp64").asm["ttir"]


def convergence_kernel(dtype, rescale, **options):
    types = dict.fromkeys(("output", "output0", "deltas"), f"*{dtype}") | dict.fromkeys(("totals", "figures"), "*fp64")
    types |= {"factors": "*fp64" if dtype == "fp64" else "*fp32", "fines": "*i1"}
    constants = {
        "RESCALE": rescale, "TOLERANCE": 0.01, "ROUNDING": 1e3 * torch.finfo(TORCH[dtype]).eps,
        "SMALLEST": convergence.RESCALE_EPS, "LARGEST": convergence.LARGEST_FACTOR,
        "SAMPLES": convergence.SAMPLES_AT_ONCE,
    }  # fmt: skip
    types |= {"features": "i32", "batch": "i32"}
    return compiled(convergence._convergence_kernel, types, constants, aligned=("batch",), **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ITEMSIZE)
@pytest.mark.parametrize("rescale", [True, False])
def test_the_sums_of_a_batch_spill_nothing(rescale, dtype, architecture, tmp_path):
    assert_spills_nothing(convergence_kernel(dtype, rescale, architecture=architecture), tmp_path)


@pytest.mark.parametrize("dtype", ITEMSIZE)
@pytest.mark.parametrize("rescale", [True, False])
def test_the_sums_of_a_batch_read_16_bytes_at_a_time(rescale, dtype):
    kernel = convergence_kernel(dtype, rescale)
    found = accesses(kernel)
    assert found.count(("ld", VECTOR["fp64"])) >= 2
    assert found.count(("st", VECTOR[dtype])) >= 1
    assert {*offsets(kernel)} == {"i64"}
