"""A layer has the contributions that its values have as inputs, beside all the values that bypass it."""

import pytest
import torch
from rule_cases import FAMILIES, MIXING
from torch import nn

from deeplift_fast.captum import DeepLift, LayerDeepLift

X, X0 = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0)).double()


class Gated(nn.Module):
    """An operation on a layer's output, times values that bypass the layer."""

    def __init__(self, call):
        super().__init__()
        self.inner, self.call = nn.Identity(), call

    def rest(self, inner, outer):
        made = self.call(inner)
        made = made.real if made.is_complex() else made
        return made.reshape(len(made), -1).sum(1) * torch.sin(outer).sum((1, 2))

    def forward(self, x):
        return self.rest(self.inner(x), x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_operation(family):
    for name, call in list(FAMILIES[family].items())[::3]:
        if name in MIXING:
            continue
        model = Gated(call)
        explainer = LayerDeepLift(model, "inner")
        found, delta = explainer.attribute(X, X0, return_convergence_delta=True)
        inner, outer = DeepLift(model.rest).attribute((X, X), (X0, X0))
        torch.testing.assert_close(found, inner, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        amounts = [row.delta for row in explainer.report() if row.rule == "bypass"]
        assert amounts == [pytest.approx(-float(outer.sum()), rel=1e-9, abs=1e-9)], name
        missed = found.sum((1, 2)) + outer.sum((1, 2)) - (model(X) - model(X0))
        torch.testing.assert_close(delta, missed - outer.sum((1, 2)), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("error")  # a wrong sample's bypass would look like a miss
@pytest.mark.parametrize("steps_first", [False, True])
@pytest.mark.parametrize(("batch", "steps"), [(4, 4), (3, 6), (2, 3)])
def test_every_sample_has_its_own(steps_first, batch, steps):
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=not steps_first).double().eval()

    def model(x):
        return encoder(x.transpose(0, 1)).mean(0)[:, 0] if steps_first else encoder(x).mean(1)[:, 0]

    x, x0 = torch.randn(2, batch, steps, 4).double()
    for layer in ("self_attn", "linear1"):
        found, delta = LayerDeepLift(model, getattr(encoder, layer)).attribute(x, x0, return_convergence_delta=True)
        alone = [
            LayerDeepLift(model, getattr(encoder, layer)).attribute(
                x[i : i + 1], x0[i : i + 1], return_convergence_delta=True
            )
            for i in range(batch)
        ]
        torch.testing.assert_close(delta, torch.cat([each for _, each in alone]))
        torch.testing.assert_close(found, torch.cat([each for each, _ in alone], 1 if steps_first else 0))


@pytest.mark.parametrize("at_once", [1, 3])
def test_with_steps(at_once):
    weights = torch.tensor([1.0, -2.0, 3.0]).double()
    model = nn.Sequential(nn.Tanh(), nn.Identity())
    explainer = LayerDeepLift(lambda x: model(x) @ weights + x @ weights, model[1], steps=4, segments_at_once=at_once)
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).double()
    _, delta = explainer.attribute(x, return_convergence_delta=True)
    torch.testing.assert_close(delta, -(x @ weights))
    amounts = {row.operation: row.delta for row in explainer.report() if row.rule == "bypass"}
    assert amounts == {"add": pytest.approx(float(delta.sum()))}
    assert explainer.report().delta == pytest.approx(float(delta.sum()))
