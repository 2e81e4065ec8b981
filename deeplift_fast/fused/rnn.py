"""PyHealth's `RNNLayer`: LSTM, GRU or RNN layers, in one or both directions, and the output at each sample's end."""

from typing import Any

import torch
from torch import Tensor

from deeplift_fast.fused import recurrent
from deeplift_fast.fused.pair import Arithmetic, Back, Pair
from deeplift_fast.fused.ragged import Ragged
from deeplift_fast.fused.recurrent import Packed

# PyTorch's order of gates to the op's: forget, input, output, new; and new, reset, update (of the input), and reset,
# update, new (of the state).
_ORDER = {"LSTM": ([1, 0, 3, 2], [1, 0, 3, 2]), "GRU": ([2, 0, 1], [0, 1, 2]), "RNN": ([0], [0])}


def prepare(rnn: Any, embed: Any) -> list[list[Packed]]:
    """Pack a `torch.nn.RNNBase`, with the linear layer `embed` merged into its first inputs: layers of directions."""
    directions = 2 if rnn.bidirectional else 1
    return [
        [_pack(rnn, layer, "_reverse" * direction, embed if layer == 0 else None) for direction in range(directions)]
        for layer in range(rnn.num_layers)
    ]


def _pack(rnn: Any, layer: int, suffix: str, embed: Any) -> Packed:
    def of(name: str) -> Tensor | None:
        return getattr(rnn, f"{name}_l{layer}{suffix}", None)

    weight_u, weight_h, bias_u, bias_h = (of(name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    assert weight_u is not None
    assert weight_h is not None
    rows = len(weight_u)
    bias_u = weight_u.new_zeros(rows) if bias_u is None else bias_u
    bias_h = weight_u.new_zeros(rows) if bias_h is None else bias_h
    if embed is not None:
        bias_u = bias_u if embed.bias is None else bias_u + weight_u @ embed.bias
        weight_u = weight_u @ embed.weight
    size = rnn.hidden_size
    (u, b_u), (h, b_h) = (
        (w.reshape(-1, size, w.shape[1])[order], b.reshape(-1, size)[order])
        for w, b, order in zip((weight_u, weight_h), (bias_u, bias_h), _ORDER[rnn.mode.split("_")[0]], strict=True)
    )
    if rnn.mode == "GRU":
        bias = torch.stack([b_u[0], b_u[1] + b_h[0], b_u[2] + b_h[1], b_h[2]])
    else:
        bias = b_u + b_h
    return recurrent.pack(rnn.mode.lower(), u, h, bias, weight_u.shape[1])


def run(layers: list[list[Packed]], u: Pair, steps: Ragged, arithmetic: Arithmetic, share: bool) -> tuple[Pair, Back]:
    """The output at each sample's end (of the reverse direction: at its first step), `[places, directions · hidden]`.

    Args:
        layers: see :func:`prepare`.
        u: inputs, row by row in both streams.
        steps: which rows are whose.
        arithmetic: the rule set; without `complete`, a layer has its ordinary gradient.
        share: whether equal sequences of the baseline are computed once.
    """
    orders = (None, steps.reversed()) if len(layers[0]) > 1 else (None,)
    slope = "secant" if arithmetic.complete else "derivative"
    backs = []
    for index, directions in enumerate(layers):
        outputs = []
        for packed, order in zip(directions, orders, strict=True):
            given = u if order is None else u.apart().map(lambda x, order=order: _ordered(x, order))  # type: ignore[misc]
            states = recurrent.run(packed, given, steps, arithmetic, slope, share)
            outputs.append((packed, states, order))
        backs.append(outputs)
        if index < len(layers) - 1:
            parts = [_rows(states.h, packed, order) for packed, states, order in outputs]
            u = Pair(torch.cat([p.x for p in parts], -1), torch.cat([p.x0 for p in parts], -1))
    at_end = steps.last()
    ends = [_rows(states.h, packed, at_end) for packed, states, _ in backs[-1]]

    def back(m: Tensor) -> Tensor:
        m_out: Tensor | None = None
        for outputs in reversed(backs):
            size = len(outputs[0][0].slots)
            total: Tensor | None = None
            for place, (packed, states, order) in enumerate(outputs):
                columns = slice(place * size, (place + 1) * size)
                if m_out is None:
                    m_h = torch.zeros_like(states.h.x)
                    m_h[at_end] = packed.padded(m[:, columns])
                else:
                    m_h = packed.padded(_ordered(m_out[:, columns], order)).contiguous()
                found = _ordered(states.back(m_h, None), order)
                total = found if total is None else total + found
            m_out = total
        assert m_out is not None
        return m_out

    return Pair(torch.cat([e.x for e in ends], -1), torch.cat([e.x0 for e in ends], -1)), back


def _ordered(x: Tensor, rows: Tensor | None) -> Tensor:
    """These rows, or all as they are."""
    return x if rows is None else x.index_select(0, rows)


def _rows(h: Pair, packed: Packed, rows: Tensor | None) -> Pair:
    """The states of the true units at these rows (or all) in both streams, row by row."""
    x0 = h.facing() if rows is None else h.x0.index_select(0, rows if h.where is None else h.where[rows])
    return Pair(packed.unpadded(_ordered(h.x, rows)), packed.unpadded(x0))
