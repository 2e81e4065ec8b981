"""Summation to delta: the scaling, the convergence delta, and the warning."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ConvergenceWarning, attribute
from deeplift_fast.core.completeness import rescale


def rescaled(contributions, difference):
    contributions = torch.as_tensor(contributions)
    difference = torch.as_tensor(difference, dtype=contributions.dtype)
    found, delta = rescale({"x": contributions}, difference, torch.zeros_like(difference))
    return found["x"], delta


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [w for w in caught if w.category is ConvergenceWarning]


def test_each_sample_is_scaled_to_its_difference():
    found, delta = rescaled([[1.0, 3.0], [2.0, -1.0]], [8.0, 0.5])
    torch.testing.assert_close(found, torch.tensor([[2.0, 6.0], [1.0, -0.5]]))
    torch.testing.assert_close(delta, torch.tensor([-4.0, 0.5]))


def test_all_inputs_of_a_sample_share_one_factor():
    given = {"a": torch.tensor([[1.0, 1.0]]), "b": torch.tensor([[[2.0]]]), "c": torch.tensor([4.0])}
    found, delta = rescale(given, torch.tensor([17.0]), torch.tensor([1.0]))
    assert {name: value.flatten().tolist() for name, value in found.items()} == {"a": [2, 2], "b": [4], "c": [8]}
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in given.items()}
    assert delta.item() == -8


def test_complete_contributions_stay_as_they_are():
    given = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    found, delta = rescaled(given, [3.0])
    assert torch.equal(found, given)
    assert delta.item() == 0


def test_sums_of_nearly_zero_are_not_scaled():
    found, delta = rescaled([[1.0, -1.0]], [5.0])
    assert found.tolist() == [[1.0, -1.0]]
    assert delta.item() == -5


def test_no_difference_means_no_contributions():
    found, delta = rescaled([[1.0, 2.0]], [0.0])
    assert found.abs().tolist() == [[0.0, 0.0]]
    assert delta.item() == 3


@given(
    contributions=st.lists(st.lists(st.floats(0.01, 100), min_size=3, max_size=3), min_size=1, max_size=5),
    ratio=st.floats(0.1, 9.9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_sums_are_complete(contributions, ratio, dtype):
    contributions = torch.tensor(contributions, dtype=dtype)
    difference = contributions.sum(1) * ratio
    found, delta = rescaled(contributions, difference)
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found.sum(1), difference, rtol=rtol, atol=0)
    torch.testing.assert_close(delta, contributions.sum(1) - difference, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found / contributions, torch.full_like(found, ratio), rtol=1e-5, atol=0)


def test_half_types_are_scaled_without_overflow():
    contributions = torch.tensor([[2.0**-20, 0.0]], dtype=torch.float16)
    found, _ = rescaled(contributions, [1.0])  # the factor, 2^20, is no float16
    assert found.dtype == torch.float16
    assert found.tolist() == [[1.0, 0.0]]


def test_the_difference_of_half_outputs_is_not_rounded():
    output, baseline = torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([-(2.0**-9)], dtype=torch.bfloat16)
    found, _ = rescale({"x": torch.ones(1, 1)}, output, baseline)
    assert found["x"].item() == 1 + 2.0**-9


@pytest.mark.parametrize(
    ("contributions", "difference"),
    [
        ([[1.0, 0.5]], [1.4]),
        ([[1.0, 0.0]], [9.9]),
        ([[1.0, 0.0]], [0.001]),
        ([[-1.0, 0.0]], [-3.0]),
        ([[1e-5, 0.0]], [-1e-7]),  # rounding gives a difference of nearly zero any sign
        ([[0.0, 0.0]], [0.0]),
    ],
)
def test_trustworthy_factors_pass_silently(contributions, difference):
    assert not warnings_of(lambda: rescaled(contributions, difference))


@pytest.mark.parametrize(
    ("contributions", "difference"),
    [
        ([[1.0, 0.0]], [-0.1]),  # the wrong sign
        ([[1.0, 0.0]], [10.1]),  # too large a factor
        ([[1.0, -1.0]], [0.1]),  # nothing to scale
        ([[0.0, 0.0]], [0.1]),
    ],
)
def test_untrustworthy_factors_are_warned_of(contributions, difference):
    (caught,) = warnings_of(lambda: rescaled(contributions, difference))
    assert "1 of 1 samples" in str(caught.message)


def test_the_warning_comes_once_with_the_number_of_samples_at_the_callers_line():
    x = torch.tensor([[1.0], [1.0], [1.0], [-1.0]])

    def deaf(x):  # the gradient sees nothing of the first three samples' change
        return torch.where(x > 0, x.detach() + 1, x)

    caught = warnings_of(lambda: attribute(deaf, x, target=0))
    assert len(caught) == 1
    assert "3 of 4 samples" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_an_output_that_does_not_change_gives_zeros_and_no_warning():
    x = torch.randn(3, 4)
    for flat in (lambda x: torch.ones(3, 2) + 0 * x[:, :2], lambda x: torch.sign(x.abs() + 1)[:, :2]):
        assert not warnings_of(lambda flat=flat: attribute(flat, x, target=0))
        assert not attribute(flat, x, target=0).contributions.any()


BAD = {
    "NaN at the input": (torch.tensor([[0.0], [2.0], [0.0]]), 1.0, (2, 0)),
    "NaN at the baseline": (torch.tensor([[1.0], [2.0], [3.0]]), 0.0, (0, 3)),
    "at both": (torch.tensor([[0.0], [2.0], [3.0]]), torch.tensor([[0.0], [0.0], [1.0]]), (1, 2)),
}


@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.parametrize("name", BAD)
def test_outputs_that_are_not_finite_are_counted(name, rules):
    x, x0, (bad, bad0) = BAD[name]
    call = warnings_of(lambda: attribute(lambda x: torch.relu(x) / x.abs(), x, x0, 0, rules=rules))
    found = [str(each.message) for each in call]
    (message,) = [each for each in found if "not finite" in each]
    assert f"not finite (NaN or inf) for {bad} of 3 samples at the input and for {bad0} at the baseline" in message
    assert not any("nan" in each for each in found if each != message)


def test_an_infinite_output_is_named_too_and_the_others_keep_their_contributions():
    x = torch.tensor([[200.0], [1.0]])
    with pytest.warns(ConvergenceWarning, match="for 1 of 2 samples at the input and for 0 at the baseline"):
        found = attribute(lambda x: x.exp(), x, 0.0, 0, rules="complete")
    torch.testing.assert_close(found.contributions[1], found.output[1:] - found.baseline_output[1:])
