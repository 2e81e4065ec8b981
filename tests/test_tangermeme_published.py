"""The values that tangermeme publishes in its tests of DeepLIFT (`tests/test_deep_lift_shap.py` of its repository).

Of its 41 tests with expected attributions or multipliers, 39 have the right ones: complete, and equal to the Rescale
rule written down once more in float64. One has some right ones, and one has none. All that is right is here. Left out:

- a ReLU that is used three times, between convolutions of dilation 1, 2 and 4: the rule saw its last use only, so its
  published values are no DeepLIFT (tangermeme 1.6.0 itself gives others, which are ours);
- multipliers of 2 of 8 pairs of sequence and baseline, at inputs that do not differ (see `RAW`);
- the square root as an autograd function of the user's, registered with tangermeme: here it is `Tensor.sqrt`;
- what says nothing about attributions: random states, numbers of shuffles, integer inputs, printing, hooks.
"""

import pytest
import torch
import torch.nn.functional as F
from naive_deeplift import multipliers
from tangermeme_cases import (
    CASES,
    HYPOTHETICAL,
    HYPOTHETICAL_OF_DRAWS,
    RAW,
    SCALED,
    SHARED_RELU,
    Sum,
    dinucleotide_shuffles,
    sequences,
    shared_relu,
    shuffles,
)
from torch import nn

from deeplift_fast import attribute
from deeplift_fast.captum import DeepLift, DeepLiftShap

ROUNDED = 5.1e-5  # four decimals, and what float32 adds


def shown(found, published):
    """The contributions of the first positions: of each, the sum over its letters."""
    return found.sum(-2)[..., : len(published)]


def hypothetical(multipliers, inputs, baselines):
    """What each letter would contribute, were it at its position."""
    m, x0 = multipliers[0], baselines[0]
    return (m - (m * x0).sum(1, keepdim=True),)


def close(found, published):
    torch.testing.assert_close(found.double(), torch.tensor(published).double(), rtol=0, atol=ROUNDED)


def pairs(case):
    """Of each published sequence: its values, the sequence, its background."""
    return zip(case.published, sequences(), case.background(), strict=False)


@pytest.mark.parametrize("name", CASES)
def test_published_values_are_those_of_the_rule_written_naively(name):
    model = CASES[name].model().double()
    for published, x, x0 in pairs(CASES[name]):
        x, x0 = x.double().expand(x0.shape), x0.double()
        each = multipliers(model, x, x0) * (x - x0)
        torch.testing.assert_close(each.sum((1, 2)), (model(x) - model(x0))[:, 0], rtol=0, atol=1e-10)
        close(shown(each.mean(0), published), published)


RULES = [(name, rules) for name in CASES for rules in ("complete", "rescale") if CASES[name].rescale or rules[0] == "c"]


@pytest.mark.parametrize(("name", "rules"), RULES)
@pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning")  # an autograd function is not looked into
def test_published_values_are_ours(name, rules):
    model = CASES[name].model()
    for published, x, x0 in pairs(CASES[name]):
        found, delta = DeepLiftShap(model, rules=rules).attribute(x[None], x0, 0, return_convergence_delta=True)
        close(shown(found[0], published), published)
        assert delta.abs().max() < 1e-4  # float32, of outputs up to a few hundred
        if rules == "complete":
            each = attribute(model, x.expand(x0.shape), x0, 0, rules=rules)
            close(shown(each.contributions.mean(0), published), published)


def test_further_arguments():
    model = CASES["dense"].model()
    alpha, beta = torch.randn(16, 1), torch.randn(16, 1)

    def moved(x, alpha, beta):
        return model(x) * beta + alpha

    for i, (x, x0) in enumerate(zip(sequences(), dinucleotide_shuffles(20), strict=False)):
        found = DeepLiftShap(moved).attribute(x[None], x0, 0, additional_forward_args=(alpha[i], beta[i]))
        close(shown(found[0], SCALED[i]), SCALED[i])


