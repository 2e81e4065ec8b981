"""DeepLiftShap with Captum's signature: the mean over a background set."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.captum.arguments import (
    AttributionFunction,
    Target,
    Tensors,
    as_tuple,
    background,
    further_of,
    rows_of,
    rows_of_target,
    wrapped,
)
from deeplift_fast.captum.deeplift import DeepLift, delta_of
from deeplift_fast.core.cancellation import joined
from deeplift_fast.core.diagnostics import Report, merged
from deeplift_fast.core.options import DELTA_TOL, positive

ROWS = 256  # pairs of input and baseline that DeepLiftShap takes through the model at once


class DeepLiftShap(DeepLift):
    """The mean of DeepLIFT over a background set: an approximation of SHAP values (Lundberg & Lee 2017, section 4.2).

    Every input is paired with every baseline, `rows` pairs at a time, so that memory does not grow with the set.

    Args:
        model: as for :class:`DeepLift`.
        multiply_by_inputs: as for :class:`DeepLift`.
        rules: as for :class:`DeepLift`.
        steps: as for :class:`DeepLift`.
        delta_tol: as for :class:`DeepLift`.
        segments_at_once: as for :class:`DeepLift`.
        rows: number of pairs of input and baseline that go through the model at once.

    Raises:
        ValueError, TypeError: for an argument that does not fit; the message names it.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> DeepLiftShap(net).attribute(torch.ones(2, 3), torch.zeros(5, 3), target=1).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        multiply_by_inputs: bool = True,
        *,
        rules: str = "complete",
        steps: int = 1,
        delta_tol: float = DELTA_TOL,
        segments_at_once: int = 1,
        rows: int = ROWS,
    ) -> None:
        super().__init__(
            model, multiply_by_inputs, rules=rules, steps=steps, delta_tol=delta_tol, segments_at_once=segments_at_once
        )
        self.rows = positive("rows", rows)

    @wrapped
    def attribute(
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        custom_attribution_func: AttributionFunction | None = None,
    ) -> Any:
        """The mean over baselines of :meth:`DeepLift.attribute`.

        Args:
            inputs: as for :meth:`DeepLift.attribute`.
            baselines: the background set: tensors `[baselines, …]` of equal length, or a function that returns them; it
                takes the inputs or nothing.
            target: as for :meth:`DeepLift.attribute`.
            additional_forward_args: as for :meth:`DeepLift.attribute`; tensors with one row per input follow the input.
            return_convergence_delta: whether to return the convergence deltas too.
            custom_attribution_func: as for :meth:`DeepLift.attribute`; called once for each `rows` pairs.

        Returns:
            Attributions in the structure and shapes of `inputs`. With `return_convergence_delta`, a pair of these and
            the convergence deltas, `[batch · baselines]`, input by input.

        Raises:
            ValueError, TypeError: as :meth:`DeepLift.attribute`.
        """
        xs = as_tuple("inputs", inputs)
        x0s = background(inputs, baselines, len(xs))
        batch, count = len(xs[0]), len(x0s[0])
        further = further_of(additional_forward_args)

        def explained(i: Tensor, j: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Report]:
            rows = tuple(x.detach()[i] for x in xs)
            refs = tuple(x0[j] for x0 in x0s)
            follow = tuple(rows_of(argument, i, batch) for argument in further)
            found = self._explain(rows, refs, rows_of_target(target, i, batch), follow)
            parts = self._attributions(found, rows, refs, custom_attribution_func)
            return parts, delta_of(found, parts if custom_attribution_func else None), found.report

        totals, deltas, self._report = mean_over_pairs(batch, count, self.rows, explained)
        shown = totals if isinstance(inputs, tuple | list) else totals[0]
        return (shown, deltas) if return_convergence_delta else shown


def mean_over_pairs(
    batch: int, count: int, rows: int, explained: Callable[[Tensor, Tensor], tuple[tuple[Tensor, ...], Tensor, Report]]
) -> tuple[tuple[Tensor, ...], Tensor, Report]:
    """The mean over baselines of every input's attributions.

    Args:
        batch: the number of inputs.
        count: the number of baselines.
        rows: number of pairs that go through the model at once.
        explained: takes the indices of inputs and of baselines, and returns their attributions, `[pairs, …]` each,
            their convergence deltas, `[pairs]`, and the report.

    Returns:
        The means, `[batch, …]` each; the convergence deltas, `[batch · count]`, input by input; one report of all.
    """
    totals: list[Tensor] = []
    deltas: list[Tensor] = []
    reports: list[Report] = []
    for i, j in _pairs(batch, count, rows):
        parts, delta, report = explained(i, j)
        totals = totals or [part.new_zeros(batch, *part.shape[1:]) for part in parts]
        for total, part in zip(totals, parts, strict=True):
            total.index_add_(0, i.to(total.device), part.detach(), alpha=1 / count)
        deltas.append(delta)
        reports.append(report.settled())
    cancelled = [report.cancellation for report in reports if report.cancellation is not None]
    report = replace(merged(reports), cancellation=joined(cancelled) if cancelled else None)
    return tuple(totals), torch.cat(deltas), report


def _pairs(batch: int, count: int, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of inputs and of baselines, every pair once, inputs first; an empty batch has one empty pair."""
    for start in range(0, max(batch * count, 1), rows):
        pair = torch.arange(start, min(start + rows, batch * count), device="cpu")
        yield pair // count, pair % count
