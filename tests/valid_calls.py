"""One small valid call of every op on the CPU, as torch.ops takes it: `{op: {argument: value}}`."""

import torch

from deeplift_fast.ops.cells import COEFFICIENTS, GATES
from deeplift_fast.pyhealth.fused.recurrent import pack

ENDS = torch.tensor([0, 2, 5])
LENGTHS = torch.tensor([2, 2, 1])  # samples at each step
CELLS = ("stagenet", "gru", "rnn_tanh")  # one of each shape of weights


def valid_calls(dtype=torch.float32):
    """Arguments by name, in the order of the schema."""
    torch.manual_seed(0)

    def numbers(*shape):
        return torch.randn(shape, dtype=dtype)

    calls = {
        "secant": {"x": numbers(3, 5), "x0": numbers(3, 5), "function": "tanh", "variant": "rescale"},
        "secant_at_input": {"x": numbers(3, 5), "x0": numbers(3, 5), "function": "relu", "variant": "rescale"},
        "gelu": {"x": numbers(3, 5), "x0": numbers(2, 5), "where": torch.tensor([1, 0, 1]), "secant": True},
        "few_rows": {"x": numbers(2, 5), "weight": numbers(3, 5), "bias": numbers(3)},
        "few_rows_backward": {"m": numbers(2, 3), "weight": numbers(3, 5)},
        "gated_sum": {
            "a": numbers(2, 3, 5), "b": numbers(2, 3, 5), "c": numbers(2, 3, 5), "variant": "rescale", "half": 0.5,
        },
        "log_mean_softmax": {"z": numbers(3, 5), "z0": numbers(3, 5), "dim": 1, "log": False},
        "log_mean_softmax_backward": {"g": numbers(3, 5), "mean": numbers(3, 5).exp(), "dim": 1},
        "convergence": {
            "totals": numbers(2, 3).double(), "output": numbers(3), "output0": numbers(3), "rescale": True,
            "tolerance": 0.01,
        },
        "token_contributions": {
            "weight": numbers(6, 5), "tokens": torch.tensor([[1, 5], [0, 0], [3, 2]]),
            "baseline": torch.ones(3, 2, dtype=torch.int64), "multipliers": numbers(3, 5),
        },
        "target": {"logits": numbers(2, 3, 4), "weight": numbers(2, 4, 5), "chosen": -1},
        "token_rows": {
            "weight": numbers(6, 5), "tokens": torch.tensor([[[1, 5], [0, 0]]]).repeat(3, 1, 1),
            "baseline": torch.ones(3, 2, 2, dtype=torch.int64), "times": numbers(3, 2),
        },
        "value_rows": {"values": numbers(3, 2, 5), "baseline": numbers(3, 2, 5), "times": numbers(3, 2)},
        "token_survey": {"times": numbers(3, 2), "tokens": torch.tensor([[[1, 5], [0, 0]]]).repeat(3, 1, 1)},
        "value_survey": {"values": numbers(3, 2, 5), "times": numbers(3, 2), "neutral": 0.01},
        "layer_norm_backward": {
            "m": numbers(3, 5), "x": numbers(3, 5), "x0": numbers(2, 5), "where": torch.tensor([1, 0, 1]),
            "average": numbers(3, 1), "average0": numbers(2, 1), "scale": numbers(3, 1).exp(),
            "scale0": numbers(2, 1).exp(), "weight": numbers(5), "half": 0.5,
        },
        **_token_layers(numbers),
        **_attention(numbers),
        **_stage_window(numbers),
        **_lockstep(numbers),
    }  # fmt: skip
    for cell in CELLS:
        forward, backward = _recurrent(numbers, cell)
        calls[f"recurrent, {cell}"], calls[f"recurrent_backward, {cell}"] = forward, backward
    return calls


def _token_layers(numbers):
    tokens = torch.tensor([[1, 5], [0, 0], [3, 2]])
    entry = {"table": numbers(6, 5), "tokens": tokens, "baseline": torch.ones_like(tokens), "real": tokens > 0}
    forward = {
        **entry, "weight": numbers(4, 5), "bias": numbers(4), "weight2": numbers(2, 4), "bias2": numbers(2),
        "begin": 0.0, "end": 1.0, "function": "relu", "variant": "rescale",
    }  # fmt: skip
    backward = {"m": numbers(1, 2), "weight2": numbers(2, 4), "slope": numbers(3, 4), "weight": numbers(4, 5), **entry}
    return {"token_layers": forward, "token_layers_backward": backward}