def test_a_relu_that_is_used_three_times():
    model = shared_relu()
    for published, x, x0 in zip(SHARED_RELU, sequences(), shuffles(5), strict=False):
        expected = multipliers(model.double(), x.double().expand(x0.shape), x0.double()) * (x - x0)
        found, delta = DeepLiftShap(model).attribute(x[None].double(), x0.double(), 0, return_convergence_delta=True)
        torch.testing.assert_close(found[0], expected.mean(0), rtol=1e-9, atol=1e-12)
        assert delta.abs().max() < 1e-12
        assert (shown(found[0], published) - torch.tensor(published)).abs().max() > 10 * ROUNDED


class TestHypotheticalContributions:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_of_the_dense_model(self, dtype):
        explainer = DeepLiftShap(CASES["dense"].model().to(dtype))
        for published, x, x0 in zip(HYPOTHETICAL, sequences(), dinucleotide_shuffles(20), strict=False):
            found = explainer.attribute(x[None].to(dtype), x0.to(dtype), 0, custom_attribution_func=hypothetical)
            close(found[0, :, :10], published)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, ROUNDED), (torch.float16, 2e-3)])
    def test_of_drawn_multipliers(self, dtype, tolerance):
        x, x0 = sequences().to(dtype), shuffles(1)[:, 0].to(dtype)
        torch.manual_seed(0)
        weights = torch.randn(16, 4, 100).to(dtype)
        explainer = DeepLift(lambda x, weights: (x * weights).sum((1, 2)))
        found = explainer.attribute(x, x0, additional_forward_args=weights, custom_attribution_func=hypothetical)
        expected = torch.tensor(HYPOTHETICAL_OF_DRAWS)
        torch.testing.assert_close(found[:3, :, :3].float(), expected, rtol=0, atol=tolerance)
        alone = explainer.attribute(
            x[:1], x0[:1], additional_forward_args=weights[:1], custom_attribution_func=hypothetical
        )
        assert torch.equal(alone, found[:1])
        ones = torch.ones_like(weights)  # a linear model that looks at no letter
        even = explainer.attribute(x, x0, additional_forward_args=ones, custom_attribution_func=hypothetical)
        assert not even.any()


@pytest.mark.parametrize("pair", RAW)
def test_published_multipliers(pair):
    model, (i, j) = CASES["deepsea"].model(), pair
    found = DeepLift(model, multiply_by_inputs=False).attribute(
        sequences()[i : i + 1], dinucleotide_shuffles(20)[i][j : j + 1], 0
    )
    torch.testing.assert_close(found[0, :, :5], torch.tensor(RAW[pair]), rtol=0, atol=1e-7)


def test_multipliers_are_those_of_the_rule_written_naively():
    model = CASES["deepsea"].model().double()
    for x, x0 in zip(sequences(), dinucleotide_shuffles(20), strict=False):
        x, x0 = x.double().expand(x0.shape), x0.double()
        found = DeepLift(model, multiply_by_inputs=False).attribute(x, x0, 0)
        torch.testing.assert_close(found, multipliers(model, x, x0), rtol=1e-7, atol=1e-10)


def test_a_target_outside_the_output_is_an_index_error():
    x0 = dinucleotide_shuffles(3)[0]
    with pytest.raises(IndexError, match=r"target is 999, outside the model's output of shape \(3, 1\)"):
        DeepLiftShap(CASES["dense"].model()).attribute(sequences()[:1], x0, target=999)


def test_converges_to_a_ten_millionth_in_float32():
    model = CASES["deepsea"].model()
    for x, x0 in zip(sequences(), dinucleotide_shuffles(3), strict=False):
        _, delta = DeepLiftShap(model).attribute(x[None], x0, 0, return_convergence_delta=True)
        assert delta.abs().max() < 1e-7


class Dna(nn.Module):
    """As tangermeme's: convolutions over one-hot sequences `[batch, 4, length]` with one activation and one pool."""

    def __init__(self, activation, pool):
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 8, 3, padding="same"), nn.Conv1d(8, 8, 3, padding="same")
        self.activation, self.pool, self.drop, self.last = activation, pool, nn.Dropout(0.5), nn.Linear(80, 2)

    def forward(self, x, shift=0.0, factor=1.0):
        x = self.pool(self.activation(self.first(x)))
        x = self.activation(self.second(x)) + x
        return self.last(self.drop(x).flatten(1)) * factor + shift


