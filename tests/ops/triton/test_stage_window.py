"""The stage window's kernels in Triton's interpreter against plain torch in float64."""

import importlib.util

import pytest
import torch
from guarded_memory import checked_memory, guarded
from interpreted_kernels import INTERPRETED

from deeplift_fast.ops import naive

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton.stage_window import stage_window, stage_window_backward

pytestmark = INTERPRETED

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def drawn(*shape, dtype, seed):
    return guarded(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype))


def case(dtype, *, lengths=(6, 2, 1), window=4, levels=3, chunk=5, padded=None):
    """Arguments of both ops, but `half`: samples of these lengths, of which the last two share a baseline."""
    samples, hidden, units = len(lengths), levels * chunk, levels * (padded or chunk)
    total, total0 = sum(lengths), sum(lengths[:2])
    step = torch.tensor(lengths)[:, None] - window + torch.arange(window) if samples else torch.empty(0, window).long()
    starts = torch.tensor(lengths).cumsum(0).sub(torch.tensor(lengths)).long()
    rows = starts[:, None] + step.clamp(min=0)
    rows0 = starts.clamp(max=max(total0 - 2, 0))[:, None] + step.clamp(min=0) if samples else rows
    log_p, log_p0 = (
        drawn(rows_, 2, levels, dtype=torch.float64, seed=seed).log_softmax(-1).flatten(1).to(dtype)
        for seed, rows_ in enumerate((total, total0))
    )
    return {
        "h": (drawn(total, units, dtype=dtype, seed=2), drawn(total0, units, dtype=dtype, seed=3)),
        "log_p": (guarded(log_p), guarded(log_p0)),
        "places": (rows, rows0),
        "real": step >= 0,
        "m": [
            drawn(samples, *shape, dtype=dtype, seed=4 + len(shape))
            for shape in ((window, hidden), (hidden,), (hidden,))
        ],
        "sizes": (levels, hidden),
    }


def through(ops, given, half, dtype):
    """All that the two ops give, of arguments in `dtype`."""
    forward, backward = ops
    h, log_p, m = ([each.to(dtype) for each in given[name]] for name in ("h", "log_p", "m"))
    levels, hidden = given["sizes"]
    places, real = given["places"], given["real"]
    local, mean, last, log_stage = forward(*h, *log_p, *places, *places, real, levels, hidden)
    back = backward(*m, *h, *places, places[0], real, log_stage, log_p[0], levels, half)
    return local, mean, last, log_stage, *back


def assert_matches_naive(given, half=0.5):
    dtype = given["h"][0].dtype
    expected = through((naive.stage_window, naive.stage_window_backward), given, half, torch.float64)
    with checked_memory():
        found = through((stage_window, stage_window_backward), given, half, dtype)
    names = ("local", "mean", "last", "log_stage", "m_h", "m_master")
    for name, result, target in zip(names, found, expected, strict=True):
        assert result.dtype == dtype
        torch.testing.assert_close(
            result.double(),
            target,
            rtol=TOLERANCE[dtype],
            atol=TOLERANCE[dtype],
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("half", [0.0, 0.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_rule(dtype, half):
    assert_matches_naive(case(dtype), half)


@pytest.mark.parametrize("levels", [1, 2, 4, 5])
def test_levels(levels):
    assert_matches_naive(case(torch.float64, levels=levels, chunk=3))


@pytest.mark.parametrize("window", [1, 3, 10])
def test_windows(window):
    assert_matches_naive(case(torch.float64, window=window))


@pytest.mark.parametrize(("chunk", "padded"), [(1, None), (1, 16), (5, 8), (130, None), (100, 112)])
def test_units_and_their_padding(chunk, padded):
    assert_matches_naive(case(torch.float64, levels=2, chunk=chunk, padded=padded, lengths=(5, 2)))


def test_no_samples():
    found = through((stage_window, stage_window_backward), case(torch.float32, lengths=()), 0.5, torch.float32)
    assert [each.numel() for each in found] == [0] * 6


def test_what_is_not_contiguous():
    given = case(torch.float64)
    expected = through((stage_window, stage_window_backward), given, 0.5, torch.float64)

    def strided(x):
        return torch.stack([x, x.flip(0)], -1)[..., 0]

    for name in ("h", "log_p", "m", "places"):
        given[name] = [strided(each) for each in given[name]]
    given["real"] = strided(given["real"])
    for result, target in zip(
        through((stage_window, stage_window_backward), given, 0.5, torch.float64), expected, strict=True
    ):
        torch.testing.assert_close(result, target, rtol=1e-14, atol=1e-14)
