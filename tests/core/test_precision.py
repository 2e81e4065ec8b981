"""Attribution of any model has float32's precision, whatever PyTorch is set to."""

import pytest
import torch
from precision_cases import SETTINGS, all_full, fresh_settings, state
from torch import nn

from deeplift_fast import attribute, captum
from deeplift_fast.core.attribution import explain
from deeplift_fast.core.options import Options

pytestmark = [
    pytest.mark.usefixtures("fresh_settings"),
    pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning"),
]
__all__ = ["fresh_settings"]


class Watch(torch.autograd.Function):
    """The identity; notes whether products have full precision in either direction."""

    seen: list[bool]

    @staticmethod
    def forward(ctx, x):
        Watch.seen.append(all_full())
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Watch.seen.append(all_full())
        return gradient


class Layers(nn.Module):
    """A convolution, a recurrent layer and products, or an error after them."""

    def __init__(self, fails=False):
        super().__init__()
        self.first, self.fails = nn.Conv1d(6, 16, 3), fails
        self.second, self.last = nn.GRU(16, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, x):
        h = self.last(Watch.apply(self.second(self.first(x).mT.tanh())[0][:, -1]))
        if self.fails:
            raise LookupError
        return h


def captums(model, x):
    captum.DeepLift(model).attribute(x, target=0)


def deltas(model, x):
    captum.DeepLift(model).compute_convergence_delta(torch.zeros_like(x), 0.0, x, target=0)


CALLS = {
    "attribute": lambda model, x: attribute(model, x, target=0),
    "complete": lambda model, x: attribute(model, x, target=0, rules="complete"),
    "several segments": lambda model, x: attribute(model, x, target=0, rules="complete", steps=4, segments_at_once=2),
    "as a callable": lambda model, x: attribute(lambda given: model(given), x, target=0, modules=[model]),
    "explain": lambda model, x: explain(model, x, target=0, options=Options("complete")),
    "captum": captums,
    "captum's deltas": deltas,
}


@pytest.mark.parametrize("setting", ["high", "medium", "all"])
@pytest.mark.parametrize("call", CALLS)
def test_the_model_runs_in_full_precision_and_the_setting_returns(call, setting):
    SETTINGS[setting]()
    before, Watch.seen = state(), []
    CALLS[call](Layers().eval(), torch.randn(3, 6, 8))
    assert Watch.seen
    assert all(Watch.seen)
    assert state() == before


def test_after_an_error_the_setting_returns():
    SETTINGS["high"]()
    before, Watch.seen = state(), []
    with pytest.raises(LookupError):
        attribute(Layers(fails=True).eval(), torch.randn(3, 6, 8), target=0)
    assert Watch.seen == [True]
    assert state() == before


def contributions(model, x, setting, device="cpu"):
    SETTINGS[setting]()
    Watch.seen = []
    return attribute(model.to(device), x.to(device), target=0, rules="complete")


@pytest.mark.parametrize("setting", ["high", "medium", "all"])
def test_contributions_do_not_change_with_the_setting(setting):
    model, x = Layers().eval(), torch.randn(3, 6, 64)
    expected, found = (contributions(model, x, each) for each in ("highest", setting))
    for name in ("contributions", "output", "baseline_output"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("setting", ["high", "medium", "all"])
def test_contributions_on_a_gpu_do_not_change_with_the_setting(setting):
    model, x = Layers().eval(), torch.randn(64, 6, 64)
    exact = attribute(model.double(), x.double(), target=0, rules="complete").contributions
    expected, found = (contributions(model.float(), x, each, "cuda").contributions for each in ("highest", setting))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(exact.abs().max()))
    torch.testing.assert_close(found.cpu().double(), exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_the_report_says_which_precision_is_used_and_which_is_set():
    Watch.seen = []
    model, x = Layers().eval(), torch.randn(3, 6, 8)
    report = attribute(model, x, target=0).report
    assert report.precision == "full (ieee), as set"
    SETTINGS["medium"]()
    for report in (attribute(model, x, target=0).report, explain(model, x, target=0).report):
        assert report.precision == "full (ieee), although torch.backends sets mkldnn.matmul to bf16"
        assert f"precision of float32 products: {report.precision}" in str(report).splitlines()
    found = captum.DeepLiftShap(model)
    found.attribute(x, torch.zeros(2, 6, 8), target=0)
    assert found.report().precision == report.precision
