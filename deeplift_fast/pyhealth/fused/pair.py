"""Values in both streams, and the rules of small operations on them.

Every operation returns its result and `back`, the function from the result's multiplier to the argument's multiplier.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplift_fast import ops
from deeplift_fast.core.constants import ramp
from deeplift_fast.core.questions import NOW, Questions
from deeplift_fast.ops.adjoined import adjoined
from deeplift_fast.rules.elementwise import secant_slope

Back = Callable[[Tensor], Tensor]
SECANTS = ("relu", "sigmoid", "tanh")


@dataclass(slots=True)  # not frozen, as in `rules/call.py`
class Arithmetic:
    """The arithmetic of a rule set; nobody writes to it.

    Attributes:
        rules: the name of the rule set.
        questions: takes questions to the numbers of the batch.
    """

    rules: str
    questions: Questions = NOW

    @property
    def static(self) -> bool:
        """Whether shapes and paths follow from the batch's shapes alone, never from its numbers."""
        return self.questions.static

    @property
    def complete(self) -> bool:
        """Whether every operation has an exact multiplier."""
        return self.rules == "complete"

    @property
    def half(self) -> float:
        """The position of a product's other operand: 0 is at the input, 0.5 halfway to the baseline."""
        return 0.5 if self.complete else 0.0

    @property
    def variant(self) -> str:
        """The secant of relu, sigmoid and tanh, as :func:`deeplift_fast.ops.secant` names it."""
        return "pyhealth" if self.rules == "pyhealth" else "rescale"


class Pair:
    """A value in both streams; nobody writes to it.

    Attributes:
        x: at the input, `[rows, …]`.
        x0: at the baseline, `[rows0, …]`.
        where: the row of `x0` for each row of `x`, int64 `[rows]`; `None` where they are the same. With it, equal rows
            of the baseline are computed once.
        both: `x` and `x0` as one tensor, `[2·rows, …]`, if they are neighbours in memory; one launch serves both.
    """

    __slots__ = ("_streams", "both", "where")

    def __init__(self, x: Tensor, x0: Tensor, where: Tensor | None = None, both: Tensor | None = None) -> None:
        self._streams: Sequence[Tensor] | None = (x, x0)
        self.where = where
        self.both = both

    @staticmethod
    def stacked(both: Tensor) -> "Pair":
        """From the input's rows followed by the baseline's."""
        pair = Pair.__new__(Pair)
        pair._streams, pair.where, pair.both = None, None, both  # cut where one is asked for: few samples feel a cut
        return pair

    @property
    def x(self) -> Tensor:
        """See above."""
        return (self._streams or self._cut())[0]

    @property
    def x0(self) -> Tensor:
        """See above."""
        return (self._streams or self._cut())[1]

    def _cut(self) -> Sequence[Tensor]:
        assert self.both is not None
        self._streams = found = self.both.chunk(2)
        return found

    def facing(self, x0: Tensor | None = None) -> Tensor:
        """`x0`, or a function of its rows, with a row for each row of `x`."""
        x0 = self.x0 if x0 is None else x0
        if len(x0) == 1:
            return x0.expand(len(self.x), *x0.shape[1:])
        return x0 if self.where is None else x0.index_select(0, self.where)

    @property
    def facing_rows(self) -> Tensor:
        """The row of `x0` for each row of `x`."""
        return ramp(len(self.x), 1, self.x.device) if self.where is None else self.where

    def map(self, function: Callable[[Tensor], Tensor]) -> "Pair":
        """A function of rows, applied to both streams; it must treat each row alone."""
        if self.both is not None:
            return Pair.stacked(function(self.both))
        return Pair(function(self.x), function(self.x0), self.where)

    def apart(self) -> "Pair":
        """The same without `both`, for functions that move rows."""
        return Pair(self.x, self.x0, self.where)

    def mean(self, half: float) -> Tensor:
        """The point at `half` of the way from `x` to `x0`, for each row of `x`."""
        return torch.lerp(self.x, self.facing(), half) if half else self.x

    def plus(self, other: "Pair") -> "Pair":
        """The sum with another value of the same rows."""
        if self.both is not None and other.both is not None:
            return Pair.stacked(self.both + other.both)
        return Pair(self.x + other.x, self.x0 + other.x0, self.where)


def linear(pair: Pair, weight: Tensor, bias: Tensor | None = None) -> tuple[Pair, Back]:
    """`x · weightᵀ + bias`: the ordinary gradient is exact. With several layers' weights, rows use them in turn."""
    if weight.dim() == 3:
        return pair.map(lambda x: _in_turn(x, weight.mT, bias)), lambda m: _in_turn(m, weight)
    if bias is None or weight.numel() < _LARGE or weight.device.type != "cpu":
        return pair.map(lambda x: F.linear(x, weight, bias)), lambda m: m @ weight
    return pair.map(lambda x: _product(x, weight, bias)), lambda m: _product_back(m, weight)


FEW, _LARGE = 8, 2**16  # rows, and numbers of weights, where reading the weights costs more than the arithmetic


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ops.unchecked.few_rows(x, weight, bias) if len(x) <= FEW else F.linear(x, weight, bias)


