"""Secant slopes of 16 M floats against eager torch, torch.compile and copies of the same bytes.

Goals: at least 5 times eager, at most twice the copy. The op reads two streams and writes three; the copy moves as many
bytes (2.5 tensors read, 2.5 written) into memory that it allocates, as the op does. The copy into memory that is there
already shows what the page faults cost.
"""

import pytest
import torch

from deeplift_fast import ops

SIZE = 1 << 24
EPS = 1e-6
ACTIVATION = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
DERIVATIVE = {
    "relu": lambda x, y: (x > 0).to(y.dtype),
    "sigmoid": lambda x, y: y * (1 - y),
    "tanh": lambda x, y: 1 - y * y,
}


def by_several_ops(x, x0, function):
    """What one writes in plain torch, and what cancels: see the accuracy tests for what the op does instead."""
    y, y0 = ACTIVATION[function](x), ACTIVATION[function](x0)
    delta = x - x0
    return y, y0, torch.where(delta.abs() > EPS, (y - y0) / delta, DERIVATIVE[function](x, y))


@pytest.mark.parametrize("function", ACTIVATION)
def test_secant(in_turn, function):
    torch.manual_seed(0)
    x, x0 = 3 * torch.randn(SIZE), 3 * torch.randn(SIZE)
    half = x[: SIZE // 2]
    there = [torch.empty_like(x), torch.empty_like(x), torch.empty_like(half)]
    compiled = torch.compile(by_several_ops, fullgraph=True)
    in_turn(
        {
            "deeplift_fast": lambda: ops.secant(x, x0, function),
            "eager": lambda: by_several_ops(x, x0, function),
            "torch.compile": lambda: compiled(x, x0, function),
            "copy": lambda: (x.clone(), x0.clone(), half.clone()),
            "copy into memory that is there": lambda: [
                to.copy_(of) for to, of in zip(there, (x, x0, half), strict=True)
            ],
        },
        rounds=15,
    )
