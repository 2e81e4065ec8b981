"""The secant kernel compiled ahead of time: what it loads, stores and spills."""

import importlib.util
import itertools

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
    from deeplift_fast.ops.triton.secant import BLOCK_BYTES, _secant_kernel

pytestmark = COMPILES

FUNCTIONS = ("relu", "sigmoid", "tanh")
VARIANTS = ("rescale", "pyhealth")
TENSORS = ("x", "x0", "y", "y0", "multiplier")


def secant(function, variant, dtype, *, size="i32", without=(), **options):
    constants = {"FUNCTION": function, "VARIANT": variant, "BLOCK": BLOCK_BYTES // ITEMSIZE[dtype]}
    return compiled(
        _secant_kernel,
        {name: f"*{dtype}" for name in TENSORS if name not in without} | {"size": size},
        constants | dict.fromkeys(without),
        aligned=("size",),
        **options,
    )


@pytest.mark.parametrize(("function", "variant", "dtype"), [*itertools.product(FUNCTIONS, VARIANTS, ITEMSIZE)])
def test_every_form_on_hopper(function, variant, dtype, tmp_path):
    kernel = secant(function, variant, dtype)
    assert_spills_nothing(kernel, tmp_path)
    assert accesses(kernel) == [("ld", VECTOR[dtype])] * 2 + [("st", VECTOR[dtype])] * 3


@pytest.mark.parametrize("architecture", [*NVIDIA, "sm_120"])
@pytest.mark.parametrize("dtype", ITEMSIZE)
def test_every_nvidia_architecture(architecture, dtype, tmp_path):
    kernel = secant("tanh", "rescale", dtype, architecture=architecture)
    assert_spills_nothing(kernel, tmp_path)
    assert accesses(kernel) == [("ld", VECTOR[dtype])] * 2 + [("st", VECTOR[dtype])] * 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("function", "variant"), [*itertools.product(FUNCTIONS, VARIANTS)])
def test_every_function_on_every_architecture(function, variant, architecture, tmp_path):
    assert_spills_nothing(secant(function, variant, "fp32", architecture=architecture), tmp_path)


@pytest.mark.parametrize(("function", "variant"), [*itertools.product(FUNCTIONS, VARIANTS)])
def test_float64_computes_in_nothing_less(function, variant):
    assert "f32" not in secant(function, variant, "fp64").asm["ttir"]


def test_hardware_exponential_is_not_used():
    for function in ("sigmoid", "tanh"):
        assert "ex2.approx" not in secant(function, "rescale", "fp32").asm["ptx"]


@pytest.mark.parametrize("size", ["i32", "i64"])
def test_offsets_are_64_bits_wide(size):
    assert offsets(secant("relu", "rescale", "fp32", size=size)) == ["i64"] * 5


@pytest.mark.parametrize("dtype", ITEMSIZE)
def test_what_nobody_reads_is_not_written(dtype):
    kernel = secant("tanh", "rescale", dtype, without=("y0",))
    assert accesses(kernel) == [("ld", VECTOR[dtype])] * 2 + [("st", VECTOR[dtype])] * 2
