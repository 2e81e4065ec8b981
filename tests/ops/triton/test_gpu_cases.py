"""The calls that `make bench-gpu` checks on a GPU, through the same launchers in Triton's interpreter."""

import pytest
import torch
from gpu_cases import CASES, Case, worst_error
from interpreted_kernels import INTERPRETED

from deeplift_fast.ops.registry import _triton_kernel

pytestmark = INTERPRETED

CALLS = [
    (name, dtype)
    for name, case in CASES.items()
    for dtype in (*case.dtypes, *case.on_gpu)
    if dtype != torch.float64  # what the others are compared with
]


@pytest.mark.parametrize(("name", "dtype"), CALLS, ids=str)
def test_launchers_give_float64s_numbers(name, dtype, monkeypatch):
    by_the_dispatcher = Case.returned
    launched = []

    def returned(self, call):
        tensors = [each for each in call.arguments if isinstance(each, torch.Tensor)]
        if all(each.dtype == torch.float64 for each in tensors if each.is_floating_point()):
            return by_the_dispatcher(self, call)
        launched.append(self.op)
        return _triton_kernel(self.op)(*call.arguments)

    monkeypatch.setattr(Case, "returned", returned)
    assert worst_error(CASES[name], dtype, "cpu") <= 1
    assert launched == [CASES[name].op]
