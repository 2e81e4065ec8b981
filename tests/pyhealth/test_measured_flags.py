"""Which values were measured: flags of a batch, zeros, padding."""

import numpy as np
import pytest
import torch

from deeplift_fast.core.questions import Later
from deeplift_fast.pyhealth.features import Feature, kind_of, measured
from deeplift_fast.pyhealth.measured_flags import read_flags

VALUE = torch.tensor(
    [[[1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]], [[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]
)
FILLED = VALUE != 0


def feature(value=VALUE, kind="other", flags=None, mask=None, token=False):
    return Feature("labs", (value,), 0, mask, token, kind, flags)


def test_without_flags_it_is_what_is_not_0():
    assert torch.equal(measured(feature()), FILLED)
    assert torch.equal(measured(feature(kind="multi_hot")), FILLED)


def test_of_a_tensor_feature_0_is_a_value_and_padding_is_none():
    row = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert measured(feature(row, "tensor")).all()
    expected = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()[..., None].expand(VALUE.shape)
    assert torch.equal(measured(feature(kind="tensor")), expected)


def test_flags_win_over_zeros_but_padding_is_never_measured():
    flags = torch.tensor([[[1, 1], [0, 1], [1, 0], [1, 1]], [[0, 1], [1, 1], [0, 0], [1, 1]]]).bool()
    expected = flags.clone()
    expected[0, 3] = expected[1, 1:] = False  # nothing is held there, or after it
    for kind in ("other", "tensor", "multi_hot"):
        assert torch.equal(measured(feature(kind=kind, flags=flags)), expected)


def test_a_mask_says_what_is_padding():
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 0]])
    flags = torch.ones_like(FILLED)
    assert torch.equal(measured(feature(flags=flags, mask=mask)), mask.bool()[..., None].expand(VALUE.shape))
    assert torch.equal(measured(feature(mask=mask)), FILLED & mask.bool()[..., None])


def test_the_kind_is_that_of_the_processor():
    from pyhealth import processors

    class Own(processors.TensorProcessor):
        pass

    kinds = {
        processors.TensorProcessor: "tensor",
        Own: "tensor",
        processors.MultiHotProcessor: "multi_hot",
        processors.NestedMultiHotProcessor: "multi_hot",
        processors.TimeseriesProcessor: "other",
        processors.SequenceProcessor: "other",
    }
    assert {each: kind_of(each) for each in kinds} == kinds


def test_tokens_are_measured_where_they_are_real():
    tokens = torch.tensor([[3, 1, 0]])
    assert measured(feature(tokens, token=True)).tolist() == [[True, True, False]]


def test_flags_follow_the_samples():
    flags = torch.rand(VALUE.shape) > 0.5
    both = feature(flags=flags)
    for which in (slice(1, 2), torch.tensor([1, 0])):
        assert torch.equal(both.at(which).flags, flags[which])
        assert torch.equal(measured(both.at(which)), measured(both)[which])


@pytest.mark.parametrize("kind", ["arrays", "tensors", "lists", "padded", "padded array"])
def test_flags_come_padded_or_as_the_loader_leaves_ragged_arrays(kind):
    flags = torch.tensor([[[1, 1], [0, 1], [1, 0]], [[0, 1], [0, 0], [0, 0]]]).bool()
    value = VALUE[:, :3]
    ragged = [flags[0], flags[1, :1]]
    given = {
        "arrays": [each.numpy() for each in ragged],
        "tensors": ragged,
        "lists": [each.tolist() for each in ragged],
        "padded": flags,
        "padded array": flags.numpy(),
    }[kind]
    assert torch.equal(read_flags("labs_measured", given, value), flags)


def test_flags_of_single_values_and_of_empty_samples():
    assert read_flags("x_measured", [True, np.False_], torch.ones(2)).tolist() == [True, False]
    assert read_flags("x_measured", [[], [[True]]], torch.tensor([[[0.0]], [[1.0]]])).tolist() == [[[False]], [[True]]]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (torch.ones(2, 4, 2), TypeError, "labs_measured is float32; accepted: bool of the value's shape, (2, 4, 2)"),
        (torch.ones(2, 3).bool(), ValueError, "labs_measured has shape (2, 3)"),
        (torch.tensor(True), ValueError, "labs_measured has shape ()"),
        ("yes", TypeError, "labs_measured is a str"),
        ([np.ones((4, 2), bool)], ValueError, "labs_measured is a list of 1; the batch has 2 samples"),
        ([np.ones((4, 2)), np.ones((4, 2))], TypeError, "labs_measured of sample 0 of the batch is float64"),
        (
            [np.ones((4, 2), bool), np.ones((4, 3), bool)],
            ValueError,
            "labs_measured of sample 1 of the batch has shape",
        ),
        ([np.ones((5, 2), bool)] * 2, ValueError, "labs_measured of sample 0 of the batch has shape (5, 2)"),
        ([np.ones((4, 2), bool), [[True], [True, False]]], TypeError, "labs_measured of sample 1 of the batch"),
        ([np.ones((2, 2), bool)] * 2, ValueError, "labs_measured has fewer steps than the value: 1 step(s)"),
        ([1.5, np.ones((4, 2), bool)], TypeError, "labs_measured of sample 0 of the batch"),
        ([True, np.ones((4, 2), bool)], ValueError, "labs_measured of sample 0 of the batch has shape ()"),
    ],
)
def test_flags_that_do_not_fit_are_named(given, error, said):
    with pytest.raises(error) as caught:
        read_flags("labs_measured", given, VALUE)
    assert said in str(caught.value)
    assert "accepted" in str(caught.value)


def test_flags_that_are_too_short_are_found_at_the_next_read_back():
    later = Later()
    read_flags("labs_measured", [np.ones((2, 2), bool)] * 2, VALUE, later)
    with pytest.raises(ValueError, match="labs_measured has fewer steps"):
        later.fetch()
