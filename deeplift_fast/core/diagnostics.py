"""The report of a call: the operations met, their rules, and their parts of the convergence delta."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from deeplift_fast.core.cancellation import Cancellation

UNPAIRED = "gradient, no partner"
OPTIONS = "gradient, options differ"
CUSTOM = "own backward"
BYPASS = "bypass"
ELSEWHERE = "(elsewhere)"
TOGETHER = "(those without a figure, together)"
_UNKNOWN = (UNPAIRED, OPTIONS, CUSTOM)


@dataclass(frozen=True)
class Row:
    """One operation under one rule, or under `"bypass"`, which is no rule.

    A bypass is in a layer's report: in this operation, values that do not come from the layer, and that differ between
    the streams, meet values that do.

    Attributes:
        operation: its name, as in `torch`.
        rule: `"linear"`, `"secant"`, `"midpoint"`, `"quotient"`, `"log-mean"`, `"winner"`, `"quadrature"` or
            `"composed"` (a recurrent layer as a whole). Rules that are not complete: `"gradient"` (the operation
            chooses or jumps, or masks or values without a gradient differ between the streams), `"gradient, no
            partner"` (the model took another path at the baseline), `"gradient, options differ"` (a number differs),
            `"own backward"` (a custom autograd function).
        count: number of calls.
        delta: its part of the batch's summed convergence deltas, in units of the output; NaN if several operations
            share one figure.
        share: `delta` divided by that sum; NaN if the sum is no more than rounding.
    """

    operation: str
    rule: str
    count: int
    delta: float
    share: float


@dataclass(frozen=True)
class Report:
    """The operations that :func:`deeplift_fast.attribute` met in one call.

    Attributes:
        rows: the operations; the largest parts of the convergence delta come first.
        delta: the sum of the convergence deltas over the batch.
        rounding: the part of `delta` that may be rounding.
        baseline: a description of the baseline.
        precision: that of products of float32 numbers, and PyTorch's settings that ask for less, which are not used.
        cancellation: that of the returned contributions; `None` for an empty batch.

    Example:
        >>> import torch
        >>> from deeplift_fast import attribute
        >>> report = attribute(lambda x: torch.tanh(x).sum(1), torch.ones(1, 2), rules="complete").report
        >>> [(row.operation, row.rule) for row in report]
        [('tanh', 'secant'), ('sum', 'linear')]
    """

    rows: tuple[Row, ...]
    delta: float
    rounding: float = 0.0
    baseline: str = ""
    precision: str = ""
    cancellation: Cancellation | None = field(default=None, compare=False)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        names = [
            (row.operation, row.rule, str(row.count), f"{row.delta:.3g}", _percent(row.share)) for row in self.rows
        ]
        table = [("operation", "rule", "count", "delta", "share"), *names]
        widths = [max(len(line[i]) for line in table) for i in range(5)]
        lines = [
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        ]
        lines = [*([f"baseline: {self.baseline}"] if self.baseline else []), *lines]
        lines.append(f"convergence delta, summed over the batch: {self.delta:.3g}")
        lines += [f"precision of float32 products: {self.precision}"] if self.precision else []
        return "\n".join(lines if self.cancellation is None else [*lines, str(self.cancellation)])

    def of(self, contributions: Iterable[Tensor], output: Tensor, baseline_output: Tensor) -> "Report":
        """A copy with the cancellation of these contributions, which it holds until :meth:`settled`.

        Args:
            contributions: as for :class:`deeplift_fast.core.cancellation.Cancellation`.
            output: `f(x)`, `[batch]`.
            baseline_output: `f(x0)`, `[batch]`.

        Returns:
            The report.
        """
        return replace(self, cancellation=Cancellation(contributions, output, baseline_output))

    def without(self, operation: str) -> "Report":
        """A copy without an operation, whose part is taken off the convergence delta.

        Args:
            operation: its name.

        Returns:
            The report.
        """
        rows = [row for row in self.rows if row.operation != operation]
        counts = {(row.operation, row.rule): row.count for row in rows}
        deltas = {(row.operation, row.rule): row.delta for row in rows}
        total = self.delta - sum(row.delta for row in self.rows if row.operation == operation)
        found = _report(counts, deltas, total, self.rounding)
        return replace(self, rows=found.rows, delta=found.delta)

    def settled(self) -> "Report":
        """A copy that holds no contributions, for code that keeps only the report."""
        return self if self.cancellation is None else replace(self, cancellation=self.cancellation.settled())


def of_one(operation: str, rule: str, count: int, delta: float, rounding: float, cancellation: Cancellation) -> Report:
    """The report of a call with one kind of operation, whose rule is complete, as a :class:`Tally` would make it.

    Args:
        operation: its name.
        rule: its rule.
        count: the number of its calls.
        delta: the sum of the convergence deltas.
        rounding: the part of it that may be rounding.
        cancellation: that of the contributions.
    """
    scale = delta if abs(delta) > rounding else torch.nan
    own = Row(operation, rule, count, 0.0, 0.0 / scale)
    rows = (own,) if scale != scale else (Row(ELSEWHERE, "", 0, delta, delta / scale), own)
    return Report(rows, delta, rounding, cancellation=cancellation)


def merged(reports: Iterable[Report]) -> Report:
    """One report of several calls, with the first one's precision and without their cancellation."""
    reports = list(reports)
    total = sum(report.delta for report in reports)
    counts: Counter[tuple[str, str]] = Counter()
    deltas: Counter[tuple[str, str]] = Counter()
    for row in (row for report in reports for row in report):
        counts[row.operation, row.rule] += row.count
        deltas[row.operation, row.rule] += row.delta  # type: ignore[assignment]
    found = _report(dict(counts), dict(deltas), total, sum(report.rounding for report in reports))
    return replace(found, precision=reports[0].precision if reports else "")


