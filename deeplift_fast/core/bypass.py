"""The part of an output's difference that does not go through a layer.

A layer's contributions are complete if the layer is a cut of the model. Otherwise other values, which differ between
the streams as well, meet the layer's further on. The position of a run on the line from baseline to input, 0 to 1,
stands for all of them: where such a value meets the layer's, its multiplier goes to the position.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, override

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from deeplift_fast.core.diagnostics import BYPASS
from deeplift_fast.core.layer_tensors import Axis, candidates
from deeplift_fast.rules.call import Arguments, Call, same_choices, still
from deeplift_fast.rules.ruleset import Meeting, Note, RuleSet

POSITION = "position"


def position(given: Tensor) -> Tensor:
    """The position of each row of a run, float64 `[rows]`; a call of this function shows it to the rule set."""
    if has_torch_function_unary(given):
        return handle_torch_function(position, (given,), given)  # type: ignore[no-any-return]
    return given.clone()


@dataclass(frozen=True)
class Ends:
    """The two ends of a segment.

    Attributes:
        position: the position of each row in the second stream, float64 `[rows]`.
        position0: that in the first stream, `[rows]`.
        axis: the place of the rows in tensors.
    """

    position: Tensor
    position0: Tensor
    axis: Axis


class BypassRules(RuleSet):
    """The rules of another set; values that do not depend on the layer have the position as their source.

    Args:
        rules: a complete rule set.
        axis: the place of the samples in the layer's tensors, and probably in the values that they meet.
    """

    complete = True

    def __init__(self, rules: RuleSet, axis: Axis) -> None:
        self._rules = rules
        self._axis = axis
        self._ends: Ends | None = None

    @override
    def meet(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meeting | None:
        if func is position:
            return Meeting(POSITION, arguments=Arguments.of(args, kwargs), func=func)
        meeting = self._rules.meet(func, args, kwargs)
        # The records of linear operations do not hold what the other values are compared with.
        return replace(meeting, linear=False) if meeting is not None and meeting.linear else meeting

    @override
    def apply(self, call: Call, note: Note) -> tuple[Any, str]:
        if call.func is position:
            self._ends = Ends(call.xs[0], call.x0s[0], self._axis)
            return call.as_it_is(), "linear"
        return self._rules.apply(call if call.fixed else self._entered(call, note), note)

    def _entered(self, call: Call, note: Note) -> Call:
        """The same call, in which every value that differs between the streams is moved."""
        ours, theirs = list(call.actual.floats), call.baseline.floats
        if self._ends is None or len(ours) != len(theirs):
            return call
        moved, noted = list(call.moved), _noted(call.name, note)
        for index, (value, value0) in enumerate(zip(call.actual.floats, theirs, strict=True)):
            if index in moved or value.shape != value0.shape or value.is_complex() or still([value], [value0]):
                continue
            difference = torch.where(value == value0, 0.0, value.detach() - value0)
            if bool(difference.isfinite().all()):
                ours[index] = _Entry.apply(self._ends, self._ends.position, value.detach(), difference, noted)
                moved.append(index)
        actual = call.actual.with_leaves(ours, call.actual.choices)
        fixed = still(ours, theirs) and same_choices(actual.choices, call.baseline.choices)
        return Call(call.name, call.func, actual, call.baseline, sorted(moved), fixed)


def _noted(operation: str, note: Note) -> Callable[[Tensor], None]:
    """Takes the part of the output's difference that enters in an operation."""

    def noted(part: Tensor) -> None:
        note(operation, BYPASS, -part)
        note(POSITION, "linear", part)

    return noted


class _Entry(torch.autograd.Function):
    """A value whose multiplier goes to the position."""

    @staticmethod
    def forward(
        ctx: Any, ends: Ends, source: Tensor, value: Tensor, difference: Tensor, noted: Callable[[Tensor], None]
    ) -> Tensor:
        ctx.save_for_backward(source.detach(), ends.position0, difference)
        ctx.noted, ctx.axis = noted, ends.axis
        return value.clone()

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        source, source0, difference = ctx.saved_tensors
        step = source - source0
        contributions = _by_row((multiplier * difference).to(source.device), step, ctx.axis)
        if bool(contributions.any()):
            ctx.noted((contributions * step.sign()).sum())
        multipliers = torch.where(step == 0, 0.0, contributions / step)
        return None, multipliers.to(source.dtype), None, None, None


def _by_row(contributions: Tensor, step: Tensor, axis: Axis) -> Tensor:
    """The sums of a batch's contributions, by row, float64 `[rows]`.

    Rows that do not move get none. Contributions whose shape does not tell the rows are shared equally.
    """
    rows, moving = len(step), step != 0
    found = next((each for each in (axis, *candidates(contributions, rows)) if each.fits(contributions, rows)), None)
    if found is None or not bool(moving.all()):
        return contributions.sum(dtype=torch.float64) * moving / moving.sum().clamp(min=1)
    return found.first(contributions).reshape(rows, -1).sum(1, dtype=torch.float64)
