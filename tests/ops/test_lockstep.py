"""`lockstep` and `lockstep_backward` in plain torch: each layer is what `recurrent` makes of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import naive
from deeplift_fast.ops.cells import rows_per_sample


def drawn(*shape, seed=0, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def case(steps=(3, 2), samples=2, units=6, levels=2, further=1, dtype=torch.float64):
    """Arguments of both ops."""
    layers, columns, rows = len(steps), 4 * units + 2 * levels + further, samples * rows_per_sample(steps)
    k = torch.full((rows, 8, units), torch.nan, dtype=dtype)
    every = torch.zeros(0, layers, dtype=torch.int64)
    turns = {"order": every, "lengths": every, "column_of": list(range(layers))}
    forward = {
        "projected": drawn(2 * rows, columns, seed=1, dtype=dtype),
        "where": torch.arange(samples),
        "steps": list(steps),
        **turns,
        "weight": drawn(layers, units, columns, seed=2, dtype=dtype, scale=0.4),
        "bias": drawn(layers, columns, seed=3, dtype=dtype),
        "coefficients": k,
        "levels": levels,
        "slope": "secant",
        "half": 0.5,
    }
    backward = {
        "m_h": drawn(rows, units, seed=4, dtype=dtype),
        "m_master": drawn(rows, levels, seed=5, dtype=dtype),
        "coefficients": k,
        "shares": drawn(rows, 2 * levels, seed=6, dtype=dtype).abs() + 0.1,
        "steps": list(steps),
        **turns,
        "weight": forward["weight"],
        "levels": levels,
    }
    return forward, backward


def alone(forward, backward, i, inputs=3):
    """Layer i through `recurrent`, its inputs' projection included."""
    (steps, samples), weight, levels = (
        (forward["steps"], len(forward["where"])),
        forward["weight"][i],
        forward["levels"],
    )
    units, first, count = len(weight), i * steps[0] * samples, steps[i] * samples
    rows, gates, used = slice(first, first + count), 4 * units, 4 * units + 2 * levels
    u, u0 = drawn(count, inputs, seed=7), drawn(count, inputs, seed=8)
    to_gates = drawn(inputs, used, seed=9)
    forward["projected"][rows, :used] = u @ to_gates
    forward["projected"][len(backward["m_h"]) :][rows, :used] = u0 @ to_gates

    def parts(x):
        return x[:, :gates].unflatten(1, (4, units))[None], x[:, gates:used]

    (w_u, master_u), (w_h, master_h), (b, master_b) = parts(to_gates), parts(weight), parts(forward["bias"][i : i + 1])
    k, counts = torch.empty(count, 8, units, dtype=torch.float64), torch.full((steps[i],), samples)
    weights = (w_u, w_h, b[:, 0], master_u, master_h, master_b[0])
    found = naive.recurrent(u, u0, forward["where"], counts, counts, *weights, k, levels, "stagenet", "secant", 0.5)
    given = [backward[name][rows] for name in ("m_h", "m_master")]
    shares = backward["shares"][rows]
    back = (to_gates.T[:gates], weight.T[:gates], to_gates.T[gates:], weight.T[gates:used])
    wide = [torch.nn.functional.pad(each, (0, -each.shape[1] % 4)) for each in back]
    back = (wide[0][None, None], wide[1][None, None], wide[2][None], wide[3][None])
    m_u = naive.recurrent_backward(*given, k, shares, counts, *back, levels, "stagenet", inputs)
    return rows, (*found, k), m_u[:, :inputs], to_gates.T


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(lambda x: sorted(x, reverse=True)),
    samples=st.integers(1, 3),
    chunk=st.integers(1, 5),
    levels=st.integers(1, 3),
    further=st.integers(0, 3),
)
def test_each_layer_is_that_of_recurrent(steps, samples, chunk, levels, further):
    forward, backward = case(steps, samples, chunk * levels, levels, further)
    expected = [alone(forward, backward, i) for i in range(len(steps))]
    found = (*ops.lockstep(**forward), forward["coefficients"])
    d = ops.lockstep_backward(**backward)[:, : 4 * chunk * levels + 2 * levels]
    for rows, states, m_u, to_inputs in expected:
        for result, target in zip(found, states, strict=True):
            torch.testing.assert_close(result[rows], target, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(d[rows] @ to_inputs, m_u, rtol=1e-11, atol=1e-11)


def test_float32_rounds_alone():
    found = []
    for dtype in (torch.float32, torch.float64):
        forward, backward = case()
        forward, backward = (
            {n: v.float().to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for n, v in each.items()}
            for each in (forward, backward)
        )
        states = ops.lockstep(**forward)
        found.append((*states, ops.lockstep_backward(**backward | {"coefficients": forward["coefficients"]})))
    for single, double in zip(*found, strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double()[:, :28], double[:, :28], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("samples", "units"), [(0, 6), (2, 0)])
def test_nothing(samples, units):
    forward, backward = case(samples=samples, units=units)
    h, h0, log_p, _ = ops.lockstep(**forward)
    assert h.shape == h0.shape == (5 * samples, units)
    assert log_p.shape == (5 * samples, 4)
    assert ops.lockstep_backward(**backward).shape == (5 * samples, 4 * units + 5)


def test_multipliers_past_the_end_are_0():
    forward, backward = case()
    order, lengths = torch.tensor([[1, 0], [0, 1]]), torch.tensor([[2, 2], [1, 1]])
    turns = {"order": order, "lengths": lengths, "column_of": [1, 0]}  # layer 0 ends after 2 and 1 steps
    ops.lockstep(**forward | turns)
    past = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 1, 0]).bool()  # and layer 1 after 1 and 2
    found, every = ops.lockstep_backward(**backward | turns), {"m_h": backward["m_h"].clone()}
    every["m_h"][past] = 0
    every["m_master"] = backward["m_master"].clone()
    every["m_master"][past] = 0
    expected = ops.lockstep_backward(**backward | every)
    assert not found[past, :28].any()
    torch.testing.assert_close(found[:, :28], expected[:, :28], rtol=1e-12, atol=1e-12)
    backward["m_h"][past] = torch.nan
    assert torch.equal(ops.lockstep_backward(**backward | turns)[:, :28], found[:, :28])


