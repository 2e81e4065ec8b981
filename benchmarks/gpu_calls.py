"""Random arguments of ops, for `gpu_cases.py`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.ops.cells import COEFFICIENTS, GATES
from deeplift_fast.ops.checks import computed
from deeplift_fast.pyhealth.fused.recurrent import Packed, pack
from deeplift_fast.pyhealth.fused.sequences import RealSteps

# Bounds within which PyHealth's arithmetic is smooth: smaller differences cancel, larger numbers take other branches.
APART, LARGEST = 0.05, 5.0
LONGEST = 60  # rows of a sample in attention


@dataclass(frozen=True)
class Maker:
    """Draws the same numbers for every dtype and device.

    Attributes:
        dtype: dtype of the numbers.
        device: their device.
        large: whether sizes fill a GPU.
        rounded: dtype to which numbers are rounded first, or `None`.
    """

    dtype: torch.dtype
    device: torch.device
    large: bool = False
    rounded: torch.dtype | None = None
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal numbers."""
        if self.device.type == "meta":
            return torch.empty(shape, dtype=self.dtype, device=self.device)
        return self.floats(torch.randn(shape, generator=self.generator).mul_(scale))

    def floats(self, numbers: Tensor) -> Tensor:
        """Numbers drawn in float32, in the dtype and on the device."""
        return numbers.to(self.rounded or self.dtype).to(self.dtype).to(self.device)

    def below(self, end: int, *shape: int) -> Tensor:
        """Integers from 0 to `end − 1`, int64."""
        return torch.randint(end, shape, generator=self.generator).to(self.device)

    def lengths(self, count: int, longest: int) -> Tensor:
        """Lengths from 1 to `longest`, on the CPU; the first is `longest`."""
        found = 1 + torch.randint(longest, (count,), generator=self.generator)
        found[0] = longest
        return found

    def size(self, small: int, large: int) -> int:
        """`large` or `small`, by :attr:`large`."""
        return large if self.large else small


@dataclass(frozen=True)
class Call:
    """One call of an op.

    Attributes:
        arguments: arguments in the order of the op's schema.
        compared: the tensors to compare, from the op's result.
        flops: operations of its matrix products; 0 if it has none.
    """

    arguments: tuple[Any, ...]
    compared: Callable[[Any], list[Tensor]] = lambda found: listed(found)
    flops: int = 0


def listed(found: Any) -> list[Tensor]:
    """One tensor or several, as a list."""
    return [found] if isinstance(found, Tensor) else list(found)


def secant(make: Maker, function: str, variant: str) -> Call:
    """A call of `secant` or `secant_at_input`."""
    size = make.size(1537, 1 << 24)
    if variant == "rescale":
        return Call((make.normal(size, scale=3), make.normal(size, scale=3), function, variant))
    x = torch.rand(size, generator=make.generator).mul_(2 * LARGEST).sub_(LARGEST)
    delta = torch.rand(size, generator=make.generator).add_(4 * APART)
    return Call((make.floats(x), make.floats(torch.where(x > 0, x - delta, x + delta)), function, variant))


def gelu(make: Maker, secant: bool) -> Call:
    """A call of `gelu`, with as many baseline rows as rows."""
    rows, width = make.size(77, 1 << 16), make.size(33, 512)
    x, x0 = make.normal(rows, width, scale=3), make.normal(rows, width, scale=3)
    return Call((x, x0, make.below(rows, rows), secant))


def layer_norm_backward(make: Maker, half: float) -> Call:
    """A call of `layer_norm_backward`, with the averages and scales of the forward pass."""
    rows, width = make.size(77, 1 << 18), make.size(33, 128)
    x, x0 = make.normal(rows, width), make.normal(rows, width, scale=2)
    of = [_moments(each) for each in (x, x0)]
    (average, scale), (average0, scale0) = of
    m, weight = make.normal(rows, width), make.normal(width)
    return Call((m, x, x0, make.below(rows, rows), average, average0, scale, scale0, weight, half))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, average = torch.var_mean(x, -1, correction=0, keepdim=True)
    return average, torch.rsqrt(variance + 1e-5)


