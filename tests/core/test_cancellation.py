"""`Σ|c| / |f(x) − f(x0)|` in the report: its numbers, whoever hands it out, and no copy or sync before it is read."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from fused_cases import STAGENET, batch_of, dataset, make
from pyhealth.models import StageNet
from torch import nn

from deeplift_fast import DeepLift as OfPyHealth
from deeplift_fast import attribute
from deeplift_fast.captum import DeepLift, DeepLiftShap
from deeplift_fast.core.cancellation import Cancellation, joined


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected(contributions, change):
    return contributions.flatten(1).abs().sum(1) / change.abs()


def check(cancellation, ratios):
    torch.testing.assert_close(cancellation.ratios(), ratios, rtol=1e-12, atol=0)
    assert cancellation.median == pytest.approx(np.percentile(ratios, 50), rel=1e-12)
    assert cancellation.p90 == pytest.approx(np.percentile(ratios, 90), rel=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")
def test_a_report_tells_of_what_was_handed_out(rules, batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 1)).double()
    found = attribute(model, draw(batch, 5), rules=rules)
    change = found.output - found.baseline_output
    check(found.report.cancellation, expected(found.contributions, change))
    text = str(found.report)
    assert f"median {found.report.cancellation.median:.3g}, 90th percentile" in text
    assert "cancel in the sum" in text


def test_inputs_of_a_sample_are_taken_together():
    found = attribute(lambda a, b: a - b.exp().sum((1, 2)), (draw(4), draw(4, 2, 3, seed=1)), rules="complete")
    sizes = found.contributions[0].abs() + found.contributions[1].abs().sum((1, 2))
    check(found.report.cancellation, sizes / (found.output - found.baseline_output).abs())


def test_no_change_and_no_contributions():
    x = torch.tensor([[1.0, -1.0], [0.0, 0.0], [3.0, -1.0], [2.0, 0.0]])
    found = attribute(lambda x: x.sum(1), x, rules="complete")
    ratios = found.report.cancellation.ratios()
    assert ratios[0] == math.inf
    assert ratios[1].isnan()
    assert ratios[2:].tolist() == [2, 1]
    assert found.report.cancellation.median == 2
    assert found.report.cancellation.p90 == math.inf
    nothing = Cancellation((torch.zeros(2, 3),), torch.zeros(2), torch.zeros(2))
    assert math.isnan(nothing.median)
    assert math.isnan(nothing.p90)


def test_an_empty_batch_has_none():
    found = attribute(lambda x: x.sum(1), torch.empty(0, 3), rules="complete")
    assert found.report.cancellation is None
    assert "cancellation" not in str(found.report)


def test_half_types_do_not_overflow():
    c = torch.full((1, 10), 6e4, dtype=torch.float16)
    assert Cancellation((c,), c[:, 0], torch.zeros(1).half()).median == pytest.approx(10)


def test_contributions_that_were_written_to_give_no_figure():
    found = attribute(lambda x: x.sum(1), draw(3, 2), rules="complete")
    kept = found.report.settled()
    found.contributions.mul_(2)
    assert found.report.cancellation.ratios().isnan().all()
    assert kept.cancellation.ratios().isfinite().all()


def test_it_survives_pickling_and_copying():
    found = attribute(lambda x: (x * 1).sum(1), draw(3, 2), rules="complete")
    for other in (pickle.loads(pickle.dumps(found.report)), copy.deepcopy(found.report)):
        assert str(other) == str(found.report)


def test_parts_are_joined():
    whole = draw(6, 4), draw(6, seed=1), draw(6, seed=2)
    parts = [Cancellation((whole[0][s],), whole[1][s], whole[2][s]) for s in (slice(0, 2), slice(2, 6))]
    check(joined(parts), expected(whole[0], whole[1] - whole[2]))


class TestCaptum:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def test_of_a_call(self):
        explainer, x = DeepLift(self.model), draw(5, 3)
        contributions = explainer.attribute(x)
        with torch.no_grad():
            change = (self.model(x) - self.model(torch.zeros_like(x)))[:, 0]
        check(explainer.report().cancellation, expected(contributions, change))

    def test_of_every_pair_with_a_background(self):
        explainer, x, x0 = DeepLiftShap(self.model, rows=4), draw(3, 3), draw(2, 3, seed=1)
        explainer.attribute(x, x0)
        rows, refs = x.repeat_interleave(2, 0), x0.repeat(3, 1)
        found = attribute(self.model, rows, refs, rules="complete")
        check(explainer.report().cancellation, found.report.cancellation.ratios())


@pytest.fixture(scope="module")
def given():
    data = dataset(STAGENET)
    return make(StageNet, data, embedding_dim=16, chunk_size=6), batch_of(data)


@pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")
class TestDeepLift:
    """Of what its users get: one contribution per token, scaled under `"rescale"`; on both routes."""

    @staticmethod
    def sizes(contributions):
        return sum(each.flatten(1).abs().sum(1) for each in contributions.values())

    @pytest.mark.parametrize("fuse", [True, False])
    @pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
    def test_of_one_baseline(self, given, rules, fuse):
        model, batch = given
        explainer = OfPyHealth(model, rules=rules, fuse=fuse)
        found = explainer.explain(**batch)
        ratios = self.sizes(found.contributions) / (found.output - found.baseline_output).abs()
        check(found.report.cancellation, ratios)
        check(explainer.report().cancellation, ratios)
        assert str(found.report.cancellation) in str(explainer.report())

    def test_of_the_mean_over_baselines(self, given):
        model, batch = given
        explainer = OfPyHealth(model, rules="complete")
        codes, labs = (value[1] for value in (batch["codes"], batch["labs"]))
        baselines = [{"codes": codes * 0 + i, "labs": labs * 0 + 0.1 * i} for i in (1, 2)]
        found = explainer.explain(baselines, **batch)
        change = found.output - found.baseline_output.mean(0)
        check(explainer.report().cancellation, self.sizes(found.contributions) / change.abs())