def test_what_pytorch_asks_of_an_op():
    forward, backward = case()
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.deeplift_fast.lockstep.default, tuple(forward.values()), test_utils=tests)
    ops.lockstep(**forward)
    torch.library.opcheck(torch.ops.deeplift_fast.lockstep_backward.default, tuple(backward.values()), test_utils=tests)


WRONG = [
    ({"slope": "derivative"}, ValueError, "slope is 'derivative'; accepted: secant, pyhealth"),
    ({"steps": [2, 3]}, ValueError, r"steps is \[2, 3\]; accepted: 2 falling numbers, one per layer"),
    ({"steps": [3]}, ValueError, "accepted: 2 falling numbers"),
    ({"steps": [3, 0]}, ValueError, "from 1 on"),
    ({"steps": [3, 1]}, ValueError, r"coefficients has 10 rows; accepted: 8, for steps \[3, 1\]"),
    ({"levels": 4}, ValueError, "29 columns and 6 units do not fit 4 levels"),
    ({"levels": 0}, ValueError, "do not fit 0 levels"),
    ({"bias": torch.zeros(2, 28).double()}, ValueError, r"bias has shape \(2, 28\); accepted: \(2, 29\)"),
    ({"projected": torch.zeros(18, 29).double()}, ValueError, r"projected has shape \(18, 29\); accepted: \(20, 29\)"),
    ({"projected": torch.zeros(20, 29)}, TypeError, "projected is torch.float32 and weight torch.float64"),
    ({"projected": torch.zeros(20, 29).half()}, TypeError, "projected is torch.float16; accepted"),
    ({"weight": torch.zeros(6, 29).double()}, ValueError, "weight"),
    ({"where": torch.tensor([0, 2])}, ValueError, "where names a baseline other than 0 to 1"),
    ({"where": torch.tensor([0.0, 1.0])}, TypeError, "where"),
    (dict.fromkeys(("order", "lengths"), torch.ones(1, 2).long()), ValueError, "order has 1 rows; accepted: 2"),
    ({"column_of": [0, 2]}, ValueError, r"column_of is \[0, 2\]; accepted: each number from 0 to 1 once"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "text"), WRONG)
def test_wrong_arguments(changed, error, text):
    with pytest.raises(error, match=text):
        ops.lockstep(**case()[0] | changed)


WRONG_BACK = [
    ({"m_h": torch.zeros(9, 6).double()}, ValueError, r"m_master has shape \(10, 2\); accepted: \(9, 2\)"),
    (
        {"m_master": torch.zeros(10, 3).double()},
        ValueError,
        r"m_master has shape \(10, 3\); accepted: \(10, 2\)",
    ),
    ({"shares": torch.zeros(10, 4)}, TypeError, "m_h is torch.float64 and shares torch.float32"),
    ({"steps": []}, ValueError, "accepted: 2 falling numbers"),
    ({"steps": [4, 3]}, ValueError, "m_h has 10 rows; accepted: a multiple of 7"),
]


@pytest.mark.parametrize(("changed", "error", "text"), WRONG_BACK)
def test_wrong_arguments_of_the_way_back(changed, error, text):
    with pytest.raises(error, match=text):
        ops.lockstep_backward(**case()[1] | changed)
