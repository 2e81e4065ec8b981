"""What one feature of a batch is compared with: unknown, removed, a number, an embedding, or a tensor as given."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from deeplift_fast.pyhealth.features import PAD, Feature, default_baseline

FAINT = 2.0**-100  # so much of a removed token or value is left: a model that tests for 0 still finds it there


@dataclass(frozen=True)
class BaselineValue:
    """One feature of a batch at its baseline.

    Attributes:
        value: token indices or continuous values, in the shape of the feature's value.
        removed: which tokens are removed, bool, of that shape; `value` holds padding there. `None` for none.
        embedding: what stands in place of a token's embedding, `[dim]` or `[*value.shape, dim]`; `None` for nothing.
        embedded: which tokens it stands for, bool, of the value's shape; `value` holds the input's tokens there.
        keeps_mask: whether masks and lengths are those of the input, whatever a model reads them off.
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
        """The baseline with each tensor that has a position for each of the value's changed alike."""
        removed, embedded, embedding = self.removed, self.embedded, self.embedding
        return replace(
            self,
            value=change(self.value),
            removed=None if removed is None else change(removed),
            embedding=change(embedding) if embedding is not None and embedding.dim() > 1 else embedding,
            embedded=None if embedded is None else change(embedded),
        )

    def only(self, where: Tensor, feature: Feature) -> "BaselineValue":
        """The same for some tokens or values, and the input for the others.

        Args:
            where: which are put at the baseline, bool, of the value's shape.
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
            of_input: the embeddings of the input's tokens, `[*value.shape, dim]`, `value.shape` where a model takes
                indices as numbers, or of fewer dimensions where its embedding pools the last ones.
            of_value: those of `value`.
        """
        found = of_value
        if self.removed is not None:
            found = torch.where(_spread(self.removed, found), torch.lerp(of_value, of_input, FAINT), found)
        if self.embedding is not None and self.embedded is not None:
            found = torch.where(_spread(self.embedded, found), self.embedding.to(found.dtype), found)
        return found


def _spread(where: Tensor, numbers: Tensor) -> Tensor:
    """A mask of tokens as one of their numbers; tokens that are pooled count together."""
    while where.dim() > numbers.dim() - 1 and where.shape != numbers.shape:
        where = where.any(-1)
    return where if where.shape == numbers.shape else where.unsqueeze(-1)


class FeatureBaseline(Protocol):
    """What a feature is compared with, in batches of any shape.

    Attributes:
        name: what `repr`, reports and manifests call it.
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
        everywhere: whether padding gets them too, as in PyHealth's `DeepLift`.
    """

    everywhere: bool = False
    name = "unk"

    def of(self, feature: Feature) -> BaselineValue:
        """See :class:`FeatureBaseline`."""
        return BaselineValue(default_baseline(feature, self.everywhere))


@dataclass(frozen=True)
class Removed:
    """Each real token as if it were not there, each value as if it had never been recorded (PyHealth's 0).

    Masks and lengths are those of the real record in both streams. A token's embedding, or a value, is multiplied by
    2⁻¹⁰⁰: nothing of it is left, and every test against 0 that a model makes has the same result as at the input.
    Where the padding row of the embedding is not 0, the token's embedding moves to that row.
    """

    name = "removed"

    def of(self, feature: Feature) -> BaselineValue:
        """See :class:`FeatureBaseline`."""
        value = feature.value
        if not feature.is_token:
            return BaselineValue(torch.where(feature.real(), value * FAINT, value), keeps_mask=True)
        if feature.mask is None:  # every token but padding is real
            return BaselineValue(torch.full_like(value, PAD), feature.filled, keeps_mask=True)
        real = feature.real()
        return BaselineValue(torch.where(real, PAD, value), real, keeps_mask=True)


@dataclass(frozen=True)
class Everywhere:
    """One step's value at every real position; padding stays padding.

    Attributes:
        step: a token index or a value, or `[size]` for a continuous feature of `size` dimensions.
        name: what it is called.
    """

    step: Tensor
    name: str

    def of(self, feature: Feature) -> BaselineValue:
        """See :class:`FeatureBaseline`."""
        value = feature.value
        step = self.step.to(value.device, value.dtype)
        return BaselineValue(torch.where(feature.real(), step.expand(value.shape), value))


@dataclass(frozen=True)
class Given:
    """A tensor that is used as it is.

    Attributes:
        value: in the shape of the feature's value.
    """

    value: Tensor
    name = "tensor"

    def of(self, feature: Feature) -> BaselineValue:
        """See :class:`FeatureBaseline`."""
        return BaselineValue(self.value)


@dataclass(frozen=True)
class Embedded:
    """An embedding that stands in place of each real token's; padding stays padding.

    Attributes:
        embedding: `[dim]`, or `[*value.shape, dim]` for one batch.
        name: what it is called.
    """

    embedding: Tensor
    name: str = "embedding"

    def of(self, feature: Feature) -> BaselineValue:
        """See :class:`FeatureBaseline`."""
        embedding = self.embedding.to(feature.value.device)
        return BaselineValue(feature.value, embedding=embedding, embedded=feature.real(), keeps_mask=True)


class Baseline(ABC):
    """A baseline of every feature, in batches of any shape; `deeplift_fast.baselines` has those that are fitted."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What `repr`, reports and manifests call it; two that differ in a number have different names."""

    @abstractmethod
    def feature(self, key: str) -> FeatureBaseline:
        """The baseline of a feature.

        Args:
            key: the feature's key.

        Returns:
            The baseline.

        Raises:
            ValueError: for a feature that it does not know.
        """