def token_contributions(make: Maker) -> Call:
    """A call of `token_contributions`, with the vocabulary of a hospital."""
    rows, slots, width = make.size(33, 1 << 18), make.size(5, 12), make.size(17, 128)
    table = make.normal(make.size(50, 4000), width)
    tokens, baseline = make.below(len(table), rows, slots), make.below(2, rows, slots)
    return Call((table, tokens, baseline, make.normal(rows, width)))


def token_survey(make: Maker) -> Call:
    """A call of `token_survey`, with padding at the end of each step."""
    batch, steps, slots = make.size(7, 4096), make.size(5, 64), make.size(3, 12)
    tokens = make.below(4000, batch, steps, slots)
    tokens[..., slots // 2 :] = 0
    return Call((make.normal(batch, steps), tokens))


def target(make: Maker) -> Call:
    """A call of `target`, for the predicted class of two features' model."""
    batch, classes, width = make.size(7, 4096), make.size(3, 10), make.size(17, 384)
    return Call((make.normal(2, batch, classes), make.normal(2, classes, width), -1))


def token_rows(make: Maker) -> Call:
    """A call of `token_rows`, with the vocabulary of a hospital."""
    batch, steps, slots, width = make.size(7, 4096), make.size(5, 64), make.size(3, 12), make.size(17, 128)
    table = make.normal(make.size(50, 4000), width)
    tokens, baseline = make.below(len(table), batch, steps, slots), make.below(2, batch, steps, slots)
    return Call((table, tokens, baseline, make.normal(batch, steps)))


def value_rows(make: Maker) -> Call:
    """A call of `value_rows`."""
    batch, steps, size = make.size(7, 4096), make.size(5, 64), make.size(9, 32)
    values, baseline = make.normal(batch, steps, size), make.normal(batch, steps, size)
    return Call((values, baseline, make.normal(batch, steps)))


def value_survey(make: Maker) -> Call:
    """A call of `value_survey`; the last step of the first half of the samples is padding."""
    batch, steps, size = make.size(7, 4096), make.size(5, 64), make.size(9, 32)
    values, times = make.normal(batch, steps, size), make.normal(batch, steps)
    values[: batch // 2, -1] = times[: batch // 2, -1] = 0
    return Call((values, times, 0.5))


@dataclass(frozen=True)
class Attended:
    """The arguments of ragged attention in one stream, in the order of its schema up to `queries`."""

    asked: Tensor
    rows: Tensor
    index: Tensor
    starts: Tensor
    queries: Tensor

    @property
    def all(self) -> tuple[Tensor, ...]:
        """All arguments."""
        return (self.asked, self.rows, self.index, self.starts, self.queries)


def _attended(make: Maker, of_first: bool, lengths: Tensor) -> tuple[Attended, Attended, Tensor, Tensor, int]:
    """Both streams, masks of the queries that look and of the rows that are seen, and the number of pairs."""
    heads, width = make.size(2, 1), make.size(17, 128)
    asking = torch.ones_like(lengths) if of_first else lengths
    starts, queries = (torch.nn.functional.pad(sizes.cumsum(0), (1, 0)) for sizes in (lengths, asking))
    total, asked = int(starts[-1]), int(queries[-1])
    streams = []
    for _ in range(2):
        index = torch.randperm(total, generator=make.generator).to(make.device)
        numbers = make.normal(heads, asked, width, scale=width**-0.5), make.normal(total, width)
        streams.append(Attended(*numbers, index, starts.to(make.device), queries.to(make.device)))
    looks, seen = make.below(10, asked) > 0, make.below(10, total) > 0
    return *streams, looks, seen, int((lengths * asking).sum())


def attention(make: Maker, of_first: bool) -> Call:
    """A call of `attention`, with queries of row 0 (`of_first`) or of every row."""
    lengths = make.lengths(make.size(5, 8192 if of_first else 1024), make.size(9, LONGEST))
    stream, _, looks, seen, pairs = _attended(make, of_first, lengths)
    return Call((*stream.all, looks, seen), flops=4 * len(stream.asked) * pairs * stream.rows.shape[1])


def attention_backward(make: Maker, of_first: bool, half: float) -> Call:
    """A call of `attention_backward`; it computes the scores of both streams again."""
    lengths = make.lengths(make.size(5, 8192 if of_first else 1024), make.size(9, LONGEST))
    a, a0, looks, seen, pairs = _attended(make, of_first, lengths)
    heads, asked, width = a.asked.shape
    m = make.normal(heads, asked, width)
    logs = [_log_sums(each, lengths, make.dtype) for each in (a, a0)]
    both = (each for pair in zip(a.all, a0.all, strict=True) for each in pair)
    where = torch.arange(len(lengths)).to(make.device)
    return Call((m, *both, where, looks, looks, seen, seen, *logs, half), flops=2 * 5 * 2 * heads * pairs * width)


def _log_sums(stream: Attended, lengths: Tensor, dtype: torch.dtype) -> Tensor:
    """The logarithms of the number of rows, `[heads, queries]`: weights near those of scores near 0."""
    asking = stream.queries.diff()
    found = torch.repeat_interleave(lengths.to(asking.device).log().to(computed(dtype)), asking)
    return found.expand(len(stream.asked), -1).contiguous()


@dataclass(frozen=True)
class Recurrence:
    """A recurrent layer over ragged sequences; each sample has its own baseline."""

    weights: Packed
    counts: Tensor
    rows: int
    samples: int

    @staticmethod
    def of(make: Maker, cell: str) -> "Recurrence":
        """A layer; large cases have PyHealth's sizes."""
        levels = make.size(2, 3) if cell == "stagenet" else 0
        units, inputs = (384 if levels else 128, 128) if make.large else (10, 7)
        gates, from_input, from_state = GATES[cell]
        columns, scale = inputs + 1, units**-0.5
        of_input = make.normal(from_input, units, columns, scale=scale)
        of_state, bias = make.normal(from_state, units, units, scale=scale), make.normal(gates, units)
        masters = None
        if levels:
            kinds = 2 * levels
            masters = make.normal(kinds, columns), make.normal(kinds, units, scale=scale), make.normal(kinds)
        weights = pack(cell, (of_input, of_state, bias), inputs, masters, levels)
        steps = RealSteps.of(make.lengths(make.size(9, 128), make.size(6, 120)))
        return Recurrence(weights, steps.counts, len(steps.step), len(steps.lengths))

    @property
    def flops(self) -> int:
        """Of the products of one stream and direction."""
        weights = self.weights
        outputs, (_, from_input, from_state) = weights.units, GATES[weights.cell]
        of_input = outputs * from_input + 2 * weights.levels
        of_state = outputs * from_state + 2 * weights.levels
        return 2 * self.rows * (of_input * (weights.inputs + 1) + of_state * outputs)

    def coefficients(self, make: Maker) -> Tensor:
        """An empty tensor for the coefficients."""
        shape = (self.rows, COEFFICIENTS[self.weights.cell], self.weights.units)
        return torch.full(shape, torch.nan, dtype=make.dtype, device=make.device)


@dataclass(frozen=True)
class Lockstep:
    """Two layers of StageNet's cell; large cases have PyHealth's sizes."""

    steps: list[int]
    samples: int
    units: int
    levels: int
    columns: int
    weight: Tensor
    turns: tuple[Tensor, Tensor, list[int]]

    @staticmethod
    def of(make: Maker) -> "Lockstep":
        """Layers whose rows are padded beyond the gates; all samples have every step."""
        steps = [make.size(6, 64), make.size(2, 8)]
        units, levels = (384, 3) if make.large else (10, 2)
        columns = -(-(4 * units + 2 * levels) // 16) * 16
        weight = make.normal(2, units, columns, scale=units**-0.5)
        every = torch.zeros(0, 2, dtype=torch.int64, device=make.device)
        return Lockstep(steps, make.size(5, 128), units, levels, columns, weight, (every, every, [0, 1]))

    @property
    def rows(self) -> int:
        """Rows of both layers."""
        return self.samples * sum(self.steps)

    @property
    def flops(self) -> int:
        """Of the products of one stream and direction."""
        return 2 * self.rows * (4 * self.units + 2 * self.levels) * self.units


def lockstep(make: Maker, slope: str, half: float) -> Call:
    """A call of `lockstep`; each sample has its own baseline."""
    of = Lockstep.of(make)
    projected, bias = make.normal(2 * of.rows, of.columns), make.normal(2, of.columns)
    k = torch.full((of.rows, 8, of.units), torch.nan, dtype=make.dtype, device=make.device)
    where = torch.arange(of.samples).to(make.device)
    arguments = (projected, where, of.steps, *of.turns, of.weight, bias, k, of.levels, slope, half)
    # PyHealth's arithmetic jumps where a derivative nears 0: rounding decides the side.
    return Call(arguments, lambda found: [*found] if slope == "pyhealth" else [*found, k], 2 * of.flops)


def lockstep_backward(make: Maker) -> Call:
    """A call of `lockstep_backward`, with coefficients of realistic size."""
    of = Lockstep.of(make)
    k, m_h = make.normal(of.rows, 8, of.units, scale=0.3), make.normal(of.rows, of.units)
    m_master = make.normal(of.rows, of.levels)
    shares = make.normal(of.rows, 2 * of.levels).double().abs().add(0.1).to(make.dtype)
    gates = 4 * of.units + 2 * of.levels
    given = (m_h, m_master, k, shares, of.steps, *of.turns, of.weight, of.levels)
    return Call(given, lambda d: [d[:, :gates]], of.flops)


def recurrent(make: Maker, cell: str, slope: str, half: float) -> Call:
    """A call of `recurrent`; each baseline has its sample's length."""
    layer = Recurrence.of(make, cell)
    weights, columns = layer.weights, layer.weights.inputs + 1
    u, u0 = make.normal(layer.rows, columns), make.normal(layer.rows, columns)
    where, k = torch.arange(layer.samples).to(make.device), layer.coefficients(make)
    arguments = (u, u0, where, layer.counts, layer.counts, *weights.forward, k, weights.levels, cell, slope, half)

    def compared(found: tuple[Tensor, ...]) -> list[Tensor]:
        h, h0, log_p, log_p0 = found
        states = [weights.unpadded(h), weights.unpadded(h0), log_p, log_p0]
        # PyHealth's arithmetic jumps where a derivative nears 0: rounding decides the side.
        return states if slope == "pyhealth" else [*states, weights.unpadded(k)]

    return Call(arguments, compared, 2 * layer.flops)


def recurrent_backward(make: Maker, cell: str) -> Call:
    """A call of `recurrent_backward`, with coefficients of realistic size."""
    layer = Recurrence.of(make, cell)
    weights = layer.weights
    units, count = len(weights.slots), COEFFICIENTS[cell]
    k = weights.padded(make.normal(layer.rows, count, units, scale=0.3))
    m_h = weights.padded(make.normal(layer.rows, units))
    m_master = make.normal(layer.rows, weights.levels)
    shares = make.normal(layer.rows, 2 * weights.levels).double().abs().add(0.1).to(make.dtype)
    given = (m_h, m_master, k, shares, layer.counts, *weights.back, weights.levels, cell, weights.inputs)
    return Call(given, lambda m_u: [m_u[:, : weights.inputs]], layer.flops)
