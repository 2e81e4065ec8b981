"""`RNN`: LSTM, GRU or plain recurrent layers in one or both directions, and the output at each sample's end."""

from typing import Any, override

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused import recurrent
from deeplift_fast.pyhealth.fused.entries import between, entry_of, pooled, require_same, unfit, unfit_if
from deeplift_fast.pyhealth.fused.model import Contributions, OneByOne, Segment, embeddings, linear_of, schema_of
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Back, Pair
from deeplift_fast.pyhealth.fused.recurrent import Packed
from deeplift_fast.pyhealth.fused.sequences import Steps, steps_of
from deeplift_fast.pyhealth.fused.watched import Watched

# The op's order of gates, as indices into PyTorch's order, for the weights of the input and of the state. An LSTM has
# forget, input, output, new. A GRU has new, reset, update for the input, and reset, update, new for the state.
_ORDER = {"LSTM": ([1, 0, 3, 2], [1, 0, 3, 2]), "GRU": ([2, 0, 1], [0, 1, 2]), "RNN": ([0], [0])}


def prepare(rnn: Any, embed: Any) -> list[list[Packed]]:
    """Pack a `torch.nn.RNNBase`: by layer, then by direction. The linear layer `embed` is merged into the first."""
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
    return recurrent.pack(rnn.mode.lower(), (u, h, bias), weight_u.shape[1])


def run(layers: list[list[Packed]], u: Pair, steps: Steps, arithmetic: Arithmetic, share: bool) -> tuple[Pair, Back]:
    """The output at each sample's end (of the reverse direction: at its first step), `[places, directions · hidden]`.

    Args:
        layers: the packed weights, from :func:`prepare`.
        u: the inputs, with a baseline row for each row of the input.
        steps: the sample and the step of each row.
        arithmetic: the rule set; all but `complete` use the ordinary gradient.
        share: whether equal sequences of the baseline may be computed once.
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
    """These rows of `x`; all for `None`."""
    return x if rows is None else x.index_select(0, rows)


def _rows(h: Pair, packed: Packed, rows: Tensor | None) -> Pair:
    """The states without padded units at these rows (`None`: all), with a baseline row for each row of the input."""
    x0 = h.facing() if rows is None else h.x0.index_select(0, rows if h.where is None else h.where[rows])
    return Pair(packed.unpadded(_ordered(h.x, rows)), packed.unpadded(x0))


class FusedRNN(Watched, OneByOne):
    """`RNN`."""

    layer = "RNNLayer"
    at_once = 256

    def __init__(self, model: Any) -> None:
        self._model = model
        super().__init__([*model.rnn.values(), *map(linear_of, embeddings(model).values())])
        self._layers = {
            key: prepare(model.rnn[key].rnn, linear_of(embeddings(model)[key])) for key in model.feature_keys
        }

    @override
    def feature(
        self, key: str, feature: Feature, baseline: BaselineValue, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        entry = entry_of(feature, baseline, embeddings(self._model)[key])
        lengths, longest = self._lengths(key, feature, baseline, arithmetic), entry.baseline.shape[1]
        steps = steps_of(lengths, longest, arithmetic.static)
        rows, entered = entry.enter(steps.at)
        ends, back = run(self._layers[key], between(rows, *segment), steps, arithmetic, segment[0] == 0)
        layer, out_back = self._model.rnn[key], None
        if layer.bidirectional:
            weight, bias = layer.down_projection.weight, layer.down_projection.bias
            ends, out_back = ends.map(lambda x: F.linear(x, weight, bias)), lambda m: m @ weight

        def contributions(m: Tensor) -> Tensor:
            m = steps.sorted(m)
            return entered(back(m if out_back is None else out_back(m))).reshape(feature.value.shape)

        return steps.unsorted(ends), contributions

    def _lengths(self, key: str, feature: Feature, baseline: BaselineValue, arithmetic: Arithmetic) -> Tensor:
        """The number of real steps of each sample, by the given mask, or by the embeddings as in the model."""
        if not feature.is_token and feature.value.dim() == 2:
            return torch.ones(len(feature.value), dtype=torch.int64, device=feature.value.device)
        schema = schema_of(self._model, key)
        mask = feature.parts[schema.index("mask")] if "mask" in schema else None
        if mask is None:
            mask = self._embedded(key, feature, feature.value, arithmetic)
            if not baseline.keeps_mask:
                mask0 = self._embedded(key, feature, baseline.value, arithmetic)
                require_same(feature, mask, mask0, "steps", arithmetic.questions)
        elif mask.dim() == 3:
            mask = mask.int().sum(-1) > 0
        if mask.shape != feature.value.shape[:2]:
            raise unfit(feature, "its mask does not tell which steps are real")
        lengths, longest = mask.sum(-1, dtype=torch.int64), mask.shape[1]
        if mask.dtype != torch.bool:
            reason = "its mask holds numbers other than 0 and 1"
            arithmetic.questions.ask([lengths.max()], lambda found: unfit_if(found[0] > longest, feature, reason))
        return lengths.clamp(1, longest)

    def _embedded(self, key: str, feature: Feature, value: Tensor, arithmetic: Arithmetic) -> Tensor:
        """Whether a step's embedding differs from 0."""
        layer = embeddings(self._model)[key]
        if not feature.is_token:
            return layer(value).abs().sum(-1) != 0
        value = arithmetic.questions.within(value, layer.num_embeddings)
        if value.dim() == 2:
            return (layer.weight.abs().sum(-1) != 0)[value]
        return pooled(layer.weight, value.flatten(0, 1)).unflatten(0, value.shape[:2]).abs().sum(-1) != 0
