"""Products of float32 as three products of TF32 numbers: how recurrent kernels make them on tensor cores (`tf32x3`).

This needs no tensor core: a TF32 number is a float32 with 10 bits after the first, and the product of two is exact in
float32. The formulas are those of the kernels, in plain torch, over as many steps and units as StageNet has.
"""

import torch
from torch.overrides import TorchFunctionMode

from deeplift_fast.ops import naive

STEPS, SAMPLES, UNITS, LEVELS, INPUTS = 64, 4, 384, 3, 4


class Products(TorchFunctionMode):
    """Makes matrix products of float32 in another way."""

    def __init__(self, product):
        super().__init__()
        self.product = product

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """See :class:`TorchFunctionMode`."""
        if func.__name__ in ("matmul", "__matmul__") and args[0].dtype == torch.float32:
            return self.product(*args)
        return func(*args, **(kwargs or {}))


def tf32(x):
    """The nearest TF32 number; of two equally near ones the larger in size."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def once(a, b):
    return tf32(a) @ tf32(b)


def split(a, b):
    high, high_b = tf32(a), tf32(b)
    return tf32(a - high) @ high_b + high @ tf32(b - high_b) + high @ high_b


def through(dtype):
    """The states of StageNet's cell at every step and the multipliers of its inputs, in one column."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape, scale=1.0):
        return (scale * torch.randn(shape, generator=generator)).to(dtype)

    rows, scale, counts = STEPS * SAMPLES, UNITS**-0.5, torch.full((STEPS,), SAMPLES)
    u, u0, m_h = drawn(rows, INPUTS), drawn(rows, INPUTS), drawn(rows, UNITS)
    of_u, of_h = drawn(INPUTS, 4, UNITS), drawn(UNITS, 4, UNITS, scale=scale)
    masters_u, masters_h = drawn(INPUTS, 2 * LEVELS), drawn(UNITS, 2 * LEVELS, scale=scale)
    bias, k = drawn(4, UNITS), torch.empty(rows, 8, UNITS, dtype=dtype)
    h, h0, log_p, _ = naive.recurrent(
        u, u0, torch.arange(SAMPLES), counts, counts, of_u[None], of_h[None], bias[None], masters_u, masters_h,
        drawn(2 * LEVELS), k, LEVELS, "stagenet", "secant", 0.5,
    )  # fmt: skip
    back = [w.flatten(1).T[None, None] for w in (of_u, of_h)] + [w.T[None] for w in (masters_u, masters_h)]
    m_master = torch.zeros(rows, LEVELS, dtype=dtype)
    m_u = naive.recurrent_backward(m_h, m_master, k, log_p.exp(), counts, *back, LEVELS, "stagenet", INPUTS)
    return [each.double() for each in (h, h0, m_u)]


def test_split_products_err_as_float32_does():
    exact, errors = through(torch.float64), []
    for product in (torch.matmul, split, once):
        with Products(product):
            found = through(torch.float32)
        errors.append([float((x - y).norm() / y.norm()) for x, y in zip(found, exact, strict=True)])
    for plain, three, one in zip(*errors, strict=True):
        assert three < 3 * plain < 1e-6  # the factor depends on the order in which a processor sums
        assert one > 50 * plain