def _report(
    counts: dict[tuple[str, str], int], deltas: Mapping[tuple[str, str], float], total: float, rounding: float
) -> Report:
    scale = total if abs(total) > rounding else torch.nan
    rows = [Row(*key, counts[key], value, value / scale) for key, value in deltas.items()]
    return Report(tuple(sorted(rows, key=_weight)), total, rounding)


def _percent(share: float) -> str:
    return "" if share != share else f"{share:.1%}"


class Tally:
    """Counts of operations and rules, and sums of their parts of the convergence delta."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._missed: dict[tuple[str, str], Tensor] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._counts.clear()
        self._missed.clear()

    def counts(self) -> dict[tuple[str, str], int]:
        """A copy of the counts, by operation and rule."""
        return dict(self._counts)  # a counter takes twenty times as long to make

    def count_again_from(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Go back to earlier `counts`."""
        self._counts = Counter(counts)

    def count(self, operation: str, rule: str) -> None:
        """Count one call of an operation."""
        self._counts[operation, rule] += 1

    def note(self, operation: str, rule: str, missed: Tensor) -> None:
        """Add the part of one call: `Σ m·Δx − Σ g·Δy`, a scalar tensor."""
        if rule == BYPASS:
            self.count(operation, rule)
        self._add((operation, rule), missed)

    def _add(self, key: tuple[str, str], missed: Tensor) -> None:
        self._missed[key] = self._missed[key] + missed if key in self._missed else missed

    def add(self, other: "Tally") -> None:
        """Add another tally's counts and sums."""
        self._counts.update(other._counts)
        for key, missed in other._missed.items():
            self._add(key, missed)

    def custom_functions(self, output: Tensor) -> None:
        """Count the custom autograd functions that `output` depends on."""
        seen: set[Any] = {None}
        found: list[Any] = [output.grad_fn]
        while found:
            node = found.pop()
            if node in seen:
                continue
            seen.add(node)
            if isinstance(node, BackwardCFunction):
                kind: Any = node._forward_cls  # type: ignore[attr-defined]
                if not kind.__module__.startswith("deeplift_fast."):
                    self._counts[kind.__name__, CUSTOM] += 1
            found += [next_ for next_, _ in node.next_functions]

    def report_of(self, total: float, rounding: float) -> Report:
        """The report, from the sum of the convergence deltas and its rounding."""
        known = {key: float(missed) for key, missed in self._missed.items()}
        rest = total - sum(value for value in known.values() if value == value)
        unknown = [key for key in self._counts if key not in known and key[1] in _UNKNOWN]
        deltas = {key: known.get(key, torch.nan if key in unknown else 0.0) for key in self._counts}
        counts = dict(self._counts)
        if len(unknown) == 1:
            deltas[unknown[0]] = rest
        elif unknown or abs(rest) > rounding:
            key = (TOGETHER if unknown else ELSEWHERE, "")
            deltas[key], counts[key] = rest, sum(counts[k] for k in unknown)
        return _report(counts, deltas, total, rounding)


def _weight(row: Row) -> tuple[Any, ...]:
    size = abs(row.delta) if row.delta == row.delta else torch.inf
    return -size, row.operation, row.rule
