"""DeepLIFT's Rescale rule written down once more, layer by layer, in float64 and without autograd rules of ours."""

import torch
from torch import nn

ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.RReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softshrink,
)  # fmt: skip


class Residual(nn.Module):
    """What a layer gives, plus what it got."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + x


class SquareRoot(nn.Module):
    def forward(self, x):
        return x.sqrt()


def multipliers(model, x, x0):
    """Those of the only output, for pairs of inputs and baselines: `[pairs, …]` each."""
    return _back(model, torch.ones_like(model(x)), x, x0).detach()


def _back(layer, m, x, x0):
    """From the multipliers of a layer's outputs to those of its inputs."""
    if isinstance(layer, nn.Sequential):
        points = [(x, x0)]
        for each in layer:
            points.append((each(points[-1][0]), each(points[-1][1])))
        for each, (a, a0) in zip(reversed(layer), reversed(points[:-1]), strict=True):
            m = _back(each, m, a, a0)
        return m
    if isinstance(layer, Residual):
        return m + _back(layer.inner, m, x, x0)
    if isinstance(layer, (*ELEMENTWISE, SquareRoot)):
        slope = _gradient(layer, x, torch.ones_like(x))
        same = (x - x0).abs() < 1e-9
        return m * torch.where(same, slope, (layer(x) - layer(x0)) / (x - x0).where(~same, torch.ones_like(x)))
    if isinstance(layer, nn.MaxPool1d):
        return _pool(layer.kernel_size, m, x, x0)
    return _gradient(layer, x, m)  # linear


def _gradient(layer, x, m):
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(layer(leaf), leaf, m)[0]


def _pool(width, m, x, x0):
    """`max(y, y0) − y0` goes to the input's winner, `y − max(y, y0)` to the baseline's: windows side by side.

    Where both are one element, it takes all of the difference, and its slope is 1.
    """
    windows = m.shape[-1]
    cut = x[..., : width * windows].unflatten(-1, (windows, width))
    cut0 = x0[..., : width * windows].unflatten(-1, (windows, width))
    (y, winner), (y0, winner0) = cut.max(-1), cut0.max(-1)
    larger, shares = torch.maximum(y, y0), torch.zeros_like(cut)
    for value, at in ((larger - y0, winner), (y - larger, winner0)):
        shares.scatter_add_(-1, at[..., None], value[..., None])
    moved = cut - cut0
    slopes = shares / moved.where(moved != 0, torch.ones_like(moved))
    same = (winner == winner0)[..., None] & (torch.arange(width) == winner[..., None])
    found = (slopes.where(~same, torch.ones_like(slopes)) * m[..., None]).flatten(-2)
    return nn.functional.pad(found, (0, x.shape[-1] - found.shape[-1]))
