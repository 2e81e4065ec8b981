"""A replay agrees with a plain run up to rounding."""

import pytest
import torch

from deeplift_fast.core.result import Attribution
from deeplift_fast.pyhealth.fused.graph_check import agrees


def attribution(contributions, output=(2.0, 3.0)):
    rows = torch.tensor(contributions)
    return Attribution({"a": rows}, torch.zeros(2), torch.tensor(output), torch.zeros(2), torch.zeros(2).long())


PLAIN = attribution([[1.0, 1.0], [1.5, 1.5]])


def test_equal_bits_agree():
    assert agrees(attribution([[1.0, 1.0], [1.5, 1.5]]), PLAIN)


@pytest.mark.parametrize(("error", "alike"), [(1e-6, True), (1e-3, False), (torch.nan, False)])
def test_a_difference_as_by_rounding_agrees(error, alike):
    assert agrees(attribution([[1.0, 1.0], [1.5, 1.5 + error]]), PLAIN) == alike
    assert agrees(attribution([[1.0, 1.0], [1.5, 1.5]], (2.0, 3.0 + error)), PLAIN) == alike


def test_a_small_sample_is_measured_by_itself():
    plain = attribution([[1e6, 1e6], [1.5, 1.5]], (2e6, 3.0))
    assert not agrees(attribution([[1e6, 1e6], [1.6, 1.4]], (2e6, 3.0)), plain)


def test_rounding_grows_with_cancellation():
    plain = attribution([[1000.0, -999.0], [1.5, 1.5]], (1.0, 3.0))
    assert agrees(attribution([[1001.0, -1000.0], [1.5, 1.5]], (1.0, 3.0)), plain)
    assert not agrees(attribution([[2000.0, -1999.0], [1.5, 1.5]], (1.0, 3.0)), plain)


def test_what_is_nan_in_both_agrees():
    rows = [[1.0, torch.nan], [1.5, 1.5]]
    assert agrees(attribution(rows, (torch.nan, 3.0)), attribution(rows, (torch.nan, 3.0)))
