"""Triton kernels in Triton's interpreter, on CPU tensors: arithmetic and indexing, in a process of their own."""

import contextlib
import importlib.util
import os
from importlib import metadata

import numpy as np
import pytest
import torch
from packaging.version import Version

HAS_TRITON = importlib.util.find_spec("triton") is not None
# It calls `int` on an array of one element where a loop ends at a loaded number; NumPy 2.4 made that an error.
CALLS_INT_ON_AN_ARRAY = (
    HAS_TRITON and Version(metadata.version("triton")) < Version("3.7") and Version(np.__version__) >= Version("2.4")
)
INTERPRETED = [
    pytest.mark.triton,
    pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed"),
    pytest.mark.skipif(CALLS_INT_ON_AN_ARRAY, reason="the interpreter of Triton before 3.7 fails under NumPy 2.4"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1"),
    # The interpreter computes both sides of tl.where with numpy, which remarks on the unused one.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# Of numbers near 1. One unit in the last place of the half types, not half: the interpreter truncates to bfloat16.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.float16: 2**-9, torch.bfloat16: 2**-6}
GUARD, SENTINEL = 64, 777


def launched(launcher, *arguments):
    """What a launcher gives for arguments that lie among NaN, where outputs are NaN until written.

    Fails if it writes beside its outputs, or to its arguments.
    """
    given = [_among(each, float("nan"))[1] if isinstance(each, torch.Tensor) else each for each in arguments]
    with _guarded():
        results = launcher(*given)
    for before, after in zip(arguments, given, strict=True):
        if isinstance(before, torch.Tensor):
            torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)
    return results


def wide(*arguments):
    """The same with float64 numbers, for plain torch."""
    return [
        each.double() if isinstance(each, torch.Tensor) and each.is_floating_point() else each for each in arguments
    ]


def assert_close(results, expected, dtype, **tolerances):
    """Results of `dtype` against plain torch's in float64."""
    results, expected = ([each] if isinstance(each, torch.Tensor) else each for each in (results, expected))
    tolerances = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]} | tolerances
    for result, target in zip(results, expected, strict=True):
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), target.double(), **tolerances)


def _among(tensor, guard):
    """A copy with its strides, inside a buffer of guards (NaN as the least number in integers)."""
    extent = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    if not tensor.is_floating_point():
        guard = False if tensor.dtype == torch.bool else -(2**40)
    buffer = torch.full((extent * (tensor.numel() > 0) + 2 * GUARD,), guard, dtype=tensor.dtype)
    inside = buffer.as_strided(tensor.shape, tensor.stride(), GUARD)
    if tensor.numel():
        once = tuple(slice(0, 1) if step == 0 else slice(None) for step in tensor.stride())
        inside[once].copy_(tensor[once])
    return buffer, inside


@contextlib.contextmanager
def _guarded():
    """Allocations through torch's functions lie between sentinels, which are checked at the end."""
    buffers, functions = [], {name: getattr(torch, name) for name in ("empty", "empty_like", "zeros_like")}

    def allocating(name):
        def allocate(*arguments, **options):
            pattern = functions[name](*arguments, **options)
            if name != "zeros_like":
                pattern.fill_(float("nan") if pattern.is_floating_point() else -1)
            buffer, inside = _among(pattern, SENTINEL)
            if not pattern.is_floating_point():
                buffer[:GUARD] = buffer[buffer.numel() - GUARD :] = SENTINEL
            buffers.append(buffer)
            return inside

        return allocate

    with pytest.MonkeyPatch.context() as patch:
        for name in functions:
            patch.setattr(torch, name, allocating(name))
        yield
    for buffer in buffers:
        guard = torch.full((GUARD,), SENTINEL, dtype=buffer.dtype)
        assert torch.equal(buffer[:GUARD], guard), "written before an output"
        assert torch.equal(buffer[buffer.numel() - GUARD :], guard), "written past an output"
