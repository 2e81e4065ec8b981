"""StageNet's recurrences of several layers on CUDA: each step of all layers is one kernel, in both directions."""

from torch import Tensor

from deeplift_fast.ops.cells import going_at, rows_per_sample
from deeplift_fast.ops.triton.recurrent import IN_ORDER, Turns, steps_backward, steps_forward
from deeplift_fast.ops.triton.tiles import dense


def _turns(order: Tensor, lengths: Tensor, column_of: list[int]) -> Turns:
    if not len(order):
        return IN_ORDER
    order, lengths = dense(order, lengths)
    return order, lengths, sum(column << 4 * layer for layer, column in enumerate(column_of)), len(column_of)


def lockstep(
    projected: Tensor, where: Tensor, steps: list[int], order: Tensor, lengths: Tensor, column_of: list[int],
    weight: Tensor, bias: Tensor, coefficients: Tensor, levels: int, slope: str, half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See :func:`deeplift_fast.ops.lockstep`."""
    samples, units = len(where), weight.shape[1]
    projected, bias = dense(projected, bias)
    each = [(samples, samples, going_at(t, steps)) for t in range(steps[0])]
    biases, kinds = (bias, bias[:, 4 * units :]), (levels, "stagenet", slope, half)
    turns = _turns(order, lengths, column_of)
    return steps_forward(projected, where, weight, biases, coefficients, each, kinds, turns)


def lockstep_backward(
    m_h: Tensor, m_master: Tensor, coefficients: Tensor, shares: Tensor, steps: list[int], order: Tensor,
    lengths: Tensor, column_of: list[int], weight: Tensor, levels: int,
) -> Tensor:  # fmt: skip
    """See :func:`deeplift_fast.ops.lockstep_backward`."""
    (_, units, columns), rows = weight.shape, len(m_h)
    d = m_h.new_empty(rows, columns)
    if rows and units:
        samples, back = rows // rows_per_sample(steps), weight[..., : 4 * units + 2 * levels].transpose(1, 2)
        each, turns = [(samples, going_at(t, steps)) for t in range(steps[0])], _turns(order, lengths, column_of)
        steps_backward((m_h, m_master, coefficients, shares), back, d, each, levels, "stagenet", turns)
    return d
