"""StageNet's recurrences of several layers in plain torch: one layer after the other."""

from collections.abc import Iterator

import torch
from torch import Tensor

from deeplift_fast.ops.naive.recurrent import recurrent, recurrent_backward
from deeplift_fast.ops.recurrent_arguments import check_lockstep, check_lockstep_backward, rows_per_sample


def lockstep(
    projected: Tensor,
    where: Tensor,
    steps: list[int],
    weight: Tensor,
    bias: Tensor,
    coefficients: Tensor,
    levels: int,
    slope: str,
    half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.lockstep`."""
    check_lockstep(projected, where, steps, weight, bias, coefficients, levels, slope)
    units, total, samples = weight.shape[1], len(coefficients), len(where)
    sizes = (units, units, 2 * levels, 2 * levels)
    found = [projected.new_zeros(total, size) for size in sizes]
    # Inputs are gates already.
    given, given_masters = _parts(torch.eye(weight.shape[2], dtype=weight.dtype, device=weight.device), units)
    for i, (rows, counts) in enumerate(_layers(steps, samples)):
        states, masters = _parts(weight[i], units)
        b, b_masters = _parts(bias[i], units)
        parts = recurrent(
            projected[:total][rows], projected[total:][rows], where, counts, counts,
            given[None], states[None], b[None], given_masters, masters, b_masters,
            coefficients[rows], levels, "stagenet", slope, half,
        )  # fmt: skip
        for to, part in zip(found, parts, strict=True):
            to[rows] = part
    h, h0, log_p, log_p0 = found
    return h, h0, log_p, log_p0


def lockstep_backward(
    m_h: Tensor, m_master: Tensor, coefficients: Tensor, shares: Tensor, steps: list[int], weight: Tensor, levels: int
) -> Tensor:
    """See :func:`deeplift_fast.ops.lockstep_backward`."""
    check_lockstep_backward(m_h, m_master, coefficients, shares, steps, weight, levels)
    _, units, columns = weight.shape
    d, gates, used = m_h.new_zeros(len(m_h), columns), 4 * units, 4 * units + 2 * levels
    given = torch.eye(used, -(-columns // 4) * 4, dtype=m_h.dtype, device=m_h.device)
    for i, (rows, counts) in enumerate(_layers(steps, len(m_h) // rows_per_sample(steps))):
        back = weight[i].T[:used]
        d[rows] = recurrent_backward(
            m_h[rows], m_master[rows], coefficients[rows], shares[rows], counts,
            given[None, None, :gates], back[None, None, :gates], given[None, gates:], back[None, gates:],
            levels, "stagenet", columns,
        )[:, :columns]  # fmt: skip
    return d


def _layers(steps: list[int], samples: int) -> Iterator[tuple[slice, Tensor]]:
    """Each layer's rows, and its samples at each step."""
    for i, count in enumerate(steps):
        first = i * steps[0] * samples
        yield slice(first, first + count * samples), torch.full((count,), samples, device="cpu")


def _parts(x: Tensor, units: int) -> tuple[Tensor, Tensor]:
    """`[…, columns]` as gates, `[…, 4, units]`, and what is for the master gates."""
    return x[..., : 4 * units].unflatten(-1, (4, units)), x[..., 4 * units :]
