"""StageNet's recurrences of several layers in plain torch: one layer after the other."""

from collections.abc import Iterator

import torch
from torch import Tensor

from deeplift_fast.ops.cells import rows_per_sample
from deeplift_fast.ops.naive.recurrent import recurrent, recurrent_backward


def lockstep(
    projected: Tensor, where: Tensor, steps: list[int], order: Tensor, lengths: Tensor, column_of: list[int],
    weight: Tensor, bias: Tensor, coefficients: Tensor, levels: int, slope: str, half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """StageNet's cell in several layers of one size; on CUDA all layers take each step together.

    All samples of a layer have the same number of steps. A layer's rows are ordered by step, then by sample; those of
    layer i begin at `i · samples · steps[0]`. Rows between the layers are not written.

    With `order` and `lengths` samples may end earlier. Results have any content past a sample's end. On CUDA a program
    whose samples have all ended does nothing, and samples by falling length end together. Each sample then has the
    baseline of its own number.

    Args:
        projected: inputs times weights, of all rows at the input and then at the baseline. Columns are the forget,
            input, output and new gates of all units, then the forget and the input master gates of all levels. Further
            columns are ignored.
        where: the index of each sample's baseline.
        steps: the number of steps of each layer, falling, 1 or more.
        order: all samples, in each column by falling length; no rows if all samples have every step. Not checked.
        lengths: these lengths, 1 or more. Not checked.
        column_of: the column of each layer in `order` and `lengths`.
        weight: the weights of the states.
        bias: the bias of each layer.
        coefficients: written for :func:`lockstep_backward`.
        levels: as for :func:`deeplift_fast.ops.recurrent`.
        slope: as for :func:`deeplift_fast.ops.recurrent`.
        half: as for :func:`deeplift_fast.ops.recurrent`.

    Returns:
        `(h, h0, log_p, log_p0)` of all rows, as from :func:`deeplift_fast.ops.recurrent`.
    """
    units, total, samples = weight.shape[1], len(coefficients), len(where)
    sizes = (units, units, 2 * levels, 2 * levels)
    found = [projected.new_zeros(total, size) for size in sizes]
    # The inputs are gates already: their weights are the identity.
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
    m_h: Tensor, m_master: Tensor, coefficients: Tensor, shares: Tensor, steps: list[int], order: Tensor,
    lengths: Tensor, column_of: list[int], weight: Tensor, levels: int,
) -> Tensor:  # fmt: skip
    """Multipliers of `projected` at the input, the pre-activations of :func:`lockstep`.

    They are 0 past a sample's end, whatever the arguments have there.

    Args:
        m_h: multipliers of the states.
        m_master: multipliers of the forget master gates.
        coefficients: from :func:`lockstep`.
        shares: as for :func:`deeplift_fast.ops.recurrent_backward`.
        steps: as for :func:`lockstep`.
        order, lengths, column_of: as for :func:`lockstep`.
        weight: as for :func:`lockstep`.
        levels: as for :func:`lockstep`.

    Returns:
        These multipliers. Rows of no layer and columns past the gates have any content.
    """
    _, units, columns = weight.shape
    d, gates, used = m_h.new_zeros(len(m_h), columns), 4 * units, 4 * units + 2 * levels
    given = torch.eye(used, -(-columns // 4) * 4, dtype=m_h.dtype, device=m_h.device)
    for i, (rows, counts) in enumerate(_layers(steps, len(m_h) // rows_per_sample(steps))):
        back = weight[i].T[:used]
        k, m, m_forget, share = (each[rows] for each in (coefficients, m_h, m_master, shares))
        if len(order):
            there = _there(steps[i], order[:, column_of[i]], lengths[:, column_of[i]])
            m, m_forget, share = (torch.where(there[:, None], each, 0) for each in (m, m_forget, share))
            k = torch.where(there[:, None, None], k, 0)
        d[rows] = recurrent_backward(
            m, m_forget, k, share, counts,
            given[None, None, :gates], back[None, None, :gates], given[None, gates:], back[None, gates:],
            levels, "stagenet", columns,
        )[:, :columns]  # fmt: skip
    return d


def _layers(steps: list[int], samples: int) -> Iterator[tuple[slice, Tensor]]:
    """Each layer's rows, and its number of samples at each step."""
    for i, count in enumerate(steps):
        first = i * steps[0] * samples
        yield slice(first, first + count * samples), torch.full((count,), samples, device="cpu")


def _there(steps: int, order: Tensor, lengths: Tensor) -> Tensor:
    """Whether each row of a layer is before its sample's end."""
    own = torch.zeros_like(lengths).index_copy_(0, order, lengths)
    return (torch.arange(steps, device=own.device)[:, None] < own).flatten()


def _parts(x: Tensor, units: int) -> tuple[Tensor, Tensor]:
    """`[…, columns]` as gates, `[…, 4, units]`, and the columns of the master gates."""
    return x[..., : 4 * units].unflatten(-1, (4, units)), x[..., 4 * units :]
