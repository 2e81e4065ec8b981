"""The stage window against the chain of operations that PyHealth's StageNetLayer writes, and its rules."""

import pytest
import torch

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


def backward(given, log_stage, half):
    return ops.stage_window_backward(
        *multipliers(), given["h"], given["places"], given["rows"][0], given["real"], log_stage,
        len(given["log_p"][0]), LEVELS, half,
    )  # fmt: skip


def test_both_streams_are_the_chain_of_operations():
    given = case()
    found = ops.stage_window(**given)
    for stream in (0, 1):
        h, gates, rows = given["h"][stream], gates_of(given["log_p"][stream]), given["rows"][stream]
        for result, expected in zip(found, written_out(h, gates, rows, given["real"]), strict=False):
            torch.testing.assert_close(result[stream], expected)


def test_without_midpoints_it_is_the_gradient():
    given = case()
    log_stage = ops.stage_window(**given)[3]
    h, gates = given["h"][0].clone().requires_grad_(), gates_of(given["log_p"][0]).requires_grad_()
    outputs = written_out(h, gates, given["rows"][0], given["real"])
    expected = torch.autograd.grad(outputs, (h, gates), multipliers())
    for result, target in zip(backward(given, log_stage, 0.0), expected, strict=True):
        torch.testing.assert_close(result, target)


def test_midpoints_are_complete():
    given = case()
    *outputs, log_stage = ops.stage_window(**given)
    rise = sum((m * (y[0] - y[1])).sum() for m, y in zip(multipliers(), outputs, strict=True))
    m_h, m_master = backward(given, log_stage, 0.5)
    # The baseline's rows stand in reverse order.
    fall_h = given["h"][0] - given["h"][1].flip(0)
    fall_gates = gates_of(given["log_p"][0]) - gates_of(given["log_p"][1]).flip(0)
    torch.testing.assert_close((m_h * fall_h).sum() + (m_master * fall_gates).sum(), rise)


def test_rows_outside_the_windows_and_padding_have_no_multiplier():
    given = case()
    m_h, m_master = backward(given, ops.stage_window(**given)[3], 0.5)
    assert (m_h[:2] == 0).all()  # the first sample has two steps more than the window
    assert (m_master[:2] == 0).all()
    assert (m_h.unflatten(1, (LEVELS, PADDED))[..., CHUNK:] == 0).all()
    assert (m_h[2:].unflatten(1, (LEVELS, PADDED))[..., :CHUNK] != 0).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"levels": 5}, ValueError, "12 of 18 units do not fit 5 levels"),
        ({"hidden": 21}, ValueError, "21 of 18 units"),
        ({"real": torch.ones(3, 4)}, ValueError, "real has shape"),
        ({"log_p": (torch.zeros(9, 6), torch.zeros(9, 6))}, TypeError, "a tensor is torch.float32"),
        ({"log_p": (torch.zeros(9, 5),) * 2}, ValueError, r"shape \(9, 5\)"),
        ({"places": (torch.zeros(3, 4).long(), torch.zeros(3, 5).long())}, ValueError, "places and rows"),
        ({"h": (torch.zeros(9, 18).half(),) * 2}, TypeError, "h is torch.float16"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        ops.stage_window(**{**case(), **change})


def test_multipliers_that_do_not_fit_are_refused():
    given = case()
    log_stage = ops.stage_window(**given)[3]
    with pytest.raises(ValueError, match="log_stage"):
        backward(given, log_stage[0], 0.5)


def test_registered_as_pytorch_expects():
    given = case(torch.float32)
    flat = (*given["h"], *given["log_p"], *given["places"], *given["rows"], given["real"], LEVELS, LEVELS * CHUNK)
    torch.library.opcheck(torch.ops.deeplift_fast.stage_window, flat)
    log_stage = naive.stage_window(*flat)[3]
    m = [each.float() for each in multipliers()]
    arguments = (*m, *given["h"], *given["places"], given["rows"][0], given["real"], log_stage, 9, LEVELS, 0.5)
    torch.library.opcheck(torch.ops.deeplift_fast.stage_window_backward, arguments)
