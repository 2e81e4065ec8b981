"""Times secant slopes of 16 M floats against eager torch, torch.compile and copies of the same bytes.

Goals: at least 5 times as fast as eager torch, at most twice the time of the copy. The op reads two tensors and writes
three. The copy moves as many bytes (2.5 tensors read, 2.5 written) into new memory, as the op does. The copy into
existing memory shows the cost of page faults.
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
    """The slope in plain torch. It cancels for near inputs; the op does not, as the accuracy tests show."""
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
