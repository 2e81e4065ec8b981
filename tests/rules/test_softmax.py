"""What the softmax rules keep of softmax itself (dtypes, under autocast too), and multipliers that sum to zero."""

import pytest
import torch
from torch import nn

from deeplift_fast import attribute
from deeplift_fast.rules.softmax import LogSoftmaxRule, SoftmaxRule

RULES = {torch.softmax: SoftmaxRule, torch.log_softmax: LogSoftmaxRule}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("function", RULES)
def test_dtypes_are_those_of_the_function(function, dtype, autocast):
    z = torch.linspace(-2, 3, 12).reshape(3, 4).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected, found = function(z, 1), RULES[function].apply(z, z.detach() - 1, 1)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert z.grad.dtype == dtype


class Ones(nn.Module):
    """Two layers of ones, and logits that differ by their biases alone: no input moves a probability."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(40, 20), nn.Linear(20, 20), nn.Linear(20, 10)
        for layer in (self.first, self.second, self.last):
            nn.init.ones_(layer.weight)

    def forward(self, x):
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("function", RULES)
def test_logits_of_a_million_that_move_together_contribute_nothing(function, seed):
    torch.manual_seed(seed)
    model = Ones()
    x = torch.arange(120.0).reshape(3, 40)
    assert model(x).abs().max() > 1e6
    found = attribute(lambda x: function(model(x), 1), x, 0, 2, rules="complete", modules=(model,), delta_tol=1e9)
    assert found.contributions.sum(1).abs().max() < 1e-3


@pytest.mark.parametrize("rule", RULES.values())
def test_multipliers_sum_to_zero_in_any_order(rule):
    draw = torch.Generator().manual_seed(0)
    z, z0 = (1e4 * torch.randn(20, 33, generator=draw) for _ in range(2))
    z[0, 3], z[1], z[2, 5], z0[2, 5] = -torch.inf, 0.0, -torch.inf, -torch.inf
    z.requires_grad_()
    g = torch.randn(20, 33, generator=draw) * torch.logspace(-30, 4, 20)[:, None]
    (m,) = torch.autograd.grad(rule.apply(z, z0, 1), z, g)
    assert m.isfinite().all()
    assert (m != 0).any(1).sum() > 15  # in the others one logit wins by far in both streams
    for order in (torch.arange(33), torch.arange(32, -1, -1), torch.randperm(33, generator=draw)):
        assert (m[:, order].cumsum(1)[:, -1] == 0).all()


def test_where_logits_stay_near_nothing_is_rounded():
    z, z0 = torch.tensor([[20.0, 0.0, 1.0]], requires_grad=True), torch.zeros(1, 3)
    (m,) = torch.autograd.grad(SoftmaxRule.apply(z, z0, 1)[:, 0].sum(), z)
    wide = z.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(SoftmaxRule.apply(wide, z0.double(), 1)[:, 0].sum(), wide)
    torch.testing.assert_close(m, expected.float(), rtol=2e-6, atol=0)
