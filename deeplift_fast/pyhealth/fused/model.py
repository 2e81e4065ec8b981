"""A model as a chain of fused layers: the interface of all such chains.

Three files show one model: this one, the model's own, and its layer's.

| model | its own file | its layer's |
|---|---|---|
| StageNet, StageAttentionNet | `stagenet.py` | `stagenet_layer.py`, `stagenet_attention.py` |
| Transformer | `transformer.py` | `attention.py` |
| RNN | `rnn.py` | `recurrent.py` |
| MLP | `mlp.py` | |

`pair.py` has the rules of small operations, `entries.py` the entry of a feature, `sequences.py` the rows of a batch.
`plan.py` chooses the model's class, `run.py` runs it, and `lockstep.py` runs StageNet's features together on a GPU.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, override

from torch import Tensor, nn

from deeplift_fast.core.questions import Questions
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Pair

Segment = tuple[float, float]
Contributions = Callable[[Tensor], Tensor]
# The parts of the patient embedding, side by side in it, `[samples, width]` each, and the way from their multipliers to
# contributions by feature key.
Ends = tuple[list[Pair], Callable[[Sequence[Tensor]], dict[str, Tensor]]]


class FusedModel(Protocol):
    """A model as a chain of fused layers.

    Attributes:
        layer: the name of its layers in reports.
        at_once: the number of samples that run together.
        takes_one_row: whether the way back takes one row of multipliers, `[1, width]`, for all samples.
    """

    layer: str
    at_once: int
    takes_one_row: bool = False

    def __init__(self, model: Any) -> None: ...

    def is_outdated(self) -> bool:
        """Whether a weight has changed since it was packed, as far as the CPU knows."""
        ...

    def watch(self, questions: Questions) -> None:
        """Ask whether a weight on another device has changed since it was packed.

        If it has, the answer raises :class:`deeplift_fast.errors.WeightsChanged`.
        """
        ...

    def features(
        self,
        features: Mapping[str, Feature],
        baselines: Mapping[str, BaselineValue],
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> Ends:
        """The parts of the patient embedding and the way back from them.

        Raises:
            Unfit: if the layers do not fit a shape or a mask. If `arithmetic` is static, an error that depends on
                numbers is raised later, when the questions are answered.
        """
        ...


class OneByOne(FusedModel):
    """A model whose features run one after the other, each through layers of its own."""

    def feature(
        self, key: str, feature: Feature, baseline: BaselineValue, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        """A feature's part of the patient embedding, `[samples, width]`, and the way back to contributions."""
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
