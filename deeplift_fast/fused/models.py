"""PyHealth's models as chains of fused layers: one class per model, made once and rebuilt when a weight changes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer
from torch import Tensor, nn

from deeplift_fast import ops
from deeplift_fast.features import Feature
from deeplift_fast.fused import mlp, rnn, stagenet, stagenet_attention, transformer
from deeplift_fast.fused.entries import Tokens, Values, between, pooled
from deeplift_fast.fused.pair import Arithmetic, Pair
from deeplift_fast.fused.ragged import Ragged
from deeplift_fast.read_back import ReadBack

Segment = tuple[float, float]
Contributions = Callable[[Tensor], Tensor]


class Unfit(Exception):
    """A batch that the fused layers were not written for; its text says why."""


class FusedModel(Protocol):
    """A model as a chain of fused layers.

    Attributes:
        layer: the name of its layers.
        at_once: how many samples go through it together.
    """

    layer: str
    at_once: int

    def __init__(self, model: Any) -> None: ...

    def is_outdated(self) -> bool:
        """Whether a weight that was packed has changed since."""
        ...

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment, later: ReadBack
    ) -> tuple[Pair, Contributions]:
        """One feature's part of the patient embedding, `[samples, width]`, and from its multipliers to contributions.

        Raises:
            Unfit: for a shape or a mask that the layers were not written for. Where `arithmetic` is static, what only
                the numbers tell is asked of `later`, and raised at its next read-back.
        """
        ...


def embeddings(model: Any) -> Mapping[str, Any]:
    """A model's embedding layers, by feature key."""
    layers: Mapping[str, Any] = model.embedding_model.embedding_layers
    return layers


def entry_of(feature: Feature, baseline: Tensor, layer: Any) -> Tokens | Values:
    """Where attribution starts in a feature of `[batch, steps]` or `[batch, steps, …]`."""
    if feature.is_token:
        if not isinstance(layer, nn.Embedding) or feature.value.dim() not in (2, 3):
            raise _unfit(feature, "its tokens are nested more than once, or not embedded by an nn.Embedding")
        return Tokens(feature.value.long().contiguous(), baseline.long().contiguous(), layer.weight)
    _require_linear(feature, layer)
    if feature.value.dim() == 2:
        return Values(feature.value.unsqueeze(1), baseline.unsqueeze(1), layer)
    if feature.value.dim() != 3:
        raise _unfit(feature, f"its values have shape {tuple(feature.value.shape)}, not [batch, steps, size]")
    return Values(feature.value, baseline, layer)


def _within(tokens: Tensor, layer: nn.Embedding, static: bool) -> Tensor:
    """Tokens that nobody has checked yet (`static`) brought into the vocabulary; what is wrong is found later."""
    tokens = tokens.long().contiguous()
    return tokens.clamp(0, layer.num_embeddings - 1) if static else tokens


def _require_linear(feature: Feature, layer: Any) -> None:
    if not isinstance(layer, nn.Linear) or feature.value.dtype != layer.weight.dtype:
        raise _unfit(feature, f"its values ({feature.value.dtype}) are not embedded by an nn.Linear of their dtype")


def _unfit(feature: Feature, reason: str) -> Unfit:
    return Unfit(f"feature {feature.key!r}: {reason}")


def _unfit_if(wrong: bool, feature: Feature, reason: str) -> None:
    if wrong:
        raise _unfit(feature, reason)


def mask_of(feature: Feature, schema: tuple[str, ...]) -> Tensor | None:
    """The mask that the model is given with a feature."""
    parts = feature.parts
    mask = parts[schema.index("mask")] if "mask" in schema else None
    mask = parts[-1] if mask is None and len(parts) == len(schema) + 1 else mask
    return mask if isinstance(mask, Tensor) else None


def _step_mask(feature: Feature, schema: tuple[str, ...]) -> Tensor:
    """The mask of steps, `[batch, steps]`, collapsed as the models do."""
    mask, value = mask_of(feature, schema), feature.value
    if mask is None or mask.dim() not in (2, value.dim()) or mask.shape != value.shape[: mask.dim()]:
        raise _unfit(feature, "its mask does not tell which steps are real")
    return mask.any(-1) if mask.dim() == 3 else mask


def _schema(model: Any, key: str) -> tuple[str, ...]:
    return tuple(model.dataset.input_processors[key].schema())


