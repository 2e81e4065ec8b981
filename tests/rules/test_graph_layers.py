"""Layers of graph networks, written as PyTorch Geometric writes them: messages reduced by scatter and by segment."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deeplift_fast import attribute

GRAPHS, NODES, WIDTH = 3, 7, 5
SOURCE = torch.tensor([0, 1, 2, 3, 4, 5, 0, 2, 4, 1, 3, 5, 6, 2])
TARGET = torch.tensor([1, 2, 3, 0, 1, 1, 3, 0, 3, 0, 1, 2, 2, 5])  # nodes 4 and 6 hear of none


def scatter(messages, index, how, nodes=NODES):
    """Messages `[edges, …]` at their nodes; 0 where there is none."""
    shape = (-1, *[1] * (messages.dim() - 1))
    found = messages.new_zeros(nodes, *messages.shape[1:])
    where = index.reshape(shape).expand_as(messages)
    if how == "sum":
        return found.scatter_add_(0, where, messages)
    name = {"max": "amax", "min": "amin", "mean": "mean"}[how]
    return found.scatter_reduce_(0, where, messages, reduce=name, include_self=False)


def by_segment(messages, index, how, nodes=NODES):
    """The same over edges sorted by node."""
    order = index.argsort(stable=True)
    ends = F.pad(torch.bincount(index, minlength=nodes).cumsum(0), (1, 0))
    found = torch._segment_reduce(messages[order], how, offsets=ends, axis=0)
    return found.masked_fill(found.isinf(), 0.0) if how in ("max", "min") else found


class Sage(nn.Module):
    def __init__(self, reduce):
        super().__init__()
        self.reduce, self.near, self.own = reduce, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        return F.normalize(self.near(self.reduce(x[SOURCE], TARGET, "max")) + self.own(x), dim=-1)


class Pna(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(13 * WIDTH, WIDTH)

    def forward(self, x):
        messages = self.before(torch.cat([x[TARGET], x[SOURCE]], -1))
        mean = scatter(messages, TARGET, "mean")
        variance = (scatter(messages * messages, TARGET, "mean") - mean * mean).clamp(min=1e-5)
        found = torch.cat(
            [mean, scatter(messages, TARGET, "min"), scatter(messages, TARGET, "max"), variance.sqrt()], -1
        )
        degree = torch.log(torch.bincount(TARGET, minlength=NODES).clamp(min=1).to(x.dtype) + 1)[:, None]
        return self.after(torch.cat([x, found, found * degree, found / degree], -1))


class Gat(nn.Module):
    def __init__(self, heads=2):
        super().__init__()
        self.heads, self.linear = heads, nn.Linear(WIDTH, heads * WIDTH, bias=False)
        self.at_target, self.at_source = (nn.Parameter(torch.randn(heads, WIDTH)) for _ in range(2))

    def forward(self, x):
        h = self.linear(x).reshape(NODES, self.heads, WIDTH)
        scores = F.leaky_relu((h * self.at_source).sum(-1)[SOURCE] + (h * self.at_target).sum(-1)[TARGET], 0.2)
        risen = (scores - scatter(scores.detach(), TARGET, "max")[TARGET]).exp()
        weights = risen / (scatter(risen, TARGET, "sum") + 1e-16)[TARGET]
        return scatter(h[SOURCE] * weights[..., None], TARGET, "sum").mean(1)


class Pooled(nn.Module):
    """Two layers over each graph of a batch, then the largest of every feature over the graph's nodes."""

    def __init__(self, layers):
        super().__init__()
        self.layers, self.last = nn.ModuleList(layers), nn.Linear(2 * WIDTH, 2)

    def one(self, x):
        for layer in self.layers:
            x = F.elu(layer(x))
        both = [scatter(x, torch.zeros(NODES, dtype=torch.int64), how, 1)[0] for how in ("max", "mean")]
        return self.last(torch.cat(both))

    def forward(self, x):
        return torch.stack([self.one(graph) for graph in x])


LAYERS = {
    "SAGE, max": lambda: Sage(scatter),
    "SAGE, max by segment": lambda: Sage(by_segment),
    "PNA": Pna,
    "GAT": Gat,
}


@pytest.mark.parametrize("name", LAYERS)
def test_graph_layers_are_complete(name):
    torch.manual_seed(0)
    model = Pooled([LAYERS[name](), LAYERS[name]()]).double()
    x, x0 = torch.randn(2, GRAPHS, NODES, WIDTH, dtype=torch.float64)
    x0[0, :3] = x[0, :3]
    found = attribute(model, x, x0, torch.tensor([0, 1, 0]), rules="complete")
    assert (found.output - found.baseline_output).abs().min() > 1e-3
    assert found.convergence_delta.abs().max() < 1e-8
    assert {row.rule for row in found.report} <= {"linear", "secant", "midpoint", "winner", "quotient"}
    assert any(row.rule == "winner" for row in found.report)


def test_products_of_many_are_complete():
    x = torch.rand(2, 300, dtype=torch.float64) + 0.5
    group = torch.arange(300) % 3

    def model(x):
        return torch.stack([each.new_ones(3).scatter_reduce(0, group, each, "prod") for each in x])

    found = attribute(model, x, 1.0, 2, rules="complete")
    assert (found.contributions[:, 2::3] != 0).all()
    assert (found.contributions[:, group != 2] == 0).all()
    assert found.convergence_delta.abs().max() < 1e-12 * max(1, float(found.output.abs().max()))


def test_winners_by_hand():
    x, x0 = torch.tensor([[1.0, 5.0, 2.0, -3.0]]), torch.tensor([[4.0, 0.0, 2.0, -1.0]])
    group = torch.tensor([[0, 0, 0, 1]])
    into = torch.zeros(1, 2)
    found = attribute(lambda x: into.scatter_reduce(1, group, x, "amax"), x, x0, 0, rules="complete")
    assert found.contributions.tolist() == [[0.0, 1.0, 0.0, 0.0]]
    found = attribute(lambda x: into.scatter_reduce(1, group, x, "amin"), x, x0, 1, rules="complete")
    assert found.contributions.tolist() == [[0.0, 0.0, 0.0, -2.0]]
    found = attribute(lambda x: into.scatter_reduce(1, group, x, "amax"), x, x0, 1, rules="complete")
    assert found.contributions.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    found = attribute(lambda x: x.cummax(1).values, x, x0, 0, rules="complete")
    assert found.contributions.tolist() == [[-3.0, 0.0, 0.0, 0.0]]


def test_what_jumps_stays_by_gradient_and_named():
    for call in (lambda x: x.exp().kthvalue(2, -1).values[:, None], lambda x: x.exp().quantile(0.4, -1)[:, None]):
        found = attribute(call, torch.randn(2, 6), torch.randn(2, 6), 0, rules="complete", delta_tol=1e9)
        assert "gradient" in {row.rule for row in found.report}
