"""The part of an output's difference that does not go through a layer.

A layer's contributions are complete if the layer is a cut of the model. Otherwise other values, which differ between
the streams as well, meet the layer's further on. The position of a run on the line from baseline to input, 0 to 1,
stands for all of them: where such a value meets the layer's, its multiplier goes to the position.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, override

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from deeplift_fast.core.diagnostics import BYPASS
from deeplift_fast.rules.call import Arguments, Call, same_choices, still
from deeplift_fast.rules.ruleset import Meeting, Note, RuleSet

POSITION = "position"


def position(given: Tensor) -> Tensor:
    """The position of each row of a run, float64 `[rows]`; a call of this function shows it to the rule set."""
    if has_torch_function_unary(given):
        return handle_torch_function(position, (given,), given)  # type: ignore[no-any-return]
    return given.clone()


class BypassRules(RuleSet):
    """The rules of another set; values that do not depend on the layer have the position as their source.

    Args:
        rules: a complete rule set.
    """

    complete = True

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._ends: tuple[Tensor, Tensor] | None = None

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
            self._ends = call.xs[0], call.x0s[0]
            return call.as_it_is(), "linear"
        return self._rules.apply(call if call.fixed else self._entered(call, note), note)

    def _entered(self, call: Call, note: Note) -> Call:
        """The same call, in which every value that differs between the streams is moved."""
        ours, theirs = list(call.actual.floats), call.baseline.floats
        if self._ends is None or len(ours) != len(theirs):
            return call
        moved = list(call.moved)
        for index, (value, value0) in enumerate(zip(call.actual.floats, theirs, strict=True)):
            if index in moved or value.shape != value0.shape or value.is_complex() or still([value], [value0]):
                continue
            difference = torch.where(value == value0, 0.0, value.detach() - value0)
            if bool(difference.isfinite().all()):
                ours[index] = _Entry.apply(*self._ends, value.detach(), difference, _noted(call.name, note))
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
        ctx: Any, source: Tensor, source0: Tensor, value: Tensor, difference: Tensor, noted: Callable[[Tensor], None]
    ) -> Tensor:
        ctx.save_for_backward(source.detach(), source0, difference)
        ctx.noted = noted
        return value.clone()

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        source, source0, difference = ctx.saved_tensors
        step = source - source0
        contributions = _by_row((multiplier * difference).to(source.device), step)
        if bool(contributions.any()):
            ctx.noted((contributions * step.sign()).sum())
        multipliers = torch.where(step == 0, 0.0, contributions / step)
        return multipliers.to(source.dtype), None, None, None, None


def _by_row(contributions: Tensor, step: Tensor) -> Tensor:
    """The sums of a batch's contributions, by row, float64 `[rows]`.

    Rows that do not move get none. Contributions that have no dimension of rows are shared equally.
    """
    rows, moving = len(step), step != 0
    axis = next((axis for axis, size in enumerate(contributions.shape) if size == rows), None)
    if axis is None or not bool(moving.all()):
        return contributions.sum(dtype=torch.float64) * moving / moving.sum().clamp(min=1)
    return contributions.movedim(axis, 0).reshape(rows, -1).sum(1, dtype=torch.float64)
