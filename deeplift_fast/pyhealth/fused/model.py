"""A model as a chain of fused layers: what every such chain offers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, override

from torch import Tensor, nn

from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Pair

Segment = tuple[float, float]
Contributions = Callable[[Tensor], Tensor]
# Parts of the patient embedding that lie side by side in it, `[samples, width]`, all of one width, and from their
# multipliers to contributions by feature key.
Ends = tuple[list[Pair], Callable[[Sequence[Tensor]], dict[str, Tensor]]]


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

    def features(
        self,
        features: Mapping[str, Feature],
        baselines: Mapping[str, BaselineValue],
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> Ends:
        """Parts of the patient embedding and the way back from them.

        Raises:
            Unfit: for a shape or a mask that the layers were not written for. Where `arithmetic` is static, what only
                the numbers tell is raised with the answers.
        """
        ...


class OneByOne(FusedModel):
    """Features that each go through layers of their own, one after the other."""

    def feature(
        self,
        key: str,
        feature: Feature,
        baseline: BaselineValue,
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> tuple[Pair, Contributions]:
        """A feature's part of the patient embedding, `[samples, width]`, and from its multipliers to contributions."""
        raise NotImplementedError

    @override
    def features(
        self,
        features: Mapping[str, Feature],
        baselines: Mapping[str, BaselineValue],
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> Ends:
        found = {
            key: self.feature(key, feature, baselines[key], arithmetic, segment) for key, feature in features.items()
        }

        def back(multipliers: Sequence[Tensor]) -> dict[str, Tensor]:
            return {key: each(m) for (key, (_, each)), m in zip(found.items(), multipliers, strict=True)}

        return [end for end, _ in found.values()], back


def embeddings(model: Any) -> Mapping[str, Any]:
    """A model's embedding layers, by feature key."""
    layers: Mapping[str, Any] = model.embedding_model.embedding_layers
    return layers


def schema_of(model: Any, key: str) -> tuple[str, ...]:
    """The names of a feature's parts, as its processor gives them."""
    return tuple(model.dataset.input_processors[key].schema())


def linear_of(layer: Any) -> nn.Linear | None:
    """The layer, if it is linear."""
    return layer if isinstance(layer, nn.Linear) else None