def _attention(numbers):
    looks, seen = torch.tensor([True, True, False]), torch.tensor([True, False, True, True, True])
    starts, queries = ENDS, torch.tensor([0, 1, 3])
    index, index0 = torch.tensor([4, 0, 1, 2, 5]), torch.arange(5)
    forward = {
        "asked": numbers(2, 3, 5), "rows": numbers(6, 5), "index": index, "starts": starts, "queries": queries,
        "looks": looks, "seen": seen,
    }  # fmt: skip
    backward = {
        "m": numbers(2, 3, 5), "asked": numbers(2, 3, 5), "asked0": numbers(2, 3, 5), "rows": numbers(6, 5),
        "rows0": numbers(5, 5), "index": index, "index0": index0, "starts": starts, "starts0": starts,
        "queries": queries, "queries0": queries, "where": torch.tensor([0, 1]), "looks": looks, "looks0": looks,
        "seen": seen, "seen0": seen, "log_sums": numbers(2, 3) + 9, "log_sums0": numbers(2, 3) + 9, "half": 0.5,
    }  # fmt: skip
    return {"attention": forward, "attention_backward": backward}


def _stage_window(numbers):
    levels, hidden, units = 2, 6, 8
    real = torch.tensor([[True, True, True], [False, False, True]])
    places = torch.tensor([[0, 1, 2], [7, 7, 3]])
    log_p, log_p0 = (numbers(4, 2 * levels).log_softmax(-1) for _ in range(2))
    h, h0 = numbers(4, units), numbers(4, units)
    forward = {
        "h": h, "h0": h0, "log_p": log_p, "log_p0": log_p0, "places": places, "places0": places, "rows": places,
        "rows0": places, "real": real, "levels": levels, "hidden": hidden,
    }  # fmt: skip
    backward = {
        "m_local": numbers(2, 3, hidden), "m_mean": numbers(2, hidden), "m_last": numbers(2, hidden), "h": h, "h0": h0,
        "places": places, "places0": places, "rows": places, "real": real,
        "log_stage": numbers(2, 2, 3).log_softmax(-1), "log_p": log_p, "levels": levels, "half": 0.5,
    }  # fmt: skip
    return {"stage_window": forward, "stage_window_backward": backward}


def _lockstep(numbers):
    layers, units, levels, samples, rows = 2, 6, 2, 2, 10
    columns, steps = 4 * units + 2 * levels, [3, 2]
    order, lengths = torch.tensor([[1, 0], [0, 1]]), torch.tensor([[3, 2], [1, 2]])
    turns = {"order": order, "lengths": lengths, "column_of": [1, 0]}
    weight, k = numbers(layers, units, columns), numbers(rows, COEFFICIENTS["stagenet"], units)
    forward = {
        "projected": numbers(2 * rows, columns), "where": torch.arange(samples), "steps": steps, **turns,
        "weight": weight, "bias": numbers(layers, columns), "coefficients": k, "levels": levels, "slope": "secant",
        "half": 0.5,
    }  # fmt: skip
    backward = {
        "m_h": numbers(rows, units), "m_master": numbers(rows, levels), "coefficients": k,
        "shares": numbers(rows, 2 * levels).exp(), "steps": steps, **turns, "weight": weight, "levels": levels,
    }  # fmt: skip
    return {"lockstep": forward, "lockstep_backward": backward}


def _recurrent(numbers, cell):
    levels, units, inputs, rows = (2, 32, 3, 5) if cell == "stagenet" else (0, 20, 3, 5)
    gates, from_input, from_state = GATES[cell]
    masters = (numbers(2 * levels, inputs), numbers(2 * levels, units), numbers(2 * levels)) if levels else None
    weights = pack(
        cell, (numbers(from_input, units, inputs), numbers(from_state, units, units), numbers(gates, units)), inputs,
        masters, levels,
    )  # fmt: skip
    k = numbers(rows, COEFFICIENTS[cell], weights.units)
    names = ("weight_u", "weight_h", "bias", "master_u", "master_h", "master_bias")
    forward = {
        "u": numbers(rows, inputs), "u0": numbers(rows, inputs), "where": torch.arange(2), "counts": LENGTHS,
        "counts0": LENGTHS, **dict(zip(names, weights.forward, strict=True)), "coefficients": k, "levels": levels,
        "cell": cell, "slope": "secant", "half": 0.5,
    }  # fmt: skip
    names = ("back_u", "back_h", "back_master_u", "back_master_h")
    backward = {
        "m_h": numbers(rows, weights.units), "m_master": numbers(rows, levels), "coefficients": k,
        "shares": numbers(rows, 2 * levels).exp(), "counts": LENGTHS, **dict(zip(names, weights.back, strict=True)),
        "levels": levels, "cell": cell, "inputs": inputs,
    }  # fmt: skip
    return forward, backward
