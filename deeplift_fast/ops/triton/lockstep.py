"""StageNet's recurrences of several layers on CUDA: at each step one batched matrix product and one kernel."""

import torch
import triton
from torch import Tensor

from deeplift_fast.ops.cells import COEFFICIENTS, going_at, rows_per_sample
from deeplift_fast.ops.triton.recurrent import cells_of, forward_options, forward_tile, step_back_stagenet
from deeplift_fast.ops.triton.recurrent_cells import forward_kernel


def lockstep(
    projected: Tensor, where: Tensor, steps: list[int], weight: Tensor, bias: Tensor, coefficients: Tensor,
    levels: int, slope: str, half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See :func:`deeplift_fast.ops.lockstep`."""
    (layers, units, columns), rows, samples = weight.shape, len(coefficients), len(where)
    h, h0 = projected.new_empty(rows, units), projected.new_empty(rows, units)
    log_p, log_p0 = projected.new_empty(rows, 2 * levels), projected.new_empty(rows, 2 * levels)
    if not rows or not units:
        return h, h0, log_p, log_p0
    # For each layer: its baselines from the last to the first, then its samples.
    product = projected.new_empty(layers, 2 * samples, columns)
    states = projected.new_empty(2, layers, 2 * samples, units)
    cells = cells_of(projected, states.shape, "stagenet")
    kept = coefficients.contiguous()
    projected, where, weight, bias = (each.contiguous() for each in (projected, where, weight, bias))
    chunk = units // levels
    high, wide = forward_tile(projected.dtype, chunk, "stagenet")
    with torch.cuda.device_of(projected):
        for t in range(steps[0]):
            old, new, going = t % 2, 1 - t % 2, going_at(t, steps)
            if t:
                torch.bmm(states[old, :going], weight[:going], out=product[:going])
            grid = (triton.cdiv(2 * samples, high), levels * triton.cdiv(chunk, wide), going)
            forward_kernel[grid](
                projected, product, bias, bias[:, 4 * units :], where,
                states[old], cells[old], states[new], cells[new], h, h0, kept, log_p, log_p0,
                samples, samples, samples, rows, t * samples, t * samples, t, units, chunk, levels,
                columns, columns, 2 * samples, steps[0] * samples, columns,
                "stagenet", slope, half, COEFFICIENTS["stagenet"], triton.next_power_of_2(levels), high, wide,
                **forward_options(projected.dtype, "stagenet", slope, torch.version.hip is None),
            )  # fmt: skip
    if kept is not coefficients:
        coefficients.copy_(kept)
    return h, h0, log_p, log_p0


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
