"""A feature's multi-layer perceptron in PyHealth's `MLP`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deeplift_fast.fused.pair import SECANTS, Arithmetic, Back, Pair, activation, chained, elementwise, linear
from deeplift_fast.fused.watched import Watched


@dataclass(frozen=True)
class Shift:
    """What is left of a linear layer whose product is taken already.

    Attributes:
        bias: of the layer, `[width]`, or `None`.
    """

    bias: Tensor | None


class Projected:
    """An embedding table through the linear layer that comes first: one product per token of the vocabulary, kept.

    Args:
        embedding: the embedding layer.
        first: the linear layer.
    """

    def __init__(self, embedding: nn.Embedding, first: nn.Linear) -> None:
        self._embedding, self._first = embedding, first
        self._made: tuple[Watched, Tensor] | None = None

    @staticmethod
    def pays(embedding: Any, first: Any) -> bool:
        """Whether there is such a table, and its rows are no longer than the embeddings."""
        both = isinstance(embedding, nn.Embedding) and isinstance(first, nn.Linear)
        return both and first.out_features <= first.in_features

    def table(self) -> Tensor:
        """`[vocabulary, width]`, without the layer's bias; made anew when a weight has changed."""
        made = self._made
        if made is None or made[0].is_outdated():
            weights = self._embedding.weight, self._first.weight
            made = Watched([self._embedding, self._first]), torch.mm(weights[0], weights[1].T)
            self._made = made
        return made[1]


def run(layers: Sequence[Any], x: Pair, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """`nn.Linear` (or a :class:`Shift`) and activation modules one after the other, on `[samples, width]`."""
    backs: list[Back] = []
    for layer in layers:
        if isinstance(layer, Shift):
            bias = layer.bias
            x = x if bias is None else x.map(lambda each, bias=bias: each + bias)  # type: ignore[misc]
            continue
        if isinstance(layer, nn.Linear):
            x, back = linear(x, layer.weight, layer.bias)
        elif type(layer).__name__.lower() in SECANTS:
            x, back = activation(x, type(layer).__name__.lower(), arithmetic)
        else:
            x, back = elementwise(x, layer, arithmetic)
        backs.append(back)

    return x, chained(backs)
