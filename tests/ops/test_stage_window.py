"""The stage window against the chain of operations that PyHealth's StageNetLayer writes, and its rules."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import naive

LEVELS, CHUNK, PADDED, WINDOW = 3, 4, 6, 4
LENGTHS = (6, 2, 1)


def draw(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(dtype=torch.float64):
    """Three samples: rows one after the other, by sample; the baseline's in reverse order."""
    lengths = torch.tensor(LENGTHS)
    total = int(lengths.sum())
    step = lengths[:, None] - WINDOW + torch.arange(WINDOW)
    rows = (lengths.cumsum(0) - lengths)[:, None] + step.clamp(min=0)
    log_p = [draw(total, 2, LEVELS, seed=seed).log_softmax(-1).flatten(1).to(dtype) for seed in (1, 2)]
    h = tuple(draw(total, LEVELS * PADDED, seed=seed).to(dtype) for seed in (3, 4))
    return {
        "h": h, "log_p": tuple(log_p), "places": (rows, total - 1 - rows), "rows": (rows, total - 1 - rows),
        "real": step >= 0, "levels": LEVELS, "hidden": LEVELS * CHUNK,
    }  # fmt: skip


def written_out(h, gates, rows, real):
    """One stream, from states and forget master gates: local, mean and last."""
    window = h.unflatten(1, (LEVELS, PADDED))[..., :CHUNK].flatten(1)[rows] * real.unsqueeze(-1)
    distance = (1 - gates[rows].mean(-1)) * real
    local = window * torch.softmax(distance.cumsum(-1), -1).unsqueeze(-1)
    return local, local.mean(1), window[:, -1]


def gates_of(log_p):
    return log_p[:, :LEVELS].exp().cumsum(-1)


def multipliers():
    return (draw(3, WINDOW, 12, seed=5), draw(3, 12, seed=6), draw(3, 12, seed=7))


def forward(fixed):
    pairs = (each for name in ("h", "log_p", "places", "rows") for each in fixed[name])
    return ops.stage_window(*pairs, fixed["real"], fixed["levels"], fixed["hidden"])


def backward(fixed, log_stage, half):
    return ops.stage_window_backward(
        *multipliers(), *fixed["h"], *fixed["places"], fixed["rows"][0], fixed["real"], log_stage,
        fixed["log_p"][0], LEVELS, half,
    )  # fmt: skip


def test_both_streams_are_the_chain_of_operations():
    fixed = case()
    found = forward(fixed)
    for stream in (0, 1):
        h, gates, rows = fixed["h"][stream], gates_of(fixed["log_p"][stream]), fixed["rows"][stream]
        for result, expected in zip(found, written_out(h, gates, rows, fixed["real"]), strict=False):
            torch.testing.assert_close(result[stream], expected)


def test_without_midpoints_it_is_the_gradient():
    fixed = case()
    log_stage = forward(fixed)[3]
    h, gates = fixed["h"][0].clone().requires_grad_(), gates_of(fixed["log_p"][0]).requires_grad_()
    outputs = written_out(h, gates, fixed["rows"][0], fixed["real"])
    expected = torch.autograd.grad(outputs, (h, gates), multipliers())
    for result, target in zip(backward(fixed, log_stage, 0.0), expected, strict=True):
        torch.testing.assert_close(result, target)


def test_midpoints_are_complete():
    fixed = case()
    *outputs, log_stage = forward(fixed)
    rise = sum((m * (y[0] - y[1])).sum() for m, y in zip(multipliers(), outputs, strict=True))
    m_h, m_master = backward(fixed, log_stage, 0.5)
    # The baseline's rows stand in reverse order.
    fall_h = fixed["h"][0] - fixed["h"][1].flip(0)
    fall_gates = gates_of(fixed["log_p"][0]) - gates_of(fixed["log_p"][1]).flip(0)
    torch.testing.assert_close((m_h * fall_h).sum() + (m_master * fall_gates).sum(), rise)


