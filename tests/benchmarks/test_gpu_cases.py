"""The table of calls that a GPU is checked with, in float32 and float64 on the CPU."""

import pytest
import torch
from gpu_cases import CASES, Case, worst_error

from deeplift_fast import ops


def test_every_op_has_a_case():
    assert {case.op for case in CASES.values()} == {op for op in ops.SCHEMAS if ops.backend_for(op, "cuda") == "Triton"}


@pytest.mark.parametrize("name", CASES)
def test_every_dtype_is_float64_on_the_cpu(name):
    case = CASES[name]
    for dtype in case.dtypes:
        assert worst_error(case, dtype, "cpu") <= 1


@pytest.mark.parametrize("name", CASES)
def test_float32_rounds(name):
    """A comparison that compares nothing, or float64 with itself, would pass above."""
    worst = worst_error(CASES[name], torch.float32, "cpu")
    assert worst > 1e-4 if CASES[name].rounds else worst == 0


@pytest.mark.parametrize("name", CASES)
def test_a_backend_that_is_wrong_in_one_number_is_found(name, monkeypatch):
    case = CASES[name]
    right = Case.run

    def wrong(self, call):
        found = right(self, call)
        if any(isinstance(each, torch.Tensor) and each.dtype == torch.float32 for each in call.arguments):
            last = found[0][(-1,) * found[0].dim()]
            last.copy_(~last if last.dtype == torch.bool else last + 1)
        return found

    monkeypatch.setattr(Case, "run", wrong)
    assert worst_error(case, torch.float32, "cpu") > 1
