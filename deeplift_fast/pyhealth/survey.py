"""What checks, masks and baselines ask of a feature on a GPU, answered by one kernel per feature."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.core.baselines import require_each_finite
from deeplift_fast.core.questions import Questions

NEUTRAL = 1e-2  # PyHealth's baseline of a continuous value


@dataclass(frozen=True)
class Survey:
    """A feature without a mask, as its numbers show it.

    Attributes:
        filled: whether a token is real, or a step has a value other than 0: bool, as `Feature.filled`.
        real: whether a step is real, bool `[batch, steps]`.
        baseline: PyHealth's baseline with padding kept, of the value's shape and dtype.
        ends: the number of real steps, at least 1, int64 `[batch]`.
        bounds: the smallest and the largest token of each sample, int64 `[batch, 2]`; `None` for values.
    """

    filled: Tensor
    real: Tensor
    baseline: Tensor
    ends: Tensor
    bounds: Tensor | None = None

    def at(self, samples: Tensor | slice) -> "Survey":
        """The survey of these samples, int64 `[n]` or a slice."""
        bounds = None if self.bounds is None else self.bounds[samples]
        return Survey(self.filled[samples], self.real[samples], self.baseline[samples], self.ends[samples], bounds)


def fits(value: Tensor, times: Tensor | None, is_token: bool, questions: Questions) -> bool:
    """Whether one kernel can survey a feature: on the route for GPUs, steps with a time each, in dtypes that it takes.

    Args:
        value: tokens or values.
        times: the times of its steps, or `None`.
        is_token: whether `value` holds tokens.
        questions: the questions to the batch.
    """
    if not questions.static or value.dim() != 3 or not value.numel() or times is None:
        return False
    accepted = torch.int64 if is_token else times.dtype
    return (
        value.dtype == accepted
        and times.dtype in (torch.float32, torch.float64)
        and times.numel() == value.shape[:2].numel()
    )


def survey(what: str, value: Tensor, times: Tensor, is_token: bool, questions: Questions) -> Survey:
    """Survey a feature that `fits`, and ask whether its numbers are finite.

    Args:
        what: the name of the feature in messages.
        value: tokens or values, `[batch, steps, …]`.
        times: one number for each step.
        is_token: whether `value` holds tokens.
        questions: takes the check for NaN and inf, which raises `ValueError`.
    """
    by_step = times.detach().reshape(value.shape[:2])
    bounds = None
    if is_token:
        filled, baseline, real, ends, bounds, bad = ops.token_survey(by_step, value)
    else:
        filled, real, baseline, ends, bad = ops.value_survey(value.detach(), by_step, NEUTRAL)
    questions.bring((bad,), _check(what, (times, value)))
    return Survey(filled, real, baseline, ends, bounds)


def _check(what: str, parts: tuple[Tensor, ...]) -> Callable[[list[Tensor]], None]:
    def then(found: list[Tensor]) -> None:
        for part in parts if bool(found[0].any()) else ():
            require_each_finite(what, part)

    return then