class _Packed:
    """Tells whether packed weights have changed, also where PyTorch keeps no count (`weight.data.mul_(2)`)."""

    def __init__(self, modules: Iterable[nn.Module | None]) -> None:
        weights = [weight for module in modules if module is not None for weight in module.parameters()]
        # Few hidden units have no theme. On a GPU looking would take a read-back: only counted changes are seen there.
        self._weights = [weight for weight in weights if weight.numel() and weight.device.type == "cpu"]
        with torch.no_grad():
            self._factors = [_factors(weight[0].numel(), weight.dtype) for weight in self._weights]
            self._sums = self._summed()

    def is_outdated(self) -> bool:
        """See :class:`FusedModel`."""
        with torch.no_grad():
            return not all(map(torch.equal, self._sums, self._summed()))

    def _summed(self) -> list[Tensor]:
        """The rows of each weight, summed up with other factors for each column: one quick pass over memory."""
        return [
            weight.flatten(1) @ f if weight.dim() > 1 else weight * f
            for weight, f in zip(self._weights, self._factors, strict=True)
        ]


def _factors(count: int, dtype: torch.dtype) -> Tensor:
    return torch.linspace(0.5, 1.5, count, dtype=dtype).sin_()


class FusedStageNet(_Packed):
    """`StageNet` and `StageAttentionNet`."""

    at_once = 256

    def __init__(self, model: Any) -> None:
        self._model = model
        attention = isinstance(model, StageAttentionNet)
        self.layer = "StageNetAttentionLayer" if attention else "StageNetLayer"
        self._finish = stagenet_attention.finish if attention else stagenet.finish
        self._layers = {
            key: stagenet.prepare(layer, _linear(embeddings(model)[key])) for key, layer in model.stagenet.items()
        }
        super().__init__([*model.stagenet.values(), *map(_linear, embeddings(model).values())])

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment, later: ReadBack
    ) -> tuple[Pair, Contributions]:
        """See :class:`FusedModel`."""
        entry = entry_of(feature, baseline, embeddings(self._model)[key])
        schema = _schema(self._model, key)
        mask, given = _step_mask(feature, schema), mask_of(feature, schema)
        if feature.is_token and given is not None and given.dim() != feature.value.dim():
            raise _unfit(feature, "its mask is one of steps, and PyHealth's layer takes one of codes")
        samples, steps = feature.value.shape[:2]
        ends = mask.sum(1, dtype=torch.int64)
        _require_flags(feature, mask, ends, arithmetic.static, later)
        ends = ends.clamp(1, steps)
        time = feature.parts[schema.index("time")] if "time" in schema else None
        if time is None:
            time = torch.ones(samples, steps, device=mask.device)
        if not isinstance(time, Tensor) or not time.is_floating_point() or time.numel() != samples * steps:
            raise _unfit(feature, "its times are not one floating-point number per step")
        times = time.reshape(samples, steps)
        layer, lengths = self._layers[key], ends
        if self._finish is stagenet_attention.finish and not arithmetic.static:
            lengths = stagenet_attention.needed(mask, ends, layer.module.conv_size)
        return stagenet.run(layer, entry, lengths, ends, mask, times, arithmetic, segment, self._finish)


def _require_flags(feature: Feature, mask: Tensor, ends: Tensor, static: bool, later: ReadBack) -> None:
    """Raise `Unfit` for a mask of steps with numbers other than 0 and 1; `ends` are its sums."""
    if mask.dtype == torch.bool or feature.mask is None:  # one derived from the values
        return
    steps, reason = mask.shape[1], "its mask holds numbers other than 0 and 1"
    found = ends.max(), mask.min()
    if static:
        later.ask(found, lambda each: _unfit_if(each[0] > steps or each[1] < 0, feature, reason))
    else:
        _unfit_if(int(found[0]) > steps or bool(found[1] < 0), feature, reason)


class FusedTransformer:
    """`Transformer`."""

    layer = "TransformerLayer"
    at_once = 256

    def __init__(self, model: Any) -> None:
        self._model = model

    def is_outdated(self) -> bool:
        """See :class:`FusedModel`."""
        return False  # nothing is packed

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment, later: ReadBack
    ) -> tuple[Pair, Contributions]:
        """See :class:`FusedModel`."""
        layer = embeddings(self._model)[key]
        entry = entry_of(feature, baseline, layer)
        mask = self._mask(key, feature)
        if mask.shape[1] > self._model.max_seq_len:
            raise _unfit(feature, f"it is longer than max_seq_len ({self._model.max_seq_len})")
        if arithmetic.static:
            both = transformer.Both.alike(transformer.Lines.every(mask))
        else:
            both = transformer.Both.of(mask, entry.baseline, segment[0] == 0)
        x, entered = entry.enter(both.lines.at, both.at0)
        x = between(both.rows(x), *segment)
        if entry.layer is not None:
            x = x.map(entry.layer)
        out, back = transformer.run(self._model.transformer[key].transformer, x, both, arithmetic)

        def contributions(m: Tensor) -> Tensor:
            m_rows = back(m)
            m_rows = m_rows if entry.layer is None else m_rows @ entry.layer.weight
            return entered(m_rows).reshape(feature.value.shape)

        return Pair(out.x, out.facing()), contributions

    def _mask(self, key: str, feature: Feature) -> Tensor:
        if not feature.is_token and feature.value.dim() == 2:  # one step, which is real
            if mask_of(feature, _schema(self._model, key)) is not None:
                raise _unfit(feature, "it has a mask of single values")
            return torch.ones(len(feature.value), 1, dtype=torch.bool, device=feature.value.device)
        return _step_mask(feature, _schema(self._model, key)).bool()


