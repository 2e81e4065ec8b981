"""Recurrent layers over ragged sequences in both streams, and their multipliers, in plain torch.

A bar is the mean of the two streams, or the input's value if `half` is 0; s is an activation's own multiplier. The
coefficients follow from the chain of operations:

    LSTM      c' = f·c + i·g,  h' = o·t,  t = tanh c'
              m_c' += m_h'·(ō·s_t);  m_zo = m_h'·(t̄·s_o);  m_c = m_c'·f̄;  m_zf = m_c'·(c̄·s_f), and so on
    StageNet  c' = v·(f·c + i·g) + (F − v)·c + (I − v)·g,  v = F·I, with master gates F and I
              m_F = m_c'·(c̄ + q·Ī),  m_I = m_c'·(ḡ + q·F̄),  q = mean of (f·c + i·g) − c̄ − ḡ
    GRU       h' = n + z·(h − n),  n = tanh(x_n + r·h_n)
    RNN       h' = tanh or relu

A master gate is the cumulative sum of a softmax, which follows the log-mean rule, `m∘g − m·(mᵀg)/Σm`, with m the
logarithmic means or the probabilities.
"""

import torch
from torch import Tensor

from deeplift_fast.ops.naive.log_mean_softmax import softmax_back
from deeplift_fast.ops.naive.secant import secant

State = tuple[Tensor, Tensor]


