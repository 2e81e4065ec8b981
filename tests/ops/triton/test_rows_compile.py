"""The kernels of rows with their times, compiled ahead of time: they spill nothing; offsets are 64 bits wide."""

import importlib.util

import pytest
from compiled_kernels import ARCHITECTURES, COMPILES, assert_spills_nothing, compiled, offsets

if importlib.util.find_spec("triton") is not None:
    import torch

    from deeplift_fast.ops.triton.rows import _token_rows_kernel, _value_rows_kernel
    from deeplift_fast.ops.triton.tiles import strips

pytestmark = COMPILES
NUMBERS = ("weight", "times", "rows", "values", "difference")


def kernel(of, dtype="fp32", **options):
    high, columns = strips(128, torch.float64 if dtype == "fp64" else torch.float32, 1)
    function = _token_rows_kernel if of == "tokens" else _value_rows_kernel
    integers, constants = ("tokens", "baseline", "both"), {"ROWS": high, "COLUMNS": columns}
    types = {}
    for name in function.arg_names:
        is_number = name in NUMBERS or (name == "baseline" and of == "values")
        if name not in constants:
            types[name] = f"*{dtype}" if is_number else "*i64" if name in integers else "i32"
    return compiled(function, types, constants, num_warps=4, **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("of", ["tokens", "values"])
def test_nothing_spills(of, architecture, tmp_path):
    assert_spills_nothing(kernel(of, architecture=architecture), tmp_path)


@pytest.mark.parametrize("of", ["tokens", "values"])
def test_float64(of, tmp_path):
    made = kernel(of, "fp64")
    assert_spills_nothing(made, tmp_path)
    assert "f32" not in made.asm["ttir"]


@pytest.mark.parametrize("of", ["tokens", "values"])
def test_offsets_are_64_bits_wide(of):
    assert {*offsets(kernel(of))} == {"i64"}
