"""DeepLift with PyHealth's signature."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, overload

import torch
from pyhealth.interpret.api import Interpretable
from pyhealth.interpret.methods.base_interpreter import BaseInterpreter
from torch import Tensor

from deeplift_fast import attribution
from deeplift_fast.attribution import Attribution, check_rules
from deeplift_fast.features import Feature, check_baselines, check_embeddable, default_baseline, read_features
from deeplift_fast.intercept import IsolatedPass
from deeplift_fast.isolation import isolated
from deeplift_fast.training_mode import warn_if_harmlessly_training


class DeepLift(BaseInterpreter):
    """DeepLIFT attributions of PyHealth models: a drop-in for `pyhealth.interpret.methods.DeepLift`.

    Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences". The model is put
    into eval mode, as every PyHealth interpreter does, and not touched otherwise.

    Args:
        model: a PyHealth model that implements `pyhealth.interpret.api.Interpretable`.
        use_embeddings: whether token features are embedded first and attributed through their embeddings (needed for
            tokens); `False` runs `model.forward` on continuous features as they are.
        rules: `"rescale"` for exact secant slopes of ReLU, Sigmoid and Tanh wherever the model calls them, and padding
            left as padding in the default baseline; `"pyhealth"` for the numbers of PyHealth 2.1.

    Raises:
        ValueError: if the model is not Interpretable, or `rules` is unknown.
        NotImplementedError: for `rules="complete"`.

    Example:
        >>> from deeplift_fast import DeepLift  # doctest: +SKIP
        >>> attributions = DeepLift(model).attribute(**next(iter(loader)))  # doctest: +SKIP
    """

    def __init__(self, model: Any, use_embeddings: bool = True, rules: str = "rescale") -> None:
        check_rules(rules)
        if not isinstance(model, Interpretable):
            raise ValueError(
                f"model is a {type(model).__name__}; accepted: a PyHealth model that implements "
                "pyhealth.interpret.api.Interpretable (for other modules: deeplift_fast.attribution.attribute)"
            )
        super().__init__(model)
        self.use_embeddings = use_embeddings
        self.rules = rules

    def __repr__(self) -> str:
        name = type(self.model).__name__
        return f"DeepLift(model={name}, use_embeddings={self.use_embeddings}, rules={self.rules!r})"

    @overload
    def attribute(
        self,
        baseline: Mapping[str, Tensor] | None = None,
        target_class_idx: int | None = None,
        return_convergence_delta: Literal[False] = False,
        **batch: Any,
    ) -> dict[str, Tensor]: ...

    @overload
    def attribute(
        self,
        baseline: Mapping[str, Tensor] | None = None,
        target_class_idx: int | None = None,
        *,
        return_convergence_delta: Literal[True],
        **batch: Any,
    ) -> tuple[dict[str, Tensor], Tensor]: ...

    def attribute(
        self,
        baseline: Mapping[str, Tensor] | None = None,
        target_class_idx: int | None = None,
        return_convergence_delta: bool = False,
        **batch: Any,
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], Tensor]:
        """Contributions of each token or value of a batch to the target logit, relative to a baseline.

        Args:
            baseline: one tensor per feature key, of the value tensor's shape: token indices, or continuous values.
                `None` makes real tokens UNK and real continuous values 0.01.
            target_class_idx: the class to explain; `None` for the predicted one. A single-logit model has only one.
            return_convergence_delta: whether to return the convergence delta too.
            **batch: what PyHealth's loader yields: per feature key a tensor, or a tuple in the order of the processor's
                schema, on the model's device. Labels and metadata are ignored.

        Returns:
            One floating-point tensor per feature key, of the value tensor's shape; padding has exactly 0. With
            `return_convergence_delta`, a pair of that and `Σ contributions − (f(x) − f(x0))` per sample, `[batch]`,
            *before* the rescaling that makes it 0.

        Raises:
            ValueError, TypeError: for a batch, baseline or target that does not fit; the message names the feature.
            InterceptionError: if the model takes different paths at the input and at the baseline.

        Warns:
            ConvergenceWarning: if samples were rescaled by a negative or a very large factor.
            TrainingModeWarning: if the model was put back into training mode.
        """
        found = self.explain(baseline, target_class_idx, **batch)
        if return_convergence_delta:
            return found.contributions, found.convergence_delta
        return found.contributions

    def explain(
        self, baseline: Mapping[str, Tensor] | None = None, target_class_idx: int | None = None, **batch: Any
    ) -> Attribution:
        """As :meth:`attribute`, with the outputs that the contributions account for.

        Returns:
            An :class:`deeplift_fast.attribution.Attribution`; `contributions` is a dict by feature key, `output` and
            `baseline_output` are target logits, `target` is int64 `[batch]`.
        """
        features = read_features(self.model, batch, self.use_embeddings)
        embed = self._embedding_model(features)
        target = self._target(target_class_idx)
        as_pyhealth = self.rules == "pyhealth"
        if baseline is None:
            baselines = {key: default_baseline(feature, as_pyhealth) for key, feature in features.items()}
        else:
            baselines = check_baselines(baseline, features)
        self._check_embeddable(features, baselines, embed)
        if next(iter(features.values())).value.shape[0] == 0:
            return self._empty(features)
        warn_if_harmlessly_training(self.model)
        inputs = {key: feature.with_derived_mask(as_pyhealth) for key, feature in features.items()}
        found = self._run(inputs, baselines, target, embed)
        contributions = {key: self._shaped(found.contributions[key], feature) for key, feature in features.items()}
        target_index = found.target if found.target is not None else torch.zeros_like(found.output, dtype=torch.int64)
        return Attribution(contributions, found.convergence_delta, found.output, found.baseline_output, target_index)

    def _embedding_model(self, features: Mapping[str, Feature]) -> Any:
        if not self.use_embeddings:
            return None
        embed = self.model.get_embedding_model()
        if embed is None:
            raise ValueError(
                f"{type(self.model).__name__}.get_embedding_model() returned None, and use_embeddings=True needs one; "
                "for continuous features alone, use use_embeddings=False"
            )
        return embed

    def _target(self, target_class_idx: int | None) -> int | None:
        if target_class_idx is None:
            return None
        try:
            index = operator.index(target_class_idx)
        except TypeError:
            index = None
        if index is None or isinstance(target_class_idx, bool):
            raise TypeError(f"target_class_idx is {target_class_idx!r}; accepted: None or an int")
        size = self._output_size()
        classes = 2 if size == 1 else size  # one logit is asked for as class 0 or 1 alike
        if index < 0 or (classes is not None and index >= classes):
            accepted = "None, or 0 and up" if classes is None else f"None, or 0 to {classes - 1}"
            raise ValueError(f"target_class_idx is {index}; accepted: {accepted}")
        return 0 if size == 1 else index

    def _output_size(self) -> int | None:
        """The number of logits, or `None` where the model's dataset does not say."""
        if getattr(getattr(self.model, "dataset", None), "output_processors", None) is None:
            return None
        return int(self.model.get_output_size())

    def _check_embeddable(self, features: Mapping[str, Feature], baselines: Mapping[str, Tensor], embed: Any) -> None:
        layers = getattr(embed, "embedding_layers", {})
        for key, feature in features.items():
            if key in layers:
                check_embeddable(f"feature {key!r}", feature.value, layers[key])
                check_embeddable(f"baseline of feature {key!r}", baselines[key], layers[key])

    def _empty(self, features: Mapping[str, Feature]) -> Attribution:
        dtype, device = next((p.dtype, p.device) for p in self.model.parameters() if p.is_floating_point())
        nothing = torch.empty(0, dtype=dtype, device=device)
        contributions = {
            key: torch.zeros_like(f.value, dtype=dtype if f.is_token else f.value.dtype) for key, f in features.items()
        }
        target = torch.empty(0, dtype=torch.int64, device=device)
        return Attribution(contributions, nothing, nothing.clone(), nothing.clone(), target)

    def _run(
        self, features: Mapping[str, Feature], baselines: Mapping[str, Tensor], target: int | None, embed: Any
    ) -> Attribution:
        tokens = [key for key, feature in features.items() if feature.is_token]
        values = {key: feature.value for key, feature in features.items()}
        at_input, at_baseline = self._embedded(
            embed, [{key: given[key] for key in tokens} for given in (values, baselines)]
        )
        xs, x0s = {**values, **at_input}, {**baselines, **at_baseline}
        if self.rules == "pyhealth":
            xs = {key: x0s[key] + (x - x0s[key]) for key, x in xs.items()}  # PyHealth rounds its input so
        return attribution.attribute(
            self._forward(features, embed, target), xs, x0s, target, rules=self.rules, modules=(self.model,)
        )

    def _embedded(self, embed: Any, streams: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Token embeddings in each stream; what was drawn is put back, so all are embedded alike."""
        found = []
        devices = {value.device for tokens in streams for value in tokens.values() if value.is_cuda}
        with torch.inference_mode(False), torch.no_grad(), isolated([self.model], devices) as rewind:
            for tokens in streams:
                with IsolatedPass([self.model]):
                    embedded = embed(tokens) if tokens else {}
                found.append({key: embedded[key] for key in tokens})
                rewind()
        return found

    def _forward(self, features: Mapping[str, Feature], embed: Any, target: int | None) -> Callable[..., Tensor]:
        continuous = [key for key, feature in features.items() if not feature.is_token]

        def logits(**values: Tensor) -> Tensor:
            if embed is None:
                run = self.model.forward
            else:
                run = self.model.forward_from_embedding
                if continuous:
                    values = {**values, **embed({key: values[key] for key in continuous})}
            parts = {key: feature.with_value(values[key]) for key, feature in features.items()}
            output: Tensor = run(**parts)["logit"]
            single = output.dim() == 2 and output.shape[1] == 1
            return output.expand(-1, target + 1) if single and target else output  # one logit stands for every class

        return logits

    def _shaped(self, contributions: Tensor, feature: Feature) -> Tensor:
        """Contributions in the value's shape: summed over the embedding; a pooled step is shared by its tokens."""
        shape = feature.value.shape
        if feature.is_token and contributions.dim() >= 3:
            contributions = contributions.sum(-1)
        if contributions.shape == shape:
            return contributions
        pooled = contributions.reshape(*contributions.shape, *[1] * (len(shape) - contributions.dim()))
        if self.rules == "pyhealth":
            return pooled.expand(shape)
        real = feature.real().to(pooled.dtype)
        axes = tuple(range(contributions.dim(), len(shape)))
        return pooled * real / real.sum(axes, keepdim=True).clamp(min=1)
