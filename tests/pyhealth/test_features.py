"""deeplift_fast.pyhealth.features: what is padding, which mask a model is given, and the default baseline."""

import pytest
import torch

from deeplift_fast.pyhealth.features import Feature, default_baseline

CODES = torch.tensor([[5, 6, 0], [7, 0, 0]])
VISITS = torch.tensor([[[5, 6], [7, 0]], [[0, 0], [0, 0]]])
STEPS = torch.tensor([[[1.5, 0.0], [0.0, 0.0]], [[0.0, -2.0], [3.0, 4.0]]])
ROWS = torch.tensor([[1.5, 0.0], [0.0, -2.0]])


def feature(value, mask=None):
    parts = (value,) if mask is None else (value, mask)
    return Feature("f", parts, 0, mask, not value.is_floating_point())


@pytest.mark.parametrize(
    ("value", "mask", "real"),
    [
        (CODES, None, [[1, 1, 0], [1, 0, 0]]),
        (VISITS, None, [[[1, 1], [1, 0]], [[0, 0], [0, 0]]]),
        (STEPS, None, [[[1, 1], [0, 0]], [[1, 1], [1, 1]]]),
        (ROWS, None, [[1, 0], [0, 1]]),
        (CODES, [[1, 0, 1], [1, 1, 1]], [[1, 0, 1], [1, 1, 1]]),
        (VISITS, [[1, 1], [1, 0]], [[[1, 1], [1, 0]], [[0, 0], [0, 0]]]),
        (VISITS, [[[1, 0], [1, 1]], [[1, 0], [0, 0]]], [[[1, 0], [1, 1]], [[1, 0], [0, 0]]]),
        (STEPS, [[1, 1], [1, 0]], [[[1, 1], [1, 1]], [[1, 1], [0, 0]]]),
        (STEPS, [[[1, 0], [1, 0]], [[0, 1], [1, 1]]], [[[1, 0], [1, 0]], [[0, 1], [1, 1]]]),
        (STEPS, [1, 0], [[[1, 1], [0, 0]], [[0, 0], [0, 0]]]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_what_is_real(value, mask, real, dtype):
    """Last steps of zeros, a zero code and a zero of a flat vector are padding, unless a mask as fine says so."""
    given = None if mask is None else torch.tensor(mask, dtype=dtype)
    assert torch.equal(feature(value, given).real(), torch.tensor(real, dtype=torch.bool))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (CODES, [[1, 1, 0], [1, 0, 0]]),
        (CODES.int(), [[1, 1, 0], [1, 0, 0]]),
        (STEPS.double(), [[[0.01, 0.01], [0, 0]], [[0.01, 0.01], [0.01, 0.01]]]),
        (ROWS, [[0.01, 0], [0, 0.01]]),
    ],
)
def test_default_baseline(value, expected):
    torch.testing.assert_close(default_baseline(feature(value), False), torch.tensor(expected, dtype=value.dtype))
    everywhere = default_baseline(feature(value), True)
    assert everywhere.dtype == value.dtype
    assert (everywhere == (0.01 if value.is_floating_point() else 1)).all()


@pytest.mark.parametrize(
    ("value", "per_value", "mask"),
    [
        (CODES, False, [[1, 1, 0], [1, 0, 0]]),
        (VISITS, False, [[[1, 1], [1, 0]], [[0, 0], [0, 0]]]),
        (STEPS, False, [[1, 0], [1, 1]]),
        (STEPS, True, [[1, 0], [1, 1]]),
        (ROWS, False, None),
        (ROWS, True, [[1, 0], [0, 1]]),
    ],
)
def test_derived_mask(value, per_value, mask):
    """`[batch, n]` values have no steps, so a mask of them is only given where PyHealth's numbers are wanted."""
    parts = feature(value).with_derived_mask(per_value).parts
    assert parts[0] is value
    assert [part.tolist() for part in parts[1:]] == ([] if mask is None else [mask])


GAPS = torch.tensor([[[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [0.0, 3.0], [0.0, 0.0]], [[0.0, 0.0]] * 5])


@pytest.mark.parametrize(
    ("times", "steps"),
    [
        (None, [[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]),
        ([[0.0, 1.0, 2.0, 3.0, 0.0], [0.0] * 5], [[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]),
        ([[0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 2.0, 0.0, 0.0]], [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    ],
)
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 1)])
def test_a_step_is_padding_only_if_nothing_comes_in_it_and_after_it(times, steps, shape):
    """Neither a value nor a time; PyHealth's mask takes each step of zeros for padding."""
    parts = (GAPS,) if times is None else (torch.tensor(times).reshape(shape), GAPS)
    given = Feature("f", parts, len(parts) - 1, None, False, time_position=None if times is None else 0)
    assert given.real()[..., 0].int().tolist() == steps
    assert given.with_derived_mask(False).parts[-1].tolist() == steps
    assert given.with_derived_mask(True).parts[-1].tolist() == [[0, 1, 0, 1, 0], [0] * 5]
    first = [row if any(row) else [1, 0, 0, 0, 0] for row in steps]
    assert given.with_derived_mask(False, keeps_first=True).parts[-1].tolist() == first


def test_position_0_of_an_empty_record_of_codes():
    assert feature(VISITS).with_derived_mask(False, keeps_first=True).parts[-1].tolist() == [
        [[1, 1], [1, 0]],
        [[1, 0], [0, 0]],
    ]


def test_a_given_mask_is_kept():
    given = feature(CODES, torch.ones(2, 3))
    assert given.with_derived_mask(True) is given


def test_with_value_replaces_the_value_where_it_stands():
    time, mask, other = torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 3, 4)
    assert Feature("f", (time, CODES, mask), 1, mask, True).with_value(other) == (time, other, mask)
