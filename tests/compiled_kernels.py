"""Triton kernels compiled ahead of time, which takes no GPU: what they load, store, hold and spill."""

import collections
import importlib.util
import os
import re
import subprocess

import pytest

if importlib.util.find_spec("triton") is not None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

COMPILES = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter does not compile"),
]
NVIDIA, AMD = ("sm_80", "sm_90", "sm_100"), "gfx942"
ARCHITECTURES = (*NVIDIA, AMD)
ITEMSIZE = {"fp32": 4, "fp64": 8, "fp16": 2, "bf16": 2}
VECTOR = {"fp32": "v4.b32", "fp64": "v2.b64", "fp16": "v4.b32", "bf16": "v4.b32"}  # 16 bytes each
MAX_REGISTERS = 128  # of 65,536: four programs of 128 threads at a time at least
MOST_REGISTERS = 255  # of a thread that holds sums of products: as many as it can have
SHARED_MEMORY = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, AMD: 64 << 10}  # bytes of a program


def compiled(function, types, constants, *, architecture="sm_90", aligned=(), num_warps=4, **options):
    """A kernel as compiled for an architecture.

    Args:
        function: what `triton.jit` made.
        types: of each argument that is no constexpr: `"*fp32"` a pointer, `"i64"`, `"fp32"`, or a tuple of these.
        constants: the value of each constexpr.
        architecture: one of `ARCHITECTURES`, or another `"sm_…"`.
        aligned: the numbers that are multiples of 16, as every pointer is.
        num_warps: of a program.
        **options: others of the compiler.
    """
    names = function.arg_names
    assert {*types, *constants} == {*names}, "types and constants must name every argument"
    source = ASTSource(
        function,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs=constants,
        attrs={
            place: [["tt.divisibility", 16]]
            for name, kinds in types.items()
            for place, kind in _places(names.index(name), kinds)
            if kind.startswith("*") or name in aligned
        },
    )
    nvidia = architecture.startswith("sm_")
    target = GPUTarget(*(("cuda", int(architecture[3:]), 32) if nvidia else ("hip", architecture, 64)))
    return triton.compile(source, target=target, options={"num_warps": num_warps, **options})


def _places(at, kinds):
    """The place of each type among the arguments."""
    return [((at,), kinds)] if isinstance(kinds, str) else [((at, i), kind) for i, kind in enumerate(kinds)]


def resources(kernel, folder):
    """Registers of a thread, and its bytes of stack and of local memory, where spilled registers go."""
    path = folder / "kernel.cubin"
    path.write_bytes(kernel.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
    usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))


def accesses(kernel):
    """Every load and store of global memory, in the order of the PTX: `("ld", "v4.b32")`."""
    return re.findall(r"\b(ld|st)\.global(?:\.(?:L1|L2|nc)::\w+|\.nc)*\.(\S+)", kernel.asm["ptx"])


def offsets(kernel):
    """The integer type of each tensor of offsets into memory."""
    return re.findall(r"tt\.addptr .*, tensor<[\dx]+x(i\d+)>", kernel.asm["ttir"])


def loads(kernel):
    """How often each shape of tensor is loaded in the source of a kernel: `{"64x16": 2}`."""
    return collections.Counter(re.findall(r"tt\.load .*tensor<([\dx]+)x!tt\.ptr", kernel.asm["ttir"]))


def assert_fits(kernel, architecture):
    """The device has the shared memory of a program."""
    assert kernel.metadata.shared <= SHARED_MEMORY[architecture]


def assert_spills_nothing(kernel, folder, registers=MAX_REGISTERS):
    """No register goes to memory, and no NVIDIA thread needs more than `registers`."""
    if "amdgcn" in kernel.asm:
        assert re.search(r"\.vgpr_spill_count: +0\b", kernel.asm["amdgcn"])
        assert re.search(r"\.private_segment_fixed_size: +0\b", kernel.asm["amdgcn"])
    else:
        found, stack, local = resources(kernel, folder)
        assert stack == local == 0
        assert found <= registers
