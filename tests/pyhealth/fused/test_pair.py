"""Small operations in both streams, and their rules."""

import pytest
import torch
from torch import nn

from deeplift_fast.pyhealth.fused.pair import Arithmetic, Pair, layer_norm

COMPLETE = Arithmetic("complete")


def test_two_summands_of_a_layer_norm_share_it():
    """Exact Shapley values of `norm(a + b) @ w` are −0.9625 and −0.6779."""
    torch.manual_seed(0)
    w, a, b = (torch.randn(shape, dtype=torch.float64) for shape in (8, (1, 8), (1, 8)))
    norm = nn.LayerNorm(8).double().requires_grad_(False)
    y, back = layer_norm(Pair(a + b, torch.zeros_like(a)), norm, COMPLETE)
    m = back(w[None])
    found = torch.stack([(m * a).sum(), (m * b).sum()])
    torch.testing.assert_close(found, torch.tensor([-0.9363, -0.7040], dtype=torch.float64), rtol=0, atol=5e-5)
    assert float(found.sum()) == pytest.approx(float(((y.x - y.x0) @ w).sum()), rel=1e-12)


@pytest.mark.parametrize("affine", [True, False])
def test_a_layer_norm_from_a_baseline_of_zeros(affine):
    """Contributions of a residual block in float32 add up, and are not many times as large as their sum's terms."""
    torch.manual_seed(0)
    x, w = torch.randn(64, 32), torch.randn(32)
    norm = nn.LayerNorm(32, elementwise_affine=affine).requires_grad_(False)
    y, back = layer_norm(Pair(x, torch.zeros(1, 32), torch.zeros(64, dtype=torch.int64)), norm, COMPLETE)
    contributions = back(w.expand(64, 32)) * x
    changes = (y.x - y.facing()) * w
    size = changes.abs().sum(1)
    assert (contributions.abs().sum(1) < 3.01 * size).all()
    assert (contributions.double().sum(1) - changes.double().sum(1)).abs().max() < 1e-6 * size.min()
