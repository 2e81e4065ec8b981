"""Models without a path of gradients to their inputs are refused, in place of contributions of 0."""

import warnings

import pytest
import torch
from torch import nn

from deeplift_fast import InterceptionError, attribute, captum

pytestmark = pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")


class Tree(nn.Module):
    """A model that computes outside of PyTorch."""

    def forward(self, x):
        return torch.from_numpy((x.detach().numpy() > 0).astype("float32")).sum(1, keepdim=True)


def _quantized():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


def _without_gradients(x):
    with torch.no_grad():
        return x.exp().sum(1, keepdim=True)


class Fixed(nn.Module):
    """A model of its parameters alone."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.bias.expand(len(x), 1)


DEAF = {
    "another library": Tree(),
    "no_grad": _without_gradients,
    "a comparison": lambda x: (x > 0).float().sum(1, keepdim=True),
    "integers": lambda x: x.long().float().sum(1, keepdim=True),
    "parameters alone": Fixed(),
    "a constant": lambda x: torch.ones(len(x), 1),
}


class TestModelsWithoutGradients:
    MESSAGE = "the output does not depend on the inputs through PyTorch's operations"

    @pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
    @pytest.mark.parametrize("name", DEAF)
    def test_are_refused(self, name, rules):
        with pytest.raises(InterceptionError, match=self.MESSAGE):
            attribute(DEAF[name], torch.randn(3, 4), target=0, rules=rules)

    @pytest.mark.parametrize("explainer", [captum.DeepLift, captum.DeepLiftShap])
    def test_are_refused_by_captums_classes(self, explainer):
        with pytest.raises(InterceptionError, match=self.MESSAGE):
            explainer(Tree()).attribute(torch.randn(3, 4), torch.zeros(1, 4))

    def test_quantized_layers_are_refused(self):
        with pytest.raises(InterceptionError, match=self.MESSAGE):
            attribute(_quantized(), torch.randn(3, 4), target=0)

    @pytest.mark.parametrize("options", [{"steps": 3}, {"steps": 4, "segments_at_once": 2}])
    def test_are_refused_over_several_steps(self, options):
        with pytest.raises(InterceptionError, match=self.MESSAGE):
            attribute(Tree(), torch.randn(3, 4), target=0, rules="complete", **options)

    def test_one_input_that_counts_is_enough(self):
        found = attribute(lambda a, b: a * 2 + (b > 0).float(), (torch.ones(2, 1), torch.ones(2, 1)), target=0)
        assert found.contributions[0].tolist() == [[3.0], [3.0]]
        assert not found.contributions[1].any()

    def test_a_path_that_changes_nothing_is_fine(self):
        assert not attribute(lambda x: x * 0, torch.ones(2, 1), target=0).contributions.any()