def _product_back(m: Tensor, weight: Tensor) -> Tensor:
    return ops.unchecked.few_rows_backward(m, weight) if len(m) <= FEW else m @ weight


def _in_turn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`[rows, in]` times `weight`, `[layers, in, out]`: row i uses the weights of layer i modulo the layers."""
    out = x.new_empty(len(x), weight.shape[2])
    by_layer, to = (each.unflatten(0, (-1, len(weight))).transpose(0, 1) for each in (x, out))
    if bias is None:
        torch.bmm(by_layer, weight, out=to)
    else:
        torch.baddbmm(bias[:, None], by_layer, weight, out=to)
    return out


def activation(pair: Pair, function: str, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """relu, sigmoid or tanh: the Rescale rule."""
    if pair.where is None:
        y, y0, slope = ops.unchecked.secant(pair.x, pair.facing(), function, arithmetic.variant)
    else:
        y, slope = ops.unchecked.secant_at_input(pair.x, pair.facing(), function, arithmetic.variant)
        y0 = getattr(torch, function)(pair.x0)
    both = None if pair.both is None else adjoined(y, y0, 0)
    return Pair(y, y0, pair.where, both), lambda m: m * slope


def elementwise(pair: Pair, function: Callable[[Tensor], Tensor], arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """Another elementwise function: the secant slope under `"complete"`, else the derivative."""
    if isinstance(function, nn.GELU) and function.approximate == "none":
        y, slope = ops.unchecked.gelu(pair.x, pair.x0, pair.facing_rows, arithmetic.complete)
    elif arithmetic.complete:
        y = function(pair.x)
        slope = secant_slope(function, pair.x, pair.facing(), y, arithmetic.static)
    else:
        with torch.enable_grad():
            x = pair.x.detach().requires_grad_()
            y = function(x)
            (slope,) = torch.autograd.grad(y.sum(), x)
        y = y.detach()
    y0 = function(pair.x0)
    return Pair(y, y0, pair.where), lambda m: m * slope


def gated_sum(a: Pair, b: Pair, c: Tensor, arithmetic: Arithmetic) -> tuple[Pair, Callable[[Tensor], Any]]:
    """`σ(a)·b + c`, where `a` and `b` have the same rows, and `c` is `[2, rows, size]`.

    Returns:
        The sum, and `back` to the multipliers of `a` and `b`. The multiplier of `c` is that of the sum.
    """
    if arithmetic.static:
        a_both, b_both = (
            torch.stack((each.x, each.x0)) if each.both is None else each.both.view(c.shape) for each in (a, b)
        )
        y, multipliers = ops.gated_sum(a_both, b_both, c, arithmetic.variant, arithmetic.half)
        return Pair.stacked(y.flatten(0, 1)), lambda m: m * multipliers
    gate, gate_back = activation(a, "sigmoid", arithmetic)
    gate_mean, b_mean = gate.mean(arithmetic.half), b.mean(arithmetic.half)
    out = torch.empty_like(c)
    for each, state, x, y in zip(out, c, (gate.x, gate.x0), (b.x, b.x0), strict=True):
        torch.addcmul(state, x, y, out=each)
    return Pair.stacked(out.flatten(0, 1)), lambda m: (gate_back(m * b_mean), m * gate_mean)


def shares(log_p: Pair, levels: int, arithmetic: Arithmetic) -> Tensor:
    """The log-mean of softmaxes over `levels` numbers, from their logarithms; without `"complete"`, probabilities."""
    if not arithmetic.complete:
        return log_p.x.exp()
    z, z0 = (each.unflatten(-1, (-1, levels)) for each in (log_p.x, log_p.facing()))
    return ops.unchecked.log_mean_softmax(z, z0, -1, False)[1].flatten(1)


def layer_norm(pair: Pair, norm: Any, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """`torch.nn.LayerNorm` over the last dimension of `[rows, size]`: the quotient rule, or the gradient."""
    size = pair.x.shape[-1]
    streams = [pair.both] if pair.both is not None else [pair.x, pair.x0]
    found = [torch.native_layer_norm(x, (size,), norm.weight, norm.bias, norm.eps) for x in streams]
    (y, average, scale), (y0, average0, scale0) = found if len(found) > 1 else zip(*map(_halves, found[0]), strict=True)
    out = Pair(y, y0, pair.where, both=None if len(found) > 1 else found[0][0])
    weight = pair.x.new_ones(size) if norm.weight is None else norm.weight

    def back(m: Tensor) -> Tensor:
        return ops.unchecked.layer_norm_backward(
            m.contiguous(), pair.x, pair.x0, pair.facing_rows, average, average0, scale, scale0, weight, arithmetic.half
        )

    return out, back


def _halves(both: Tensor) -> tuple[Tensor, Tensor]:
    x, x0 = both.chunk(2)
    return x, x0


def chained(backs: Sequence[Back]) -> Back:
    """From the multiplier of the last operation to that of the first."""

    def back(m: Tensor) -> Tensor:
        for each in reversed(backs):
            m = each(m)
        return m

    return back