class FusedMLP:
    """`MLP`."""

    layer = "MLP"
    at_once = 4096

    def __init__(self, model: Any) -> None:
        self._model = model

    def is_outdated(self) -> bool:
        """See :class:`FusedModel`."""
        return False  # nothing is packed

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment, later: ReadBack
    ) -> tuple[Pair, Contributions]:
        """See :class:`FusedModel`."""
        layer, mask = embeddings(self._model)[key], mask_of(feature, _schema(self._model, key))
        if feature.is_token and isinstance(layer, nn.Embedding) and feature.value.dim() in (2, 3):
            if feature.value.dim() == 3 and (feature.mask is not None or arithmetic.rules == "pyhealth"):
                raise _unfit(feature, "its tokens are nested and have a mask of their own")
            x, entered = _mean_of_tokens(feature, baseline, mask, layer, arithmetic.static, later)
        elif not feature.is_token and feature.value.dim() in (2, 3):
            _require_linear(feature, layer)
            x, entered = _mean_of_values(feature, baseline, mask, layer)
        else:
            raise _unfit(feature, f"its value has shape {tuple(feature.value.shape)}")
        out, back = mlp.run(list(self._model.mlp[key]), between(x, *segment), arithmetic)
        return out, lambda m: entered(back(m))


def _mean_of_tokens(
    feature: Feature,
    baseline: Tensor,
    mask: Tensor | None,
    layer: Any,
    static: bool,
    later: ReadBack,
) -> tuple[Pair, Contributions]:
    """The mean embedding of real tokens."""
    value, baseline = (_within(tokens.flatten(1), layer, static) for tokens in (feature.value, baseline))
    table = layer.weight
    if mask is None:  # run by `forward`, where the mask comes from the embeddings
        real = table.abs().sum(-1) != 0
        mask = real[value]
        _require_same(feature, mask, real[baseline], "positions", static, later)
    if mask.shape != value.shape:
        raise _unfit(feature, "its mask is not of its tokens' shape")
    count = mask.sum(1, keepdim=True).to(table.dtype)
    if static:
        sums = pooled(table, torch.cat([value, baseline]))
        pair = Pair.stacked((sums.unflatten(0, (2, -1)) / count).flatten(0, 1))
    else:
        rows, where = _differing(baseline, mask, count, bool(table[0].any()))
        x, x0 = (pooled(table, t) for t in (value, baseline if where is None else baseline[:1]))
        pair = Pair(x.div_(count), x0 / rows, where)

    def back(m: Tensor) -> Tensor:
        return ops.token_contributions(table, value, baseline, m / count).reshape(feature.value.shape)

    return pair, back


def _require_same(feature: Feature, mask: Tensor, mask0: Tensor, what: str, static: bool, later: ReadBack) -> None:
    """Raise `Unfit` if the mask of the baseline is another one than that of the input."""
    reason = f"other {what} count as real at the baseline"
    if static:
        later.ask([(mask != mask0).any()], lambda found: _unfit_if(bool(found[0]), feature, reason))
    else:
        _unfit_if(not torch.equal(mask, mask0), feature, reason)


def _differing(baseline: Tensor, mask: Tensor, count: Tensor, padding_counts: bool) -> tuple[Tensor, Tensor | None]:
    """The samples whose means at the baseline differ.

    Args:
        baseline: tokens, int64 `[batch, slots]`.
        mask: `[batch, slots]`.
        count: real tokens of each sample, `[batch, 1]`.
        padding_counts: whether token 0 adds something to a sum.

    Returns:
        Their counts, `[rows, 1]`, and each sample's row, int64 `[batch]`; `None` where each has one of its own. The sum
        is then the first sample's for all.
    """
    lowest, highest = baseline.aminmax()
    if torch.equal(lowest, highest):  # one token, which padding is too
        rows, where = count[:, 0].unique(return_inverse=True)
        return rows[:, None], where
    alike = not mask.is_floating_point() and not padding_counts and torch.equal(highest * mask, baseline)
    if alike and bool(count.all()):  # one token, and padding
        return count[:1], torch.zeros(len(count), dtype=torch.int64)
    return count, None


