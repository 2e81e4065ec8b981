"""A batch's attribution operation by operation, through a model's own code: the route of every PyHealth model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyhealth.interpret.api import Interpretable
from torch import Tensor

from deeplift_fast.core import attribution
from deeplift_fast.core.attribution import Attribution
from deeplift_fast.core.intercept import IsolatedPass
from deeplift_fast.core.isolation import Kept, ShadowState, isolated
from deeplift_fast.core.options import Options
from deeplift_fast.pyhealth import as_read
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.points import FromEmbedding, FromTokens, Point
from deeplift_fast.pyhealth.token_uses import Alone, TokenUses

Values = Mapping[str, BaselineValue]


class GenericRoute:
    """How one interpreter runs its model.

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

    def point(self, features: Mapping[str, Feature], batch: Mapping[str, Any]) -> Point:
        """Where attribution enters the model.

        Raises:
            ValueError: if the model's embeddings are needed and it has none, or other ones than are known here.
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
        """The model's own logits of the first samples."""
        read = as_read.as_read(self.model, features, self._rules)
        few = {key: feature.at(slice(0, count)) for key, feature in read.items()}
        given = {**batch, **{key: few[key].parts for key in few}}
        labels = getattr(self.model, "label_keys", ())
        given = {key: value[:count] if key in labels else value for key, value in given.items()}
        point = self.point(few, given)
        inputs = as_read.with_masks(self.model, few, self._rules)
        tokens = {key: feature.value for key, feature in few.items() if feature.is_token}
        values = {key: feature.value for key, feature in few.items() if not feature.is_token}
        with isolated([self.model], set()) as rewind, torch.no_grad():
            if isinstance(point, FromTokens) and tokens:
                point = self._token_uses.entered(point, few, self.alone(rewind))
            numbers = self._numbers(point, tokens, rewind)
            with IsolatedPass(ShadowState(Kept([self.model]))):
                return point.logits(inputs, {**values, **numbers})

    def run(
        self,
        features: Mapping[str, Feature],
        baselines: Values,
        target: int | None,
        point: Point,
        options: Options,
    ) -> Attribution:
        """The attribution of a batch to one baseline.

        Args:
            features: the batch, as the model reads it.
            baselines: by feature key.
            target: the class, or `None` for the predicted one.
            point: where attribution enters the model.
            options: rules, steps and tolerance.
        """
        inputs = as_read.with_masks(self.model, features, self._rules)
        tokens = {key: feature.value for key, feature in features.items() if feature.is_token}
        values = {key: feature.value for key, feature in features.items()}
        values0 = {key: baseline.value for key, baseline in baselines.items()}
        devices = {value.device for value in values.values() if value.is_cuda}
        with isolated([self.model], devices) as rewind:
            alone = self.alone(rewind)
            if isinstance(point, FromTokens) and tokens:
                point = self._token_uses.entered(point, inputs, alone)
                _check_widths(point, baselines)
            at_input = self._numbers(point, tokens, rewind)
            at_baseline = self._numbers(point, {key: values0[key] for key in tokens}, rewind)
            with torch.no_grad():
                faded = {key: baselines[key].numbers(at_input[key], at_baseline[key]) for key in tokens}
            xs, x0s = {**values, **at_input}, {**values0, **faded}
            if self._rules == "pyhealth":
                xs = {key: x0s[key] + (x - x0s[key]) for key, x in xs.items()}  # PyHealth rounds its input so
            if point.settles:
                alone(lambda: point.settle(inputs, xs))
            if isinstance(point, FromTokens):
                self._token_uses.check(point, inputs, alone)
            found = attribution.attributed(
                lambda **given: _for_target(point.logits(inputs, given), target),
                xs,
                x0s,
                target,
                options,
                attribution.Context(modules=(self.model,)),
            )
        contributions = {key: self._shaped(found.contributions[key], feature) for key, feature in features.items()}
        index = found.target if found.target is not None else torch.zeros_like(found.output, dtype=torch.int64)
        report = found.report.of(contributions.values(), found.output, found.baseline_output)
        return Attribution(
            contributions, found.convergence_delta, found.output, found.baseline_output, index, report
        )  # fmt: skip

    def alone(self, rewind: Callable[[], None]) -> Alone:
        """Runs a function of the model with its state kept apart; what is drawn is put back."""

        def alone(run: Callable[[], Any]) -> Any:
            with torch.inference_mode(False), torch.no_grad():
                with IsolatedPass(ShadowState(Kept([self.model]))):
                    found = run()
                rewind()
            return found

        return alone

    def _numbers(self, point: Point, tokens: dict[str, Tensor], rewind: Callable[[], None]) -> dict[str, Tensor]:
        """Token embeddings; what was drawn is put back, so that both streams are embedded alike."""
        found: dict[str, Tensor] = self.alone(rewind)(lambda: point.numbers(tokens))
        return found

    def _shaped(self, contributions: Tensor, feature: Feature) -> Tensor:
        """Contributions in the value's shape: summed over the embedding; a pooled step is shared by its tokens."""
        shape = feature.value.shape
        if feature.is_token and contributions.shape != shape:
            contributions = contributions.sum(-1)
        if contributions.shape == shape:
            return contributions
        pooled = contributions.reshape(*contributions.shape, *[1] * (len(shape) - contributions.dim()))
        if self._rules == "pyhealth":
            return pooled.expand(shape)
        real = feature.real().to(pooled.dtype)
        axes = tuple(range(contributions.dim(), len(shape)))
        return pooled * real / real.sum(axes, keepdim=True).clamp(min=1)


def _check_widths(point: FromTokens, baselines: Values) -> None:
    """Raise where one embedding is to stand for those of several tables."""
    for key, widths in point.widths().items():
        if baselines[key].embedding is not None and len(widths) > 1:
            raise ValueError(
                f"baseline of feature {key!r} is an embedding, and the model embeds its tokens with {len(widths)} "
                f"tables, of widths {widths}: accepted are a name ('unk', 'removed'), or integer token indices"
            )


def _for_target(output: Tensor, target: int | None) -> Tensor:
    """Logits of which one stands for every class, if there is only one."""
    single = output.dim() == 2 and output.shape[1] == 1
    return output.expand(-1, target + 1) if single and target is not None and target > 0 else output