def letters(count, length=20, seed=0):
    drawn = torch.randint(0, 4, (count, length), generator=torch.Generator().manual_seed(seed))
    return F.one_hot(drawn, 4).mT.float()


ACTIVATIONS = [nn.ReLU(), nn.LeakyReLU(), nn.ELU(), nn.Softplus(), nn.Tanh(), nn.Sigmoid()]


class TestFacts:
    @pytest.mark.parametrize("rules", ["complete", "rescale"])
    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda each: type(each).__name__)
    def test_reused_modules_converge(self, activation, rules):
        torch.manual_seed(0)
        model = Dna(activation, nn.MaxPool1d(2)).eval()
        found, delta = DeepLiftShap(model, rules=rules).attribute(
            letters(3), letters(4, seed=1), 1, return_convergence_delta=True
        )
        assert found.shape == (3, 4, 20)
        assert delta.abs().max() < 1e-6

    def test_a_sequence_is_attributed_by_itself(self):
        torch.manual_seed(0)
        explainer, x, background = (
            DeepLiftShap(Dna(nn.ReLU(), nn.MaxPool1d(2)).eval()),
            letters(6),
            letters(4, seed=1),
        )
        whole = explainer.attribute(x, background, 0)
        torch.testing.assert_close(explainer.attribute(x[2:3], background, 0), whole[2:3])
        assert not torch.allclose(whole[0], whole[1])

    def test_arguments_shift_and_scale(self):
        torch.manual_seed(0)
        explainer, x = DeepLiftShap(Dna(nn.ReLU(), nn.MaxPool1d(2)).eval()), letters(3)
        plain = explainer.attribute(x, letters(4, seed=1), 0)
        factor = torch.tensor([[1.0], [2.0], [-3.0]])
        found = explainer.attribute(x, letters(4, seed=1), 0, additional_forward_args=(0.7, factor))
        torch.testing.assert_close(found, plain * factor[..., None])

    def test_a_linear_model_has_its_weights(self):
        layer, x, background = nn.Linear(80, 3), letters(5), letters(4, seed=1)
        found = DeepLiftShap(nn.Sequential(nn.Flatten(), layer)).attribute(x, background, 2)
        torch.testing.assert_close(found, layer.weight[2].reshape(4, 20) * (x - background.mean(0)))

    def test_a_square_root_written_as_a_function(self):
        def model(x):
            return (x.sum((1, 2), keepdim=False) + 3).sqrt()[:, None]

        found, delta = DeepLift(model).attribute(letters(2), 0, 0, return_convergence_delta=True)
        torch.testing.assert_close(found.sum((1, 2)), torch.full((2,), 23**0.5 - 3**0.5))
        assert delta.abs().max() < 1e-6


LAYERS = {
    "sum of the first letter": lambda: [nn.AvgPool1d(100)],
    "dense": CASES["dense"].layers,
    "one input": lambda: [nn.Identity()],
    "sum of a conv": lambda: [nn.Conv1d(4, 12, 3), Sum()],
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Captum tells of its hooks
class TestAgainstCaptum:
    """What its tests compare with Captum's DeepLiftShap."""

    class Model(nn.Module):
        def __init__(self, *layers):
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, x, alpha=0, beta=1):
            return self.layers(x).flatten(1)[:, :1] * beta + alpha

    @pytest.mark.parametrize("rows", [1, 256])
    @pytest.mark.parametrize("name", LAYERS)
    def test_is_the_same(self, name, rows):
        theirs, x, x0 = pytest.importorskip("captum.attr"), sequences()[:4], shuffles(5)[0]
        model = self.Model(*LAYERS[name]())
        further = (torch.randn(4, 1), torch.randn(4, 1))
        for given in (None, further[:1], further):
            expected = theirs.DeepLiftShap(model).attribute(x, x0, 0, additional_forward_args=given)
            found = DeepLiftShap(model, rows=rows).attribute(x, x0, 0, additional_forward_args=given)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
