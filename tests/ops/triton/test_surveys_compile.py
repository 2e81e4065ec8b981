"""The surveys' kernels, compiled ahead of time: they spill nothing, and offsets of numbers are 64 bits wide."""

import importlib.util

import pytest
from compiled_kernels import ARCHITECTURES, COMPILES, assert_spills_nothing, compiled, offsets

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton import surveys

pytestmark = COMPILES
FLAGS = ("real", "held", "bad", "filled")


def kernel(of, dtype="fp32", **options):
    high, wide = surveys.survey_tile(64, 12)
    if of == "tokens":
        function, integers = surveys._token_survey_kernel, ("tokens", "unknown", "ends", "bounds")
        constants = {"STEPS": high, "WIDE": wide}
    else:
        function, integers = surveys._value_survey_kernel, ("ends",)
        constants = {"STEPS": high, "WIDE": wide, "NEUTRAL": 0.01}
    types = {}
    for name in function.arg_names:
        if name in constants:
            continue
        numbers = "*i64" if name in integers else "*i1" if name in FLAGS else f"*{dtype}"
        types[name] = "i32" if name in ("steps", "slots", "size") else numbers
    return compiled(function, types, constants, num_warps=4, **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("of", ["tokens", "values"])
def test_nothing_spills(of, architecture, tmp_path):
    assert_spills_nothing(kernel(of, architecture=architecture), tmp_path)


def test_nothing_spills_in_float64(tmp_path):
    assert_spills_nothing(kernel("values", "fp64"), tmp_path)


@pytest.mark.parametrize("of", ["tokens", "values"])
def test_offsets_are_64_bits_wide(of):
    assert {*offsets(kernel(of))} == {"i64"}
