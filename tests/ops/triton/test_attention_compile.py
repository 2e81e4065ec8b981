"""Attention's kernels compiled ahead of time: their products, registers, shared memory and loads."""

import importlib.util
import re

import pytest
from compiled_kernels import AMD, ARCHITECTURES, COMPILES, accesses, compiled, resources

if importlib.util.find_spec("triton") is not None:
    import torch

    from deeplift_fast.ops.checks import computed
    from deeplift_fast.ops.triton import attention
    from deeplift_fast.ops.triton.tiles import products

    TORCH = {"fp32": torch.float32, "fp64": torch.float64, "fp16": torch.float16, "bf16": torch.bfloat16}

pytestmark = COMPILES

WIDTH = 128  # of a row; PyHealth's default
SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, AMD: 64 << 10}  # bytes of a program at most
PRODUCT = {
    "fp32": r"mma\.sync\.aligned\.m16n8k8\.row\.col\.f32\.tf32\.tf32\.f32",
    "fp64": r"mma\.sync\.aligned\.m\d+n8k\d+\.row\.col\.f64",
}
PRODUCT |= dict.fromkeys(("fp16", "bf16"), PRODUCT["fp32"])
PRODUCT_OF_AMD = {"fp32": "v_mfma_f32_16x16x4_f32", "fp64": "v_mfma_f64_16x16x4_f64"}
KERNELS = ("attention", "groups", "rows")
NUMBERS = ("m", "mixed", "m_asked", "m_rows")
CASES = [
    *((kernel, "fp32", architecture) for kernel in KERNELS for architecture in ARCHITECTURES),
    *((kernel, "fp64", architecture) for kernel in KERNELS for architecture in ARCHITECTURES),
    *((kernel, "bf16", "sm_90") for kernel in KERNELS),
    ("groups", "fp16", "sm_80"),
]


def kernel_of(name, dtype, architecture="sm_90", half=0.5, width=WIDTH, size="i32"):
    function = getattr(attention, f"_{name}_kernel")
    constants = attention.constants_of(TORCH[dtype], width)
    options = products(computed(TORCH[dtype]), architecture != AMD) | {"num_stages": 1}
    constants["PRECISION"] = options.pop("PRECISION")
    if name != "attention":
        constants["HALF"] = half
    number, inner = f"*{dtype}", "*fp64" if dtype == "fp64" else "*fp32"
    stream = (number, number, "*i64", "*i64", "*i64", "*i1", "*i1", inner)
    kinds = dict.fromkeys(NUMBERS, number) | {"averages": inner, "where": "*i64", "stream": stream, "stream0": stream}
    types = {each: kinds.get(each, size) for each in function.arg_names if each not in constants}
    options["num_warps"] = 4 if name == "attention" else 8
    return compiled(function, types, constants, architecture=architecture, aligned=("width",), **options)


@pytest.mark.parametrize(("name", "dtype", "architecture"), CASES)
def test_products_on_tensor_cores_and_nothing_spilled(name, dtype, architecture, tmp_path):
    kernel = kernel_of(name, dtype, architecture)
    assert kernel.metadata.shared <= SHARED[architecture]
    if architecture == AMD:
        text = kernel.asm["amdgcn"]
        assert PRODUCT_OF_AMD[dtype] in text
        assert re.search(r"\.vgpr_spill_count: +0\b", text)
        assert re.search(r"\.private_segment_fixed_size: +0\b", text)
        return
    # Triton 3.6 has no product of float64 on tensor cores for sm_100.
    assert re.search(PRODUCT[dtype], kernel.asm["ptx"]) or (dtype, architecture) == ("fp64", "sm_100")
    assert resources(kernel, tmp_path)[1:] == (0, 0)


@pytest.mark.parametrize("name", ["groups", "rows"])
def test_the_gradient_spills_nothing(name, tmp_path):
    assert resources(kernel_of(name, "fp32", half=0.0), tmp_path)[1:] == (0, 0)


# Tiles of numbers that a pair of blocks loads in parts of 16 columns, and those of all columns.
LOADS = {"attention": (2, 1), "groups": (5, 2), "rows": (5, 3)}


@pytest.mark.parametrize("name", KERNELS)
def test_a_pair_of_blocks_loads_each_tile_once_for_scores_and_once_for_results(name):
    kernel = kernel_of(name, "fp32")
    tiles = re.findall(r"tt\.load .*tensor<(\d+x\d+)x!tt\.ptr<f32>>", kernel.asm["ttir"])
    in_parts, whole = (sum(each.endswith(f"x{columns}") for each in tiles) for columns in (attention.DEPTH, WIDTH))
    assert (in_parts, whole) == LOADS[name]
    found = accesses(kernel)
    assert {kind for access, kind in found if access == "st" and kind.startswith("v")} == {"v4.b32"}


@pytest.mark.parametrize("size", ["i32", "i64"])
@pytest.mark.parametrize("name", KERNELS)
def test_offsets_are_64_bits_wide(name, size):
    tiles = re.findall(r"tt\.addptr .*, tensor<\d+x1x(i\d+)>", kernel_of(name, "fp32", size=size).asm["ttir"])
    assert {*tiles} == {"i64"}


@pytest.mark.parametrize("name", KERNELS)
def test_float64_computes_in_nothing_less(name):
    assert "f32" not in kernel_of(name, "fp64").asm["ttir"]