def recurrent(
    u: Tensor, u0: Tensor, where: Tensor, counts: Tensor, counts0: Tensor, weight_u: Tensor, weight_h: Tensor,
    bias: Tensor, master_u: Tensor, master_h: Tensor, master_bias: Tensor, coefficients: Tensor, levels: int,
    cell: str, slope: str, half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """A recurrent layer over ragged sequences at the input and at the baseline, from zero states.

    Rows are ordered by step, then by sample; samples by falling length (as in PyTorch's `PackedSequence`). Units come
    in panels of `lanes`, padded by units with weights of 0: 16 on the CPU in float32, 8 in float64, any number on CUDA.
    With all units in one panel the weights are plain matrices. The gates of `"stagenet"` and `"lstm"` are forget,
    input, output, new; those of `"gru"` are new of the input, reset, update, new of the state; others have one.

    Args:
        u: inputs at the input. On CUDA half types compute in float32 between matrix products.
        u0: inputs of the baseline's distinct sequences.
        where: the index of each sample's baseline, which is at least as long; not checked on CUDA.
        counts, counts0: samples and baseline sequences at each step, falling; on the CPU, since reading waits.
        weight_u, weight_h, bias: for the gates of the input, for those of the state, and for all gates.
        master_u, master_h, master_bias: for StageNet's master gates: forget gates of all levels, then input gates.
        coefficients: written for :func:`recurrent_backward`; 8 per unit (`"stagenet"`), 6 (`"lstm"`), 5 (`"gru"`) or 1.
        levels: StageNet's levels, each with equally many consecutive units; 0 for other cells.
        cell: the kind of layer.
        slope: multipliers: `"secant"` (Shrikumar et al. 2017), `"pyhealth"` (StageNet) or `"derivative"` (other cells).
        half: 0.5 for the midpoint rule of products, 0 for their gradient.

    Returns:
        `(h, h0, log_p, log_p0)`: states, and the logarithms of the softmax of the master gates.
    """
    units = bias.shape[0] * bias.shape[2]
    kernel = _Layer(weight_u, weight_h, bias, master_u, master_h, master_bias, levels)
    h, h0 = u.new_zeros(len(u), units), u.new_zeros(len(u0), units)
    log_p, log_p0 = u.new_zeros(len(u), 2 * levels), u.new_zeros(len(u0), 2 * levels)
    state, state0 = (_zeros(u, int(each[0]) if len(each) else 0, units) for each in (counts, counts0))
    first = first0 = 0
    for count, count0 in zip(counts.tolist(), counts0.tolist(), strict=True):
        rows, rows0 = slice(first, first + count), slice(first0, first0 + count0)
        old, old0 = tuple(s[:count] for s in state), tuple(s[:count0] for s in state0)
        z, z_u, log_p[rows], masters = kernel.gates(u[rows], old[0])
        z0, z0_u, log_p0[rows0], masters0 = kernel.gates(u0[rows0], old0[0])
        of = where[:count]
        other = tuple(s[of] for s in old0)
        paired = _pairs(z, z0[:, of], cell, slope)
        now, k = _CELLS[cell](paired, (z, z_u), (z0[:, of], z0_u[:, of]), old, other, masters, masters0[:, of], half)
        same = _pairs(z0, z0, cell, slope)
        now0, _ = _CELLS[cell](same, (z0, z0_u), (z0, z0_u), old0, old0, masters0, masters0, half)
        coefficients[rows] = k
        h[rows], h0[rows0] = now[0], now0[0]
        state, state0 = now, now0
        first, first0 = first + count, first0 + count0
    return h, h0, log_p, log_p0


def recurrent_backward(
    m_h: Tensor, m_master: Tensor, coefficients: Tensor, shares: Tensor, counts: Tensor, back_u: Tensor,
    back_h: Tensor, back_master_u: Tensor, back_master_h: Tensor, levels: int, cell: str, inputs: int,
) -> Tensor:  # fmt: skip
    """Multipliers of a recurrent layer's inputs, from those of its states at every step.

    Args:
        m_h: multipliers of the states.
        m_master: multipliers of StageNet's forget master gates.
        coefficients: from :func:`recurrent`.
        shares: for the log-mean rule, the logarithmic means of the master gates' probabilities in the two streams; for
            the gradient, the probabilities at the input.
        counts: as for :func:`recurrent`.
        back_u, back_h: weights in panels of columns, `wide_u` and `wide_h` wide: 4·lanes on the CPU, any multiple of 4
            on CUDA.
        back_master_u, back_master_h: weights of the master gates.
        levels: as for :func:`recurrent`.
        cell: as for :func:`recurrent`.
        inputs: the number of inputs with multipliers; they are the first ones.

    Returns:
        Multipliers of the inputs. Further columns have any content.
    """
    units, panels, quarter = m_h.shape[1], back_h.shape[1], back_u.shape[-1] // 4
    m_u = m_h.new_zeros(len(m_h), -(-inputs // quarter) * quarter)
    carried, carried_c = _zeros(m_h, int(counts[0]) if len(counts) else 0, units)
    by_panel = (-1, panels, units // panels)
    last = len(m_h)
    for count in reversed(counts.tolist()):
        rows = slice(last - count, last)
        k = coefficients[rows].unbind(1)
        d, direct, carried_c[:count], m_forget, m_input = _back(cell, k, m_h[rows] + carried[:count], carried_c[:count])
        from_input, from_state = (d[:3], d[1:]) if cell == "gru" else (d, d)
        to_u = _flat(from_input, by_panel) @ _columns(back_u.flatten(1, 2), m_u.shape[1])
        to_h = _flat(from_state, by_panel) @ _columns(back_h.flatten(1, 2), units)
        if levels:
            d_master = _masters_back(m_forget, m_input, m_master[rows], shares[rows], levels)
            to_u = to_u + d_master @ _columns(back_master_u, m_u.shape[1])
            to_h = to_h + d_master @ _columns(back_master_h, units)
        m_u[rows] = to_u
        carried[:count] = to_h + direct
        last -= count
    return m_u


class _Layer:
    """The pre-activations of a layer, from packed weights."""

    def __init__(
        self, weight_u: Tensor, weight_h: Tensor, bias: Tensor, master_u: Tensor, master_h: Tensor,
        master_bias: Tensor, levels: int,
    ) -> None:  # fmt: skip
        self._u, self._h = (w.permute(1, 2, 0, 3).flatten(2).transpose(0, 1) for w in (weight_u, weight_h))
        self._bias = bias.permute(1, 0, 2).flatten(1)
        self._masters = master_u[:, : 2 * levels], master_h[:, : 2 * levels], master_bias[: 2 * levels]
        self._levels = levels

    def gates(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pre-activations `[gates, rows, units]` with the state's part and without it, `log p`, and master gates."""
        count = len(self._bias)
        alone = self._bias[:, None].repeat(1, len(u), 1)
        alone[: len(self._u)] += torch.matmul(u, self._u)
        z = alone.clone()
        z[count - len(self._h) :] += torch.matmul(h, self._h)
        master_u, master_h, bias = self._masters
        by_level = (u @ master_u + h @ master_h + bias).reshape(len(u), 2, self._levels)
        log_p = torch.log_softmax(by_level, -1) if self._levels else by_level
        p = log_p.exp()
        forget, into = p[:, 0].cumsum(-1), p[:, 1].flip(-1).cumsum(-1).flip(-1)
        per_unit = self._bias.shape[1] // max(self._levels, 1)
        masters = torch.stack([forget, into]).repeat_interleave(per_unit, -1)
        return z, alone, log_p.flatten(1), masters


def _zeros(like: Tensor, rows: int, units: int) -> State:
    return like.new_zeros(rows, units), like.new_zeros(rows, units)


def _activation(function: str, x: Tensor, x0: Tensor, slope: str) -> tuple[Tensor, Tensor, Tensor]:
    if slope == "derivative":
        y, _, multiplier = secant(x, x, function, "rescale")
        return y, secant(x0, x0, function, "rescale")[0], multiplier
    return secant(x, x0, function, "rescale" if slope == "secant" else slope)


def _gate_functions(cell: str) -> tuple[str | None, ...]:
    if cell == "gru":
        return None, "sigmoid", "sigmoid", None
    return (cell.removeprefix("rnn_"),) if cell.startswith("rnn") else ("sigmoid", "sigmoid", "sigmoid", "tanh")


def _pairs(z: Tensor, z0: Tensor, cell: str, slope: str) -> tuple[list, str]:
    functions = _gate_functions(cell)
    return [f and _activation(f, z[i], z0[i], slope) for i, f in enumerate(functions)], slope


def _mean(a: Tensor, b: Tensor, half: float) -> Tensor:
    return a + half * (b - a)


def _lstm(paired, z, z0, old, old0, masters, masters0, half):  # type: ignore[no-untyped-def]
    (f, i, o, g), slope = paired
    (_, c), (_, c0) = old, old0
    t, t0, s_t = _activation("tanh", now := f[0] * c + i[0] * g[0], f[1] * c0 + i[1] * g[1], slope)
    k = (
        _mean(t, t0, half) * o[2],
        _mean(o[0], o[1], half) * s_t,
        _mean(f[0], f[1], half),
        _mean(c, c0, half) * f[2],
        _mean(g[0], g[1], half) * i[2],
        _mean(i[0], i[1], half) * g[2],
    )
    return (o[0] * t, now), torch.stack(k, 1)


def _stagenet(paired, z, z0, old, old0, masters, masters0, half):  # type: ignore[no-untyped-def]
    (f, i, o, g), slope = paired
    ends, mixes, overlaps = [], [], []
    for stream, (_, c), (forget, into) in ((0, old, masters), (1, old0, masters0)):
        overlap, mixed = forget * into, f[stream] * c + i[stream] * g[stream]
        ends.append(overlap * mixed + (forget - overlap) * c + (into - overlap) * g[stream])
        mixes.append(mixed)
        overlaps.append(overlap)
    t, t0, s_t = _activation("tanh", ends[0], ends[1], slope)
    both, forget, into = (_mean(a, b, half) for a, b in (overlaps, *zip(masters, masters0, strict=True)))
    last, fresh = _mean(old[1], old0[1], half), _mean(g[0], g[1], half)
    rest = _mean(mixes[0], mixes[1], half) - last - fresh
    k = (
        _mean(t, t0, half) * o[2],
        _mean(o[0], o[1], half) * s_t,
        both * _mean(f[0], f[1], half) + forget - both,
        both * last * f[2],
        both * fresh * i[2],
        (both * _mean(i[0], i[1], half) + into - both) * g[2],
        last + rest * into,
        fresh + rest * forget,
    )
    return (o[0] * t, ends[0]), torch.stack(k, 1)


def _gru(paired, z, z0, old, old0, masters, masters0, half):  # type: ignore[no-untyped-def]
    (_, r, u, _), slope = paired
    kept, kept0 = z[0][3], z0[0][3]
    fresh, fresh0, s_n = _activation("tanh", z[0][0] + r[0] * kept, z0[0][0] + r[1] * kept0, slope)
    update = _mean(u[0], u[1], half)
    new = (1 - update) * s_n
    k = (
        new,
        new * _mean(kept, kept0, half) * r[2],
        _mean(old[0] - fresh, old0[0] - fresh0, half) * u[2],
        new * _mean(r[0], r[1], half),
        update,
    )
    return (fresh + u[0] * (old[0] - fresh), old[1]), torch.stack(k, 1)


def _rnn(paired, z, z0, old, old0, masters, masters0, half):  # type: ignore[no-untyped-def]
    ((y, _, multiplier),), _ = paired
    return (y, old[1]), multiplier.unsqueeze(1)


_CELLS = {"stagenet": _stagenet, "lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn, "rnn_relu": _rnn}


def _back(cell: str, k: tuple[Tensor, ...], m_h: Tensor, m_c: Tensor) -> tuple[Tensor, ...]:
    """Multipliers of the pre-activations, of the last state without its gates, of the last c, and of master gates."""
    none = torch.zeros_like(m_h)
    if cell == "gru":
        return torch.stack([m_h * k[i] for i in range(4)]), m_h * k[4], m_c, none, none
    if cell.startswith("rnn"):
        return (m_h * k[0]).unsqueeze(0), none, m_c, none, none
    c = m_c + m_h * k[1]
    d = torch.stack([c * k[3], c * k[4], m_h * k[0], c * k[5]])
    return (d, none, c * k[2], c * k[6], c * k[7]) if cell == "stagenet" else (d, none, c * k[2], none, none)


def _flat(d: Tensor, by_panel: tuple[int, ...]) -> Tensor:
    """`[gates, rows, units]` in the order of the packed weights."""
    gates = d.unflatten(2, by_panel[1:])
    return gates.permute(1, 2, 0, 3).flatten(1)


def _columns(back: Tensor, width: int) -> Tensor:
    """Packed `[panels of columns, rows, wide]` as `[rows, width]`."""
    return back.permute(1, 0, 2).flatten(1)[:, :width]


def _masters_back(m_forget: Tensor, m_input: Tensor, m_master: Tensor, shares: Tensor, levels: int) -> Tensor:
    forget = m_forget.unflatten(1, (levels, -1)).sum(-1) + m_master
    into = m_input.unflatten(1, (levels, -1)).sum(-1).cumsum(-1)
    g = torch.stack([forget.flip(-1).cumsum(-1).flip(-1), into], 1)
    return softmax_back(g, shares.reshape(-1, 2, levels), -1).flatten(1)
