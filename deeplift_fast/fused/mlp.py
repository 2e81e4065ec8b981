"""A feature's multi-layer perceptron in PyHealth's `MLP`."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from deeplift_fast.fused.pair import SECANTS, Arithmetic, Back, Pair, activation, chained, elementwise, linear


def run(layers: Sequence[Any], x: Pair, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """`nn.Linear` and activation modules one after the other, on `[samples, width]`."""
    backs: list[Back] = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x, back = linear(x, layer.weight, layer.bias)
        elif type(layer).__name__.lower() in SECANTS:
            x, back = activation(x, type(layer).__name__.lower(), arithmetic)
        else:
            x, back = elementwise(x, layer, arithmetic)
        backs.append(back)

    return x, chained(backs)
