"""The Triton kernel compiled ahead of time, which takes no GPU: what it loads, stores and spills."""

import importlib.util
import itertools
import os
import re
import subprocess

import pytest

if importlib.util.find_spec("triton") is not None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from deeplift_fast.ops.triton.secant import BLOCK_BYTES, _secant_kernel

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter does not compile"),
]

FUNCTIONS = ("relu", "sigmoid", "tanh")
VARIANTS = ("rescale", "pyhealth")
ITEMSIZE = {"fp32": 4, "fp64": 8, "fp16": 2, "bf16": 2}
VECTOR = {"fp32": "v4.b32", "fp64": "v2.b64", "fp16": "v4.b32", "bf16": "v4.b32"}  # 16 bytes each
CASES = [*itertools.product(FUNCTIONS, VARIANTS, ITEMSIZE)]
MAX_REGISTERS = 128  # of 65,536: four programs of 128 threads at a time at least


def compiled(function, variant, dtype, *, backend="cuda", architecture=90, size="i32"):
    names = _secant_kernel.arg_names
    tensors, constants = names[:5], names[6:]
    values = (function, variant, BLOCK_BYTES // ITEMSIZE[dtype])
    source = ASTSource(
        _secant_kernel,
        signature=dict.fromkeys(tensors, f"*{dtype}") | {"size": size} | dict.fromkeys(constants, "constexpr"),
        constexprs=dict(zip(constants, values, strict=True)),
        attrs={(index,): [["tt.divisibility", 16]] for index in range(6)},  # every tensor, and size
    )
    target = GPUTarget(backend, architecture, 32 if backend == "cuda" else 64)
    return triton.compile(source, target=target, options={"num_warps": 4})


def resources(kernel, path):
    """Registers, and bytes of stack and local memory: where spilled registers go."""
    path.write_bytes(kernel.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
    usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))


def assert_is_lean(kernel, dtype, path):
    accesses = re.findall(r"\b(ld|st)\.global\.(\S+)", kernel.asm["ptx"])
    assert accesses == [("ld", VECTOR[dtype])] * 2 + [("st", VECTOR[dtype])] * 3
    registers, stack, local = resources(kernel, path)
    assert registers <= MAX_REGISTERS
    assert stack == local == 0


@pytest.mark.parametrize(("function", "variant", "dtype"), CASES)
def test_hopper(function, variant, dtype, tmp_path):
    assert_is_lean(compiled(function, variant, dtype), dtype, tmp_path / "secant.cubin")


@pytest.mark.parametrize("architecture", [80, 100, 120])
@pytest.mark.parametrize("dtype", ITEMSIZE)
def test_other_nvidia_architectures(architecture, dtype, tmp_path):
    kernel = compiled("tanh", "rescale", dtype, architecture=architecture)
    assert_is_lean(kernel, dtype, tmp_path / "secant.cubin")


@pytest.mark.parametrize(("function", "variant"), [*itertools.product(FUNCTIONS, VARIANTS)])
def test_amd(function, variant):
    assembly = compiled(function, variant, "fp32", backend="hip", architecture="gfx942").asm["amdgcn"]
    assert re.search(r"\.vgpr_spill_count: +0\b", assembly)
    assert re.search(r"\.private_segment_fixed_size: +0\b", assembly)


@pytest.mark.parametrize(("function", "variant"), [*itertools.product(FUNCTIONS, VARIANTS)])
def test_float64_computes_in_nothing_less(function, variant):
    assert "f32" not in compiled(function, variant, "fp64").asm["ttir"]


def test_hardware_exponential_is_not_used():
    for function in ("sigmoid", "tanh"):
        assert "ex2.approx" not in compiled(function, "rescale", "fp32").asm["ptx"]


@pytest.mark.parametrize("size", ["i32", "i64"])
def test_offsets_are_64_bits_wide(size):
    offsets = re.findall(
        r"tt\.addptr .*, tensor<\d+x(i\d+)>", compiled("relu", "rescale", "fp32", size=size).asm["ttir"]
    )
    assert offsets == ["i64"] * 5