def _mean_of_values(feature: Feature, baseline: Tensor, mask: Tensor | None, layer: Any) -> tuple[Pair, Contributions]:
    pair = Pair(feature.value, baseline)
    if mask is None and pair.x.dim() == 3:  # run by `forward`, which flattens them
        pair = pair.map(lambda x: x.flatten(1))
    if pair.x.dim() == 2:
        return pair.map(layer), lambda m: ((m @ layer.weight) * (pair.x - pair.x0)).reshape(feature.value.shape)
    if mask is None or mask.dim() not in (2, 3) or mask.shape != feature.value.shape[: mask.dim()]:
        raise _unfit(feature, "its mask does not tell which steps are real")
    mask = mask.to(layer.weight.dtype)
    count = (mask.any(-1).to(mask.dtype) if mask.dim() == 3 else mask).sum(1, keepdim=True)

    def back(m: Tensor) -> Tensor:
        return ((m / count) @ layer.weight).unsqueeze(1) * (pair.x - pair.x0)

    return pair.map(lambda x: layer(x).sum(1) / count), back


class FusedRNN(_Packed):
    """`RNN`."""

    layer = "RNNLayer"
    at_once = 256

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = {
            key: rnn.prepare(model.rnn[key].rnn, _linear(embeddings(model)[key])) for key in model.feature_keys
        }
        super().__init__([*model.rnn.values(), *map(_linear, embeddings(model).values())])

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment, later: ReadBack
    ) -> tuple[Pair, Contributions]:
        """See :class:`FusedModel`."""
        entry = entry_of(feature, baseline, embeddings(self._model)[key])
        lengths, longest = self._lengths(key, feature, baseline, arithmetic.static, later), entry.baseline.shape[1]
        steps = Ragged.every(lengths, longest) if arithmetic.static else Ragged.of(lengths)
        rows, entered = entry.enter(steps.at)
        ends, back = rnn.run(self._layers[key], between(rows, *segment), steps, arithmetic, segment[0] == 0)
        layer, out_back = self._model.rnn[key], None
        if layer.bidirectional:
            weight, bias = layer.down_projection.weight, layer.down_projection.bias
            ends, out_back = ends.map(lambda x: F.linear(x, weight, bias)), lambda m: m @ weight

        def contributions(m: Tensor) -> Tensor:
            m = steps.sorted(m)
            return entered(back(m if out_back is None else out_back(m))).reshape(feature.value.shape)

        return steps.unsorted(ends), contributions

    def _lengths(self, key: str, feature: Feature, baseline: Tensor, static: bool, later: ReadBack) -> Tensor:
        """Real steps of each sample, from the mask given or as the model derives it from its embeddings."""
        if not feature.is_token and feature.value.dim() == 2:
            return torch.ones(len(feature.value), dtype=torch.int64, device=feature.value.device)
        schema = _schema(self._model, key)
        mask = feature.parts[schema.index("mask")] if "mask" in schema else None
        if mask is None:
            mask, mask0 = (self._embedded(key, feature, value, static) for value in (feature.value, baseline))
            _require_same(feature, mask, mask0, "steps", static, later)
        elif mask.dim() == 3:
            mask = mask.int().sum(-1) > 0
        if mask.shape != feature.value.shape[:2]:
            raise _unfit(feature, "its mask does not tell which steps are real")
        lengths, longest = mask.sum(-1, dtype=torch.int64), mask.shape[1]
        if not static:
            return lengths.clamp(min=1)
        if mask.dtype != torch.bool:
            reason = "its mask holds numbers other than 0 and 1"
            later.ask([lengths.max()], lambda found: _unfit_if(found[0] > longest, feature, reason))
        return lengths.clamp(1, longest)

    def _embedded(self, key: str, feature: Feature, value: Tensor, static: bool) -> Tensor:
        """Which steps' embeddings are other than 0."""
        layer = embeddings(self._model)[key]
        if not feature.is_token:
            return layer(value).abs().sum(-1) != 0
        value = _within(value, layer, static)
        if value.dim() == 2:
            return (layer.weight.abs().sum(-1) != 0)[value]
        return pooled(layer.weight, value.flatten(0, 1)).unflatten(0, value.shape[:2]).abs().sum(-1) != 0


def _linear(layer: Any) -> nn.Linear | None:
    return layer if isinstance(layer, nn.Linear) else None


FUSED: dict[type, type[FusedModel]] = {
    StageNet: FusedStageNet,
    StageAttentionNet: FusedStageNet,
    Transformer: FusedTransformer,
    MLP: FusedMLP,
    RNN: FusedRNN,
}

__all__ = ["FUSED", "FusedModel", "Unfit", "embeddings", "entry_of"]
