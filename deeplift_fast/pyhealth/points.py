"""The entry of attribution in a PyHealth model: its token embeddings and continuous values."""

import contextlib
import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, override

import torch
from pyhealth.interpret.api import Interpretable
from pyhealth.models import GPT2, GRASP, HALO, MedLink, TorchvisionModel
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from deeplift_fast.core.segments import repeated
from deeplift_fast.core.streams import without_inference
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.shared_choices import SharedChoices
from deeplift_fast.pyhealth.token_leaves import TokenLeaves, TokenPoint, TokenTables, apart, token_point

_WITHOUT_LOGITS = (TorchvisionModel, GPT2, HALO, MedLink)


class Point(Protocol):
    """An entry of a model."""

    def numbers(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The numbers of a batch's tokens, such as their embeddings, by feature key."""
        ...

    def layers(self) -> Mapping[str, Any]:
        """The embedding layers, by feature key."""
        ...

    @property
    def settles(self) -> bool:
        """Whether :meth:`settle` must run first, because later runs repeat the model's choices at the input."""
        ...

    def settle(self, features: Mapping[str, Feature], values: Mapping[str, Tensor]) -> None:
        """Run the model at the input."""
        ...

    def logits(self, features: Mapping[str, Feature], values: Mapping[str, Tensor]) -> Tensor:
        """The model's logits for continuous values and the tokens' numbers, by feature key."""
        ...


def _parts(feature: Feature, value: Tensor) -> tuple[Any, ...]:
    """The model's arguments for a value with as many rows as the batch, or with a multiple of them."""
    size = feature.value.shape[0]
    given: tuple[Any, ...] = repeated(feature.with_value(value), size, value.shape[0] // size)
    return (*given[: feature.position], value, *given[feature.position + 1 :])


def _logit(model: Any, output: Any) -> Tensor:
    """The logits in the output of a model."""
    found = output.get("logit") if isinstance(output, Mapping) else None
    if not isinstance(found, Tensor):
        shown = f"a {type(output).__name__}"
        if isinstance(output, Mapping):
            shown = f"'logit' is a {type(found).__name__}" if "logit" in output else f"keys {sorted(map(str, output))}"
        raise ValueError(without_logits(type(model).__name__, f"its forward returns no tensor 'logit' ({shown})"))
    return found


def check_model(model: Any, rules: str) -> None:
    """Raise `ValueError` unless a PyHealth interpreter can explain the model under a rule set."""
    name, interpretable = type(model).__name__, isinstance(model, Interpretable)
    has_keys = isinstance(model, nn.Module) and hasattr(model, "feature_keys")
    if not interpretable and not (has_keys and hasattr(getattr(model, "dataset", None), "input_processors")):
        raise ValueError(
            f"model is a {name}; accepted: a PyHealth model, with feature_keys and a dataset (for other modules: "
            "deeplift_fast.attribute, deeplift_fast.captum.DeepLift)"
        )
    if isinstance(model, _WITHOUT_LOGITS):
        raise ValueError(without_logits(name, "its forward pass returns no logits of classes"))
    if rules == "pyhealth" and not interpretable:
        raise ValueError(
            f'rules is "pyhealth" and model a {name}, which PyHealth\'s DeepLift does not take, because it is not '
            'Interpretable; accepted for it: "rescale", "complete"'
        )


def without_logits(name: str, reason: str) -> str:
    """The error text for a model without logits that a PyHealth interpreter can reach."""
    return (
        f"model is a {name}: {reason}; explain the module inside it that computes the logits: "
        "deeplift_fast.attribute(model.model, inputs, target=…)"
    )


class FromEmbedding(Point):
    """Through `forward_from_embedding`, as PyHealth's interpreters do.

    Args:
        model: implements `pyhealth.interpret.api.Interpretable`.
        embed: its embedding model, or `None` to run `forward` on continuous values.
    """

    def __init__(self, model: Any, embed: Any) -> None:
        self._model = model
        self._embed = embed

    @override
    def numbers(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        embedded = self._embed(dict(tokens)) if tokens else {}
        return {key: embedded[key] for key in tokens}

    @override
    def layers(self) -> Mapping[str, Any]:
        return dict(getattr(self._embed, "embedding_layers", {}).items())

    @property
    @override
    def settles(self) -> bool:
        return False

    @override
    def settle(self, features: Mapping[str, Feature], values: Mapping[str, Tensor]) -> None:
        pass

    @override
    def logits(self, features: Mapping[str, Feature], values: Mapping[str, Tensor]) -> Tensor:
        if self._embed is None:
            run = self._model.forward
        else:
            run = self._model.forward_from_embedding
            continuous = {key: values[key] for key, feature in features.items() if not feature.is_token}
            if continuous:
                values = {**values, **self._embed(continuous)}
        parts = {key: _parts(feature, values[key]) for key, feature in features.items()}
        return _logit(self._model, run(**parts))


class FromTokens(Point):
    """Through `forward` on the real tokens, with numbers in place of their embeddings.

    Args:
        model: any PyHealth model.
        batch: a batch from its loader; the model gets all of it, and zeros for missing labels. Some models require
            labels, which do not change the logits.
        tokens: the keys of the token features.
    """

    def __init__(self, model: Any, batch: Mapping[str, Any], tokens: list[str]) -> None:
        self._model = model
        self._batch = batch
        self._points: dict[str, TokenPoint] = {key: token_point(model, key) for key in tokens}
        self._choices = SharedChoices() if isinstance(model, GRASP) else None  # GRASP clusters the batch in every pass

    @override
    def numbers(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        dtype = next((p.dtype for p in self._model.parameters() if p.is_floating_point()), torch.get_default_dtype())
        return {key: self._points[key].numbers(value, dtype) for key, value in tokens.items()}

    @override
    def layers(self) -> Mapping[str, Any]:
        own = getattr(getattr(self._model, "embedding_model", None), "embedding_layers", {})
        return {**dict(own), **{key: point.layer for key, point in self._points.items() if point.layer is not None}}

    @property
    @override
    def settles(self) -> bool:
        return self._choices is not None

    @override
    def settle(self, features: Mapping[str, Feature], values: Mapping[str, Tensor]) -> None:
        self.logits(features, values)
        if self._choices is not None:
            self._choices.settle()

    @override
    def logits(self, features: Mapping[str, Feature], values: Mapping[str, Tensor]) -> Tensor:
        size = next(iter(features.values())).value.shape[0]
        count = next(iter(values.values())).shape[0] // size
        tokens = apart({key: repeated(features[key].value, size, count) for key in self._points})
        leaves = TokenLeaves(list(self._points.values()), tokens, values)
        logit = self._run(features, values, leaves, self._given_tokens(features, tokens))
        leaves.finish()
        return logit

    def plain(self, features: Mapping[str, Feature], tokens: Mapping[str, Tensor]) -> Tensor:
        """The model's logits for these tokens, by feature key, with its own embeddings."""
        inputs = self._given_tokens(features, tokens)
        values = {key: feature.value for key, feature in features.items() if not feature.is_token}
        return self._run(features, values, contextlib.nullcontext(), inputs)

    def tables(self, features: Mapping[str, Feature]) -> dict[str, list[Tensor]]:
        """The weights of the tables that embed each feature's tokens, found by a run of the model."""
        tokens = apart({key: features[key].value for key in self._points})
        used = TokenTables(list(self._points.values()), tokens)
        choices, self._choices = self._choices, None  # nothing is settled yet
        try:
            values = {key: feature.value for key, feature in features.items()}
            self._run(features, values, used, self._given_tokens(features, tokens))
        finally:
            self._choices = choices
        return used.found

    def with_tables(self, tables: Mapping[str, tuple[Tensor, ...]]) -> "FromTokens":
        """The same entry with further tables, by feature key."""
        found = copy.copy(self)
        found._points = {key: token_point(self._model, key, tables.get(key, ())) for key in self._points}
        return found

    def state(self) -> list[Tensor]:
        """The model's parameters and buffers."""
        return [*self._model.parameters(), *self._model.buffers()]

    def widths(self) -> dict[str, list[int]]:
        """The widths of the embedding tables, by token feature."""
        return {key: [weight.shape[-1] for weight in point.tables] for key, point in self._points.items()}

    def _run(
        self,
        features: Mapping[str, Feature],
        values: Mapping[str, Tensor],
        mode: AbstractContextManager[Any],
        tokens: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """The model's logits for continuous values, under a mode, optionally with other tokens."""
        size = next(iter(features.values())).value.shape[0]
        count = next(iter(values.values())).shape[0] // size if values else 1
        batch = repeated({**self._labels(size), **self._batch}, size, count)
        batch = pytree.tree_map_only(Tensor, without_inference, batch)  # labels: the model may compute a loss
        for key, feature in features.items():
            if not feature.is_token:
                batch[key] = self._given(key, feature, values[key])
        batch.update(tokens or {})
        if self._choices is not None:
            self._choices.start()
        with self._choices or contextlib.nullcontext(), mode:
            return _logit(self._model, self._model(**batch))

    def _given_tokens(self, features: Mapping[str, Feature], tokens: Mapping[str, Tensor]) -> dict[str, Any]:
        return {key: self._given(key, features[key], value) for key, value in tokens.items()}

    def _given(self, key: str, feature: Feature, value: Tensor) -> Any:
        """The batch's entry of a feature, with another value."""
        given, parts = self._batch[key], _parts(feature, value)
        return value if isinstance(given, Tensor) else type(given)(parts[: len(given)])

    def _labels(self, size: int) -> dict[str, Tensor]:
        missing = [key for key in getattr(self._model, "label_keys", ()) if key not in self._batch]
        if not missing or getattr(self._model.dataset, "output_processors", None) is None:
            return {}
        device = next(self._model.parameters()).device
        width = int(self._model.get_output_size())
        if self._model.mode == "multiclass":
            return {key: torch.zeros(size, dtype=torch.int64, device=device) for key in missing}
        return {key: torch.zeros(size, width, device=device) for key in missing}
