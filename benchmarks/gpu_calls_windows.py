"""Random arguments of further ops, for `gpu_cases.py`."""

from dataclasses import dataclass

import torch
from gpu_calls import Call, Maker
from torch import Tensor


def log_mean_softmax(make: Maker, log: bool) -> Call:
    """A call of `log_mean_softmax`."""
    shape = make.size(33, 1 << 17), make.size(17, 128)
    return Call((make.normal(*shape, scale=2), make.normal(*shape, scale=2), -1, log))


def log_mean_softmax_backward(make: Maker) -> Call:
    """A call of `log_mean_softmax_backward`, with positive shares."""
    shape = make.size(33, 1 << 17), make.size(17, 128)
    return Call((make.normal(*shape), make.normal(*shape).abs() + 0.01, -1))


def gated_sum(make: Maker, half: float) -> Call:
    """A call of `gated_sum`: the gate, the gated tensor and the added tensor, each in both streams."""
    shape = 2, make.size(33, 1 << 16), make.size(17, 384)
    return Call((*(make.normal(*shape) for _ in range(3)), "rescale", half))


def convergence(make: Maker, rescale: bool) -> Call:
    """A call of `convergence`: sums of two features' contributions, none near 0; the op takes them in float64."""
    batch = make.size(1100, 1 << 22)
    totals = torch.stack([make.normal(batch).abs() + 0.1, make.normal(batch).abs()]).double()

    def compared(found: tuple[Tensor, ...]) -> list[Tensor]:
        delta, factor, fine, figures = found
        # The other figures depend on the dtype's rounding.
        return [delta, factor, fine.sum() / batch, figures[:, ::2].sum(0) / batch]

    return Call((totals, make.normal(batch), make.normal(batch), rescale, 0.01), compared)


@dataclass(frozen=True)
class _Windows:
    """The rows of each sample's last steps."""

    rows: Tensor
    real: Tensor
    total: int
    levels: int
    units: int
    hidden: int

    @staticmethod
    def of(make: Maker) -> "_Windows":
        """Windows of 10 steps; in small cases some samples are shorter."""
        samples, window, levels = make.size(7, 4096), 10, make.size(2, 3)
        steps = make.size(13, window)
        lengths = torch.full((samples,), steps) if make.large else make.lengths(samples, steps)
        step = lengths[:, None] - window + torch.arange(window)
        rows = torch.arange(samples)[:, None] * steps + step.clamp(min=0)
        of_level = make.size(8, 128)
        hidden = levels * make.size(5, 128)
        put = (each.to(make.device) for each in (rows, step >= 0))
        return _Windows(*put, samples * steps, levels, levels * of_level, hidden)

    def log_p(self, make: Maker) -> Tensor:
        """Logarithms of the softmax below the master gates."""
        scores = make.normal(self.total, 2, self.levels)
        return torch.log_softmax(scores, -1).flatten(1)


def stage_window(make: Maker) -> Call:
    """A call of `stage_window`, with states and master gates of both streams."""
    windows = _Windows.of(make)
    h, h0 = (make.normal(windows.total, windows.units) for _ in range(2))
    log_p, log_p0 = windows.log_p(make), windows.log_p(make)
    at = (windows.rows,) * 4
    return Call((h, h0, log_p, log_p0, *at, windows.real, windows.levels, windows.hidden))


def stage_window_backward(make: Maker, half: float) -> Call:
    """A call of `stage_window_backward`, with random stages."""
    windows = _Windows.of(make)
    samples, window = windows.real.shape
    h, h0 = (make.normal(windows.total, windows.units) for _ in range(2))
    m_local, m_mean, m_last = (make.normal(samples, *middle, windows.hidden) for middle in ((window,), (), ()))
    log_stage = torch.log_softmax(make.normal(2, samples, window), -1)
    at = (windows.rows,) * 3
    log_p = make.normal(windows.total, 2 * windows.levels)
    return Call((m_local, m_mean, m_last, h, h0, *at, windows.real, log_stage, log_p, windows.levels, half))
