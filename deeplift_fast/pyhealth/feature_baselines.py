"""Baselines of one feature: unknown, removed, a number, an embedding, or a given tensor."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from deeplift_fast.core.devices import moved
from deeplift_fast.pyhealth.features import PAD, Feature, default_baseline

FAINT = 2.0**-100  # the remaining part of a removed token or value: not 0, so tests against 0 in a model stay


@dataclass  # not frozen, as `Feature`
class BaselineValue:
    """One feature of a batch at its baseline; nobody writes to it.

    Attributes:
        value: token indices or continuous values, in the shape of the feature's value.
        removed: the removed tokens, bool, of that shape; `value` holds padding there. `None` for none.
        embedding: the embedding in place of a token's own, `[dim]` or `[*value.shape, dim]`; `None` for none.
        embedded: the tokens with that embedding, bool, of the value's shape; `value` holds the input's tokens there.
        keeps_mask: whether every mask and length that a model reads from the numbers is that of the input.
    """

    value: Tensor
    removed: Tensor | None = None
    embedding: Tensor | None = None
    embedded: Tensor | None = None
    keeps_mask: bool = False

    def at(self, samples: Tensor | slice) -> "BaselineValue":
        """The baseline of these samples, int64 `[n]` or a slice."""
        return self.mapped(lambda each: each[samples])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "BaselineValue":
        """The baseline with `change` applied to each tensor that has the value's positions."""
        removed, embedded, embedding = self.removed, self.embedded, self.embedding
        return replace(
            self,
            value=change(self.value),
            removed=None if removed is None else change(removed),
            embedding=change(embedding) if embedding is not None and embedding.dim() > 1 else embedding,
            embedded=None if embedded is None else change(embedded),
        )

    def only(self, where: Tensor, feature: Feature) -> "BaselineValue":
        """The baseline at some positions, and the input at the others.

        Args:
            where: the positions at the baseline, bool, of the value's shape.
            feature: the input.
        """
        return replace(
            self,
            value=torch.where(where, self.value, feature.value.to(self.value.dtype)),
            removed=None if self.removed is None else self.removed & where,
            embedded=None if self.embedded is None else self.embedded & where,
        )

    def numbers(self, of_input: Tensor, of_value: Tensor) -> Tensor:
        """The embeddings at the baseline.

        Args:
            of_input: the embeddings of the input's tokens, `[*value.shape, dim]`; `value.shape` if the model takes
                indices as numbers, and fewer dimensions if its embedding pools the last ones.
            of_value: the embeddings of `value`, likewise.
        """
        found = of_value
        if self.removed is not None:
            found = torch.where(_spread(self.removed, found), torch.lerp(of_value, of_input, FAINT), found)
        if self.embedding is not None and self.embedded is not None:
            found = torch.where(_spread(self.embedded, found), self.embedding.to(found.dtype), found)
        return found


def _spread(where: Tensor, numbers: Tensor) -> Tensor:
    """A mask of tokens, broadcastable to their numbers; pooled tokens share one entry."""
    while where.dim() > numbers.dim() - 1 and where.shape != numbers.shape:
        where = where.any(-1)
    return where if where.shape == numbers.shape else where.unsqueeze(-1)


class FeatureBaseline(Protocol):
    """The baseline of a feature, for batches of any shape.

    Attributes:
        name: the name in `repr`, reports and manifests.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    def of(self, feature: Feature) -> BaselineValue:
        """The baseline of a batch's feature."""
        ...


@dataclass(frozen=True)
class Unknown:
    """PyHealth's baseline: the unknown code, and 0.01 for continuous values; padding stays padding.

    Attributes:
        everywhere: whether padding changes too, as in PyHealth's `DeepLift`.
    """

    everywhere: bool = False
    name = "unk"

    def of(self, feature: Feature) -> BaselineValue:
        """The baseline of a batch's feature."""
        return BaselineValue(default_baseline(feature, self.everywhere))


@dataclass(frozen=True)
class Removed:
    """The absence of each real token, and of each recorded value (PyHealth's 0).

    Masks and lengths are those of the real record in both streams. A token's embedding, or a value, is multiplied by
    2⁻¹⁰⁰: nothing of it remains, and a model's tests against 0 have the same results as at the input. If the padding
    row of the embedding is not 0, the token's embedding moves to that row.
    """

    name = "removed"

    def of(self, feature: Feature) -> BaselineValue:
        """The baseline of a batch's feature."""
        value = feature.value
        if not feature.is_token:
            return BaselineValue(torch.where(feature.real(), value * FAINT, value), keeps_mask=True)
        if feature.mask is None:  # all tokens except padding are real
            return BaselineValue(torch.full_like(value, PAD), feature.filled, keeps_mask=True)
        real = feature.real()
        return BaselineValue(torch.where(real, PAD, value), real, keeps_mask=True)


@dataclass(frozen=True)
class Everywhere:
    """One step's value at every real position; padding stays padding.

    Attributes:
        step: a token index or a value, or `[size]` for a continuous feature of `size` dimensions.
        name: the name of the baseline.
    """

    step: Tensor
    name: str

    def of(self, feature: Feature) -> BaselineValue:
        """The baseline of a batch's feature."""
        value = feature.value
        step = moved(self.step, value.device, value.dtype)
        return BaselineValue(torch.where(feature.real(), step.expand(value.shape), value))


@dataclass(frozen=True)
class Given:
    """A tensor, used unchanged.

    Attributes:
        value: in the shape of the feature's value.
    """

    value: Tensor
    name = "tensor"

    def of(self, feature: Feature) -> BaselineValue:
        """The baseline of a batch's feature."""
        return BaselineValue(self.value)


@dataclass(frozen=True)
class Embedded:
    """One embedding in place of each real token's; padding stays padding.

    Attributes:
        embedding: `[dim]`, or `[*value.shape, dim]` for one batch.
        name: the name of the baseline.
    """

    embedding: Tensor
    name: str = "embedding"

    def of(self, feature: Feature) -> BaselineValue:
        """The baseline of a batch's feature."""
        embedding = moved(self.embedding, feature.value.device)
        return BaselineValue(feature.value, embedding=embedding, embedded=feature.real(), keeps_mask=True)


class Baseline(ABC):
    """A baseline of every feature, for batches of any shape; `deeplift_fast.baselines` fits such baselines."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in `repr`, reports and manifests; baselines with different numbers have different names."""

    @abstractmethod
    def feature(self, key: str) -> FeatureBaseline:
        """The baseline of a feature.

        Args:
            key: the feature's key.

        Returns:
            The baseline.

        Raises:
            ValueError: for an unknown feature.
        """