def test_rows_outside_the_windows_and_padding_have_no_multiplier():
    fixed = case()
    m_h, m_master = backward(fixed, forward(fixed)[3], 0.5)
    assert (m_h[:2] == 0).all()  # the first sample has two steps more than the window
    assert (m_master[:2] == 0).all()
    assert (m_h.unflatten(1, (LEVELS, PADDED))[..., CHUNK:] == 0).all()
    assert (m_h[2:].unflatten(1, (LEVELS, PADDED))[..., :CHUNK] != 0).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"levels": 5}, ValueError, r"log_p has shape \(9, 6\); accepted: \(9, 10\)"),
        ({"levels": 5, "log_p": (torch.zeros(9, 10).double(),) * 2}, ValueError, "12 of 18 units do not fit 5 levels"),
        ({"hidden": 21}, ValueError, "21 of 18 units"),
        ({"real": torch.ones(3, 4)}, TypeError, "real is torch.float32; accepted: torch.bool"),
        ({"real": torch.ones(3, 5, dtype=torch.bool)}, ValueError, r"real has shape \(3, 5\); accepted: \(3, 4\)"),
        ({"log_p": (torch.zeros(9, 6), torch.zeros(9, 6))}, TypeError, "h is torch.float64 and log_p torch.float32"),
        ({"log_p": (torch.zeros(9, 5),) * 2}, ValueError, r"shape \(9, 5\)"),
        (
            {"places": (torch.zeros(3, 4).long(), torch.zeros(3, 5).long())},
            ValueError,
            r"places0 has shape \(3, 5\); accepted: \(3, 4\)",
        ),
        ({"h": (torch.zeros(9, 18).half(),) * 2}, TypeError, "h is torch.float16"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        forward({**case(), **change})


def test_multipliers_that_do_not_fit_are_refused():
    fixed = case()
    log_stage = forward(fixed)[3]
    with pytest.raises(ValueError, match="log_stage"):
        backward(fixed, log_stage[0], 0.5)


@st.composite
def drawn(draw_, dtype):
    """Any number of samples, levels, units and steps; a sample's steps end its window, some have none."""
    samples, window, levels = (draw_(st.integers(0, 4)), draw_(st.integers(1, 12)), draw_(st.integers(1, 5)))
    chunk, more, seed = draw_(st.integers(1, 40)), draw_(st.integers(0, 5)), draw_(st.integers(0, 999))
    steps = torch.tensor([draw_(st.integers(0, window + 2)) for _ in range(samples)], dtype=torch.int64)
    total, units = int(steps.sum()) + 3, levels * (chunk + more)
    step = steps[:, None] - window + torch.arange(window)
    real = step >= 0
    rows = torch.where(real, (steps.cumsum(0) - steps)[:, None] + step, total + 7)  # outside where nothing is real
    log_p = [(draw(total, 2, levels, seed=seed + k) * 5).log_softmax(-1).flatten(1).to(dtype) for k in (1, 2)]
    h = [draw(total, units, seed=seed + k).to(dtype) for k in (3, 4)]
    rows0 = torch.where(real, total - 1 - rows, -9)
    m = [
        draw(samples, *shape, seed=seed + 5).to(dtype) for shape in ((window, levels * chunk), *[(levels * chunk,)] * 2)
    ]
    return (*h, *log_p, rows, rows0, rows, rows0, real, levels, levels * chunk), m


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(data=st.data())
def test_kernels_agree_with_plain_torch(dtype, data):
    flat, m = data.draw(drawn(dtype))
    wide = [each.double() if isinstance(each, torch.Tensor) and each.is_floating_point() else each for each in flat]
    bound = {torch.float32: 2e-5, torch.float64: 1e-12}[dtype]
    found = ops.stage_window(*flat)
    expected = naive.stage_window(*wide)
    for result, target in zip(found, expected, strict=True):
        torch.testing.assert_close(result.double(), target, rtol=bound, atol=bound)
    for half in (0.0, 0.5):
        rest = (flat[9], half)
        found_m = ops.stage_window_backward(*m, *flat[:2], *flat[4:7], flat[8], found[3], flat[2], *rest)
        target_m = naive.stage_window_backward(
            *(each.double() for each in m), *wide[:2], *flat[4:7], flat[8], expected[3], wide[2], *rest
        )
        for result, target in zip(found_m, target_m, strict=True):
            torch.testing.assert_close(result.double(), target, rtol=bound, atol=10 * bound)


def test_any_strides():
    plain = case()
    turned = dict(plain)
    for key in ("h", "log_p", "places", "rows"):
        turned[key] = tuple(each.t().contiguous().t() for each in plain[key])
    turned["real"] = plain["real"].t().contiguous().t()
    found, expected = forward(turned), forward(plain)
    assert all(map(torch.equal, found, expected))
    assert all(map(torch.equal, backward(turned, found[3], 0.5), backward(plain, expected[3], 0.5)))


@pytest.mark.parametrize("name", ["places", "rows"])
@pytest.mark.parametrize("stream", [0, 1])
def test_rows_that_do_not_exist_are_refused(name, stream):
    fixed = case()
    wrong = [each.clone() for each in fixed[name]]
    wrong[stream][0, 0] = 99
    with pytest.raises((RuntimeError, IndexError), match=r"outside|out of"):
        forward({**fixed, name: tuple(wrong)})


def test_registered_as_pytorch_expects():
    fixed = case(torch.float32)
    flat = (*fixed["h"], *fixed["log_p"], *fixed["places"], *fixed["rows"], fixed["real"], LEVELS, LEVELS * CHUNK)
    torch.library.opcheck(torch.ops.deeplift_fast.stage_window, flat)
    log_stage = naive.stage_window(*flat)[3]
    m = [each.float() for each in multipliers()]
    arguments = (
        *m,
        *fixed["h"],
        *fixed["places"],
        fixed["rows"][0],
        fixed["real"],
        log_stage,
        fixed["log_p"][0],
        LEVELS,
        0.5,
    )
    torch.library.opcheck(torch.ops.deeplift_fast.stage_window_backward, arguments)


@pytest.mark.parametrize("module", [torch.ops.deeplift_fast, naive])
def test_stages_shifted_at_once_move_nothing(module):
    fixed = case(torch.float32)
    far = tuple(each + 512 for each in fixed["h"])
    log_stage = forward(fixed)[3]
    _, mean, last = (each.float() for each in multipliers())
    _, m_master = module.stage_window_backward(
        torch.zeros(3, WINDOW, LEVELS * CHUNK), mean, last, *far, *fixed["places"], fixed["rows"][0], fixed["real"],
        log_stage, fixed["log_p"][0], LEVELS, 0.5,
    )  # fmt: skip
    first = fixed["rows"][0][0, 0]  # the distance of a window's first step is in each of its stages
    assert fixed["real"][0].all()
    assert m_master[first].abs().max() < 1e-6 * m_master.abs().max()
