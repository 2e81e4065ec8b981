"""Each rule against an independent, element-by-element re-write of its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplift_fast import attribute
from deeplift_fast.rules.softmax import log_mean

number = st.floats(-6, 6).map(lambda v: round(v, 3))


def multipliers(call, x, x0, target):
    """What one operation hands back: contributions over differences."""
    found = attribute(call, x, x0, target, rules="complete")
    return found.contributions, found


def logarithmic_mean(p, q):
    return (p + q) / 2 if abs(p - q) < 1e-6 * p else (p - q) / (math.log(p) - math.log(q))


@settings(deadline=None)
@given(st.lists(st.tuples(number, number), min_size=2, max_size=5), st.integers(0, 1))
def test_softmax_is_its_jacobian_at_the_logarithmic_means(pairs, target):
    z, z0 = ([pair[i] for pair in pairs] for i in (0, 1))
    p, p0 = ([math.exp(v) / sum(map(math.exp, w)) for v in w] for w in (z, z0))
    m = [logarithmic_mean(a, b) for a, b in zip(p, p0, strict=True)]
    expected = [(m[target] * (i == target) - m[target] * m[i] / sum(m)) * (z[i] - z0[i]) for i in range(len(pairs))]
    tensors = (torch.tensor([w], dtype=torch.float64) for w in (z, z0))
    found, _ = multipliers(lambda x: x.softmax(-1), *tensors, target)
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-10)


@settings(deadline=None)
@given(st.lists(st.tuples(number, number), min_size=1, max_size=5))
def test_logsumexp_weighs_by_logarithmic_means(pairs):
    z, z0 = ([pair[i] for pair in pairs] for i in (0, 1))
    p, p0 = ([math.exp(v) / sum(map(math.exp, w)) for v in w] for w in (z, z0))
    m = [logarithmic_mean(a, b) for a, b in zip(p, p0, strict=True)]
    expected = [mi / sum(m) * (a - b) for mi, a, b in zip(m, z, z0, strict=True)]
    tensors = (torch.tensor([w], dtype=torch.float64) for w in (z, z0))
    found, _ = multipliers(lambda x: x.logsumexp(-1, keepdim=True), *tensors, 0)
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-10)


@settings(deadline=None)
@given(st.lists(st.tuples(number, number), min_size=1, max_size=6))
def test_the_winner_rule_pays_the_two_winners(pairs):
    x, x0 = ([pair[i] for pair in pairs] for i in (0, 1))
    y, y0 = max(x), max(x0)
    expected = [0.0] * len(pairs)
    expected[x.index(y)] += max(y, y0) - y0
    expected[x0.index(y0)] += y - max(y, y0)
    tensors = (torch.tensor([w], dtype=torch.float64) for w in (x, x0))
    found, _ = multipliers(lambda x: x.amax(-1, keepdim=True), *tensors, 0)
    torch.testing.assert_close(found[0].sum(), torch.tensor(y - y0, dtype=torch.float64))
    if len(set(x)) == len(x) and len(set(x0)) == len(x0):
        torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64))


@settings(deadline=None)
@given(number, number, number, number)
def test_products_use_the_mean_of_the_other_operand(a, b, a0, b0):
    x, x0 = torch.tensor([[a, b]], dtype=torch.float64), torch.tensor([[a0, b0]], dtype=torch.float64)
    found, _ = multipliers(lambda x: x[:, :1] * x[:, 1:], x, x0, 0)
    expected = [(a - a0) * (b + b0) / 2, (b - b0) * (a + a0) / 2]
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64))


FUNCTIONS = {
    "exp": (torch.exp, math.exp, math.exp),
    "square": (torch.square, lambda v: v * v, lambda v: 2 * v),
    "gelu": (
        torch.nn.functional.gelu,
        lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))),
        lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))) + v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi),
    ),
    "softplus": (torch.nn.functional.softplus, lambda v: math.log1p(math.exp(v)), lambda v: 1 / (1 + math.exp(-v))),
    "sin": (torch.sin, math.sin, math.cos),
    "rsqrt": (lambda x: torch.rsqrt(x + 7), lambda v: (v + 7) ** -0.5, lambda v: -0.5 * (v + 7) ** -1.5),
    "sqrt": (lambda x: torch.sqrt(x + 7), lambda v: (v + 7) ** 0.5, lambda v: 0.5 * (v + 7) ** -0.5),
    "reciprocal": (lambda x: torch.reciprocal(x + 7), lambda v: 1 / (v + 7), lambda v: -1 / (v + 7) ** 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(deadline=None, max_examples=50)
@given(x=number, gap=st.one_of(number, st.sampled_from([0.0, 1e-3, -1e-6, 1e-9, 1e-12])))
def test_elementwise_functions_get_their_secant_slope(name, x, gap):
    call, f, derivative = FUNCTIONS[name]
    x0 = max(min(x + gap, 6.0), -6.0)
    found, _ = multipliers(call, torch.tensor([[x]], dtype=torch.float64), torch.tensor([[x0]], dtype=torch.float64), 0)
    slope = (f(x) - f(x0)) / (x - x0) if abs(x - x0) > 1e-4 else derivative((x + x0) / 2)
    assert found.item() == pytest.approx(slope * (x - x0), rel=1e-7, abs=1e-15)


def test_the_logarithmic_mean_is_accurate_and_symmetric():
    log_p = torch.tensor([0.0, -1.0, -1e4, -3.0, -torch.inf, -torch.inf, -5.0], dtype=torch.float64)
    log_q = torch.tensor([0.0, -1.0 - 1e-9, -1.0, -3.0 - 1e-3, -2.0, -torch.inf, -700.0], dtype=torch.float64)
    found = log_mean(log_p, log_q)
    torch.testing.assert_close(found, log_mean(log_q, log_p), rtol=0, atol=0)
    expected = [1.0, math.exp(-1) * (1 - 0.5e-9), math.exp(-1) / 9999, math.exp(-3) * (1 - 0.5e-3 + 1e-6 / 6), 0.0, 0.0]
    torch.testing.assert_close(found[:6], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-300)
