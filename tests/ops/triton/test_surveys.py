"""The surveys' Triton kernels in the interpreter."""

import importlib.util

import pytest
import torch
from interpreted_kernels import INTERPRETED, launched
from survey_cases import tokens_of, values_of

from deeplift_fast.ops import naive

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton import surveys

pytestmark = INTERPRETED
SIZES = [(0, 2, 3), (3, 1, 1), (4, 5, 3), (1, 40, 70), (1, 300, 5)]  # the last two are larger than a tile


def assert_same(found, expected):
    for result, target in zip(found, expected, strict=True):
        torch.testing.assert_close(result, target, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", SIZES)
def test_tokens(size):
    given = tokens_of(*size, 1)
    assert_same(launched(surveys.token_survey, *given), naive.token_survey(*given))


@pytest.mark.parametrize("size", SIZES)
def test_values(size):
    given = (*values_of(*size, 1), 0.01)
    assert_same(launched(surveys.value_survey, *given), naive.value_survey(*given))


def test_values_in_float32():
    given = (*values_of(4, 5, 3, 2, torch.float32), 0.01)
    assert_same(launched(surveys.value_survey, *given), naive.value_survey(*given))


def test_any_strides():
    times, of_tokens = tokens_of(4, 5, 3, 3)
    given = times.T.contiguous().T, of_tokens.mT.contiguous().mT
    assert_same(launched(surveys.token_survey, *given), naive.token_survey(*given))
    of_values, times = values_of(4, 5, 3, 3)
    given = of_values.mT.contiguous().mT, times[:1].expand(4, 5), 0.01
    assert_same(launched(surveys.value_survey, *given), naive.value_survey(*given))
