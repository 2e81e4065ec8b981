"""What an input is compared with: the forms a baseline may take, and what is refused."""

import math

import numpy as np
import pytest
import torch

from deeplift_fast import attribute
from deeplift_fast.core import baselines as tensor_baselines

X = torch.arange(1.0, 7.0).reshape(2, 3)


def resolved(baseline, x=X):
    return tensor_baselines.resolve("labs", x, baseline)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (None, [[0.0, 0.0, 0.0]] * 2),
        (0.5, [[0.5, 0.5, 0.5]] * 2),
        (2, [[2.0, 2.0, 2.0]] * 2),
        (np.float64(0.5), [[0.5, 0.5, 0.5]] * 2),
        (np.int64(2), [[2.0, 2.0, 2.0]] * 2),
        (torch.ones(3), [[1.0, 1.0, 1.0]] * 2),
        (torch.ones(1, 3), [[1.0, 1.0, 1.0]] * 2),
        (torch.tensor([1, 2, 3]), [[1.0, 2.0, 3.0]] * 2),
        (torch.tensor([[1, 0, 1]], dtype=torch.uint8), [[1.0, 0.0, 1.0]] * 2),
        (torch.tensor([True, False, True]), [[1.0, 0.0, 1.0]] * 2),
        (X - 1, (X - 1).tolist()),
    ],
)
def test_forms(baseline, expected):
    found = resolved(baseline)
    assert found.tolist() == expected
    assert found.dtype == X.dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("baseline", [None, 0.5])
def test_dtype_is_that_of_the_input(baseline, dtype):
    assert resolved(baseline, X.to(dtype)).dtype == dtype


def test_a_batch_of_numbers():
    x = torch.tensor([1.0, 2.0, 3.0])
    assert resolved(torch.tensor(0.5), x).tolist() == [0.5, 0.5, 0.5]
    assert resolved(torch.tensor([4.0, 5.0, 6.0]), x).tolist() == [4.0, 5.0, 6.0]


def test_a_square_batch_takes_a_sample_and_not_a_column():
    assert resolved(torch.tensor([1.0, 2.0]), torch.zeros(2, 2)).tolist() == [[1.0, 2.0]] * 2


def test_it_carries_no_gradient_and_is_not_written_to():
    given = torch.ones(2, 3, requires_grad=True)
    assert not resolved(given).requires_grad

    def overwriting(x):
        return x.mul_(2)

    attribute(overwriting, X, given, target=0)
    assert torch.equal(given, torch.ones(2, 3))
    assert given.grad is None


@pytest.mark.parametrize(
    ("baseline", "error", "message"),
    [
        ("zeros", TypeError, "baseline of input 'labs' is a str; accepted: None, a number, or a tensor"),
        ([0.0, 0.0, 0.0], TypeError, "list"),
        (1j, TypeError, "complex"),
        (torch.zeros(2), ValueError, r"shape \(2,\); accepted: that of the input, \(2, 3\), or that of one sample"),
        (torch.zeros(3, 3), ValueError, "shape"),
        (torch.zeros(2, 1), ValueError, "shape"),
        (torch.zeros(1, 2, 3), ValueError, "shape"),
        (torch.zeros(2, 3).double(), TypeError, "'labs' is torch.float64, the input torch.float32"),
        (torch.zeros(2, 3, device="meta"), ValueError, "on meta, the input on cpu; move it there"),
        (math.nan, ValueError, "6 value.*NaN or inf"),
        (math.inf, ValueError, "NaN or inf"),
        (torch.tensor([0.0, math.nan, -math.inf]), ValueError, "holds 2 value"),
    ],
)
def test_refusals_name_the_input(baseline, error, message):
    with pytest.raises(error, match=message):
        resolved(baseline)


def test_contributions_are_relative_to_the_baseline():
    weight = torch.tensor([1.0, -2.0, 3.0])
    found = attribute(lambda x: (x * weight).sum(1, keepdim=True), X, 0.5)
    torch.testing.assert_close(found.contributions, (X - 0.5) * weight)
    assert found.baseline_output.tolist() == [1.0, 1.0]


def test_forms_may_be_mixed_over_inputs():
    def model(a, b, c):
        return (a + 2 * b + 3 * c).sum(1, keepdim=True)

    found = attribute(model, (X, X, X), (None, 1.0, torch.tensor([1.0, 2.0, 3.0])))
    torch.testing.assert_close(found.contributions[0], X)
    torch.testing.assert_close(found.contributions[1], 2 * (X - 1))
    torch.testing.assert_close(found.contributions[2], 3 * (X - torch.tensor([1.0, 2.0, 3.0])))


@pytest.mark.parametrize("given", [0.5, torch.zeros(2, 3), {"a": None}, (None,), (None, None, None), object()])
def test_several_inputs_need_as_many_baselines(given):
    with pytest.raises(ValueError, match=r"baselines is a .*; accepted: a sequence of 2"):
        attribute(lambda a, b: a + b, (X, X), given, target=0)


@pytest.mark.parametrize("given", [0.5, torch.zeros(2, 3), {"a": None}, {"a": None, "c": None}, (None, None)])
def test_named_inputs_need_named_baselines(given):
    with pytest.raises(ValueError, match=r"baselines (is|has).*; accepted: .* keys of inputs, \['a', 'b'\]"):
        attribute(lambda a, b: a + b, {"a": X, "b": X}, given, target=0)
