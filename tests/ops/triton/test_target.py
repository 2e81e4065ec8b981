"""The explained class's Triton kernel in the interpreter, and compiled ahead of time."""

import importlib.util
import math

import pytest
import torch
from compiled_kernels import ARCHITECTURES, COMPILES, assert_spills_nothing, compiled
from interpreted_kernels import DTYPES, INTERPRETED, launched

from deeplift_fast.ops import naive

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton import target as module


def assert_is_naive(*given):
    for result, expected in zip(launched(module.target, *given), naive.target(*given), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


class TestInterpreted:
    pytestmark = INTERPRETED

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("chosen", [-1, 2])
    def test_every_dtype(self, chosen, dtype):
        logits = torch.randint(0, 3, (2, 6, 5)).to(dtype)
        logits[0, :2, 1], logits[0, 2], logits[0, 3, 3] = math.nan, -math.inf, math.inf
        assert_is_naive(logits, torch.randn(2, 5, 7).to(dtype), chosen)

    @pytest.mark.parametrize(("batch", "classes", "width"), [(0, 2, 3), (2, 1, 300)])
    def test_any_size(self, batch, classes, width):
        assert_is_naive(torch.randn(2, batch, classes), torch.randn(1, classes, width), -1)

    def test_any_strides(self):
        assert_is_naive(torch.randn(2, 4, 3).mT.contiguous().mT, torch.randn(3, 2, 5).transpose(0, 1), -1)


class TestCompiled:
    pytestmark = COMPILES

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_nothing_spills(self, architecture, tmp_path):
        constants, integers = (
            {"CLASSES": 16, "COLUMNS": module.COLUMNS},
            ("batch", "classes", "parts", "width", "chosen"),
        )
        types = dict.fromkeys(("logits", "weight", "ends", "seeds"), "*fp32") | {"found": "*i64"}
        kernel = module._target_kernel
        types = {name: types.get(name, "i32") for name in kernel.arg_names if name not in constants}
        assert {name for name, kind in types.items() if kind == "i32"} == {*integers}
        assert_spills_nothing(compiled(kernel, types, constants, num_warps=4, architecture=architecture), tmp_path)
