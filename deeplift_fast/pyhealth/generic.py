"""The generic route: any PyHealth model, operation by operation, through its own code."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pyhealth.interpret.api import Interpretable
from torch import Tensor

from deeplift_fast.core import attribution
from deeplift_fast.core.attribution import Attribution
from deeplift_fast.core.intercept import IsolatedPass
from deeplift_fast.core.isolation import Kept, ShadowState, isolated
from deeplift_fast.core.questions import Questions
from deeplift_fast.pyhealth import as_read, predictions
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature, read_features
from deeplift_fast.pyhealth.points import FromEmbedding, FromTokens, Point
from deeplift_fast.pyhealth.predictions import PredictionDifference
from deeplift_fast.pyhealth.request import Absent, Batch, Request
from deeplift_fast.pyhealth.token_uses import Alone, TokenUses

Values = Mapping[str, BaselineValue]


class GenericRoute:
    """Runs the model of one interpreter.

    Args:
        model: a PyHealth model.
        use_embeddings: as for :class:`deeplift_fast.pyhealth.interpreter.DeepLift`.
        rules: the rule set.
    """

    def __init__(self, model: Any, use_embeddings: bool, rules: str) -> None:
        self.model = model
        self._use_embeddings = use_embeddings
        self._rules = rules
        self._token_uses = TokenUses()

    def read(self, given: Mapping[str, Any], questions: Questions) -> Batch:
        """A batch from PyHealth's loader, read and checked; `questions` takes the checks of its numbers."""
        features = read_features(self.model, given, self._use_embeddings, questions)
        read = as_read.as_read(self.model, features, self._rules)
        return Batch(given, features, read, self.point(read, given), questions)

    def point(self, features: Mapping[str, Feature], batch: Mapping[str, Any]) -> Point:
        """The entry of attribution in the model.

        Raises:
            ValueError: if embeddings are needed, and the model has none or an unknown kind of them.
        """
        if not isinstance(self.model, Interpretable) or as_read.flattens(self.model, features):
            return FromTokens(self.model, batch, [key for key, feature in features.items() if feature.is_token])
        embed = self.model.get_embedding_model() if self._use_embeddings else None
        if embed is None and self._use_embeddings:
            raise ValueError(
                f"{type(self.model).__name__}.get_embedding_model() returned None, and use_embeddings=True needs one; "
                "for continuous features alone, use use_embeddings=False"
            )
        return FromEmbedding(self.model, embed)

    def own_logits(self, features: Mapping[str, Feature], batch: Mapping[str, Any], count: int) -> Tensor:
        """The model's own logits of the first `count` samples, `[count, classes]`."""
        read = as_read.as_read(self.model, features, self._rules)
        few = {key: feature.at(slice(0, count)) for key, feature in read.items()}
        given = {**batch, **{key: few[key].parts for key in few}}
        labels = getattr(self.model, "label_keys", ())
        given = {key: value[:count] if key in labels else value for key, value in given.items()}
        return self._logits(self.point(few, given), few, {})

    def logits(self, batch: Batch) -> Tensor:
        """The model's own logits of a batch, which may have absent tokens, `[batch, classes]`."""
        return self._logits(batch.point, batch.read, batch.absent)

    def _logits(self, point: Point, features: Mapping[str, Feature], absent: Mapping[str, Absent]) -> Tensor:
        inputs = as_read.with_masks(self.model, features, self._rules)
        tokens = {key: feature.value for key, feature in features.items() if feature.is_token}
        with isolated([self.model], set()) as rewind, torch.no_grad():
            if isinstance(point, FromTokens) and tokens:
                point = self._token_uses.entered(point, features, self.alone(rewind))
            values = {key: feature.value for key, feature in features.items()}
            values |= self._numbers(point, tokens, rewind)
            if absent and point.settles:
                self.alone(rewind)(functools.partial(point.settle, inputs, values))
            values = self._without(point, values, absent, rewind)
            with IsolatedPass(ShadowState(Kept([self.model]))):
                return point.logits(inputs, values)

    def run(self, request: Request, batch: Batch, baselines: Values) -> Attribution:
        """The attribution of a batch to one baseline, by feature key."""
        point, features = batch.point, batch.read
        inputs = as_read.with_masks(self.model, features, self._rules)
        tokens = {key: feature.value for key, feature in features.items() if feature.is_token}
        devices = {feature.value.device for feature in features.values() if feature.value.is_cuda}
        with isolated([self.model], devices) as rewind:
            alone = self.alone(rewind)
            if isinstance(point, FromTokens) and tokens:
                point = self._token_uses.entered(point, inputs, alone)
                _check_widths(point, baselines)
            xs, x0s = self._ends(point, features, baselines, rewind)
            if point.settles:
                alone(functools.partial(point.settle, inputs, xs))
            xs = self._without(point, xs, batch.absent, rewind)
            if isinstance(point, FromTokens):
                self._token_uses.check(point, inputs, alone)
            found = attribution.attributed(
                lambda **given: _for_target(point.logits(inputs, given), request.target),
                xs,
                x0s,
                request.target,
                request.options,
                attribution.Context(modules=(self.model,)),
            )
        contributions = {
            key: self._shaped(found.contributions[key], feature, batch.absent.get(key))
            for key, feature in features.items()
        }
        target = found.target if found.target is not None else torch.zeros_like(found.output, dtype=torch.int64)
        report = found.report.of(contributions.values(), found.output, found.baseline_output)
        return replace(found, contributions=contributions, target=target, report=report)

    def _ends(
        self, point: Point, features: Mapping[str, Feature], baselines: Values, rewind: Callable[[], None]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The continuous values and the tokens' numbers at the input and at the baseline."""
        xs = {key: feature.value for key, feature in features.items()}
        x0s = {key: baseline.value for key, baseline in baselines.items()}
        tokens = [key for key, feature in features.items() if feature.is_token]
        own = self._numbers(point, {key: xs[key] for key in tokens}, rewind)
        x0s |= self._at(point, {key: baselines[key] for key in tokens}, own, rewind)
        xs |= own
        if self._rules == "pyhealth":
            xs = {key: x0s[key] + (x - x0s[key]) for key, x in xs.items()}  # the rounding of PyHealth's input
        return xs, x0s

    def _without(
        self, point: Point, xs: dict[str, Tensor], absent: Mapping[str, Absent], rewind: Callable[[], None]
    ) -> dict[str, Tensor]:
        """The input with absent tokens at their baseline; `xs` is the whole one."""
        return xs | self._at(point, {key: each.at_input for key, each in absent.items()}, xs, rewind)

    def _at(
        self, point: Point, values: Values, own: Mapping[str, Tensor], rewind: Callable[[], None]
    ) -> dict[str, Tensor]:
        """The tokens' numbers at a baseline; `own` are those of the batch's tokens."""
        if not values:
            return {}
        numbers = self._numbers(point, {key: each.value for key, each in values.items()}, rewind)
        with torch.no_grad():
            return {key: each.numbers(own[key], numbers[key]) for key, each in values.items()}

    def difference(self, features: Mapping[str, Feature]) -> PredictionDifference:
        """The difference between the explained logits of samples of a batch and those of `model(**batch)`."""
        features = predictions.compared(features)
        explained = self.own_logits(features, {}, len(next(iter(features.values())).value))
        given = {key: each.parts if len(each.parts) > 1 else each.value for key, each in features.items()}
        values = {key: each.value for key, each in features.items()}
        with isolated([self.model], set()) as rewind:
            alone = self.alone(rewind)
            return predictions.difference(
                self.model, explained, lambda: alone(lambda: FromTokens(self.model, given, []).plain(features, values))
            )

    def alone(self, rewind: Callable[[], None]) -> Alone:
        """A runner of functions that keeps the model's state apart and restores the random generators afterwards."""

        def alone(run: Callable[[], Any]) -> Any:
            with torch.inference_mode(False), torch.no_grad():
                with IsolatedPass(ShadowState(Kept([self.model]))):
                    found = run()
                rewind()
            return found

        return alone

    def _numbers(self, point: Point, tokens: dict[str, Tensor], rewind: Callable[[], None]) -> dict[str, Tensor]:
        """The numbers of tokens, such as embeddings; both streams see the same random draws."""
        found: dict[str, Tensor] = self.alone(rewind)(lambda: point.numbers(tokens))
        return found

    def _shaped(self, contributions: Tensor, feature: Feature, absent: Absent | None) -> Tensor:
        """Contributions in the value's shape: the sum over an embedding; the tokens of a pooled step share equally."""
        shape = feature.value.shape
        if feature.is_token and contributions.shape != shape:
            contributions = contributions.sum(-1)
        if contributions.shape == shape:
            return contributions
        pooled = contributions.reshape(*contributions.shape, *[1] * (len(shape) - contributions.dim()))
        if self._rules == "pyhealth":
            return pooled.expand(shape)
        there = feature.real() if absent is None else feature.real() & ~absent.where
        real = there.to(pooled.dtype)
        axes = tuple(range(contributions.dim(), len(shape)))
        return pooled * real / real.sum(axes, keepdim=True).clamp(min=1)


def _check_widths(point: FromTokens, baselines: Values) -> None:
    """Raise where one embedding would replace the embeddings of several tables."""
    for key, widths in point.widths().items():
        if baselines[key].embedding is not None and len(widths) > 1:
            raise ValueError(
                f"baseline of feature {key!r} is an embedding, and the model embeds its tokens with {len(widths)} "
                f"tables, of widths {widths}: accepted are a name ('unk', 'removed'), or integer token indices"
            )


def _for_target(output: Tensor, target: int | Tensor | None) -> Tensor:
    """Logits that have the target's column, where the model's single logit stands for every class."""
    if target is None or output.dim() != 2 or output.shape[1] != 1:
        return output
    highest = int(target.max()) if isinstance(target, Tensor) else target
    return output.expand(-1, highest + 1) if highest > 0 else output
