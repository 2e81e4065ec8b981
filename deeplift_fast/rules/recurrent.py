"""LSTM, GRU and RNN layers written out step by step, with the signatures of PyTorch's own functions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, Sequence[Tensor]], State]


def lstm(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`torch.lstm`, padded or packed: output, last hidden states, last cell states."""
    output, states = _layers(_lstm_cell, 2, *args)
    return output, states[0], states[1]


def gru(*args: Any) -> tuple[Tensor, Tensor]:
    """`torch.gru`, padded or packed: output, last hidden states."""
    output, states = _layers(_gru_cell, 1, *args)
    return output, states[0]


def rnn_tanh(*args: Any) -> tuple[Tensor, Tensor]:
    """`torch.rnn_tanh`, padded or packed: output, last hidden states."""
    output, states = _layers(_rnn_cell(torch.tanh), 1, *args)
    return output, states[0]


def rnn_relu(*args: Any) -> tuple[Tensor, Tensor]:
    """`torch.rnn_relu`, padded or packed: output, last hidden states."""
    output, states = _layers(_rnn_cell(torch.relu), 1, *args)
    return output, states[0]


def lstm_cell(input: Tensor, hx: State, *weights: Tensor) -> State:
    """`torch.lstm_cell`: one step's hidden and cell state."""
    return _step(_lstm_cell, input, tuple(hx), weights)


def gru_cell(input: Tensor, hx: Tensor, *weights: Tensor) -> Tensor:
    """`torch.gru_cell`: one step's hidden state."""
    return _step(_gru_cell, input, (hx,), weights)[0]


def rnn_tanh_cell(input: Tensor, hx: Tensor, *weights: Tensor) -> Tensor:
    """`torch.rnn_tanh_cell`: one step's hidden state."""
    return _step(_rnn_cell(torch.tanh), input, (hx,), weights)[0]


def rnn_relu_cell(input: Tensor, hx: Tensor, *weights: Tensor) -> Tensor:
    """`torch.rnn_relu_cell`: one step's hidden state."""
    return _step(_rnn_cell(torch.relu), input, (hx,), weights)[0]


def _step(cell: Cell, input: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    weights = [weight for weight in weights if weight is not None]  # missing biases are None
    return cell(F.linear(input, weights[0], weights[2] if len(weights) >= 4 else None), state, weights)


def _lstm_cell(gates: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    h, c = state
    i, f, g, o = (gates + _recurrent(h, weights)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    if len(weights) == 5:  # a projection
        h = F.linear(h, weights[4])
    elif len(weights) == 3:
        h = F.linear(h, weights[2])
    return h, c


def _gru_cell(gates: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    (h,) = state
    reset, update, new = gates.chunk(3, -1)
    reset_h, update_h, new_h = _recurrent(h, weights).chunk(3, -1)
    z = torch.sigmoid(update + update_h)
    n = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
    return (n + z * (h - n),)


def _rnn_cell(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(gates: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        return (activation(gates + _recurrent(state[0], weights)),)

    return cell


def _recurrent(h: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return F.linear(h, weights[1], weights[3] if len(weights) >= 4 else None)


def _layers(cell: Cell, count: int, *args: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    packed = isinstance(args[3], bool | int) is False
    if packed:
        data, sizes, hx, params, biased, layers, dropout, train, bidirectional = args
        steps = list(data.split(sizes.tolist()))
        batch_first = False
    else:
        data, hx, params, biased, layers, dropout, train, bidirectional, batch_first = args
        if batch_first:
            data = data.transpose(0, 1)
        steps = list(data.unbind(0))
    hx = hx if isinstance(hx, tuple | list) else (hx,)
    directions = 2 if bidirectional else 1
    per = len(params) // (layers * directions)
    finals: list[State] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            weights = params[index * per : (index + 1) * per]
            state = tuple(h[index] for h in hx[:count])
            found, final = _direction(cell, steps, state, weights, biased, backward=direction == 1)
            outputs.append(found)
            finals.append(final)
        steps = [torch.cat(parts, -1) for parts in zip(*outputs, strict=True)] if directions == 2 else outputs[0]
        if dropout > 0 and train and layer < layers - 1:
            steps = [F.dropout(step, dropout) for step in steps]
    output = torch.cat(steps) if packed else torch.stack(steps, 1 if batch_first else 0)
    return output, tuple(torch.stack([final[i] for final in finals]) for i in range(count))


def _direction(
    cell: Cell, steps: list[Tensor], state: State, weights: Sequence[Tensor], biased: bool, backward: bool
) -> tuple[list[Tensor], State]:
    """One layer in one direction; packed sequences shrink (forward) or grow (backward) from step to step."""
    bias = weights[2] if biased else None
    lengths = [step.shape[0] for step in steps]
    gates = F.linear(torch.cat(steps), weights[0], bias).split(lengths)
    outputs: list[Tensor] = []
    finished: list[State] = []
    current = tuple(s[: lengths[-1]] for s in state) if backward else state
    for index in range(len(steps) - 1, -1, -1) if backward else range(len(steps)):
        size, held = lengths[index], current[0].shape[0]
        if size > held:
            current = tuple(torch.cat([c, s[held:size]]) for c, s in zip(current, state, strict=True))
        elif size < held:
            finished.append(tuple(c[size:] for c in current))
            current = tuple(c[:size] for c in current)
        current = cell(gates[index], current, weights)
        outputs.append(current[0])
    finished.append(current)
    final = tuple(torch.cat([part[i] for part in reversed(finished)]) for i in range(len(current)))
    return (outputs[::-1] if backward else outputs), final
