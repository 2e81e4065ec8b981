"""The way back through StageNet's recurrences of several layers on CUDA: one kernel and one batched product a step."""

import torch
from torch import Tensor

from deeplift_fast.ops.cells import going_at, rows_per_sample
from deeplift_fast.ops.triton.recurrent import cells_of
from deeplift_fast.ops.triton.recurrent_backward import step_back_stagenet


def lockstep_backward(
    m_h: Tensor, m_master: Tensor, coefficients: Tensor, shares: Tensor, steps: list[int], weight: Tensor, levels: int
) -> Tensor:
    """See :func:`deeplift_fast.ops.lockstep_backward`."""
    (layers, units, columns), rows = weight.shape, len(m_h)
    d = m_h.new_empty(rows, columns)
    if not rows or not units:
        return d
    samples, used = rows // rows_per_sample(steps), 4 * units + 2 * levels
    carried = m_h.new_empty(layers, samples, units)
    cells = cells_of(m_h, carried.shape, "stagenet")
    m_h, m_master, coefficients, shares = (x.contiguous() for x in (m_h, m_master, coefficients, shares))
    back, stride = weight[..., :used].transpose(1, 2), steps[0] * samples
    with torch.cuda.device_of(m_h):
        for t in reversed(range(steps[0])):
            going, first = going_at(t, steps), t * samples
            step_back_stagenet(
                m_h, m_master, shares, carried, cells, coefficients, d,
                samples, samples, first, (going, going_at(t + 1, steps), stride),
            )  # fmt: skip
            if t:
                at = d.storage_offset() + first * columns
                of_step = d.as_strided((going, samples, used), (stride * columns, columns, 1), at)
                torch.bmm(of_step, back[:going], out=carried[:going])
    return d
