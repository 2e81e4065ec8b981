"""Options of an attribution: rule set, steps, tolerance."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from deeplift_fast.rules.complete import CompleteRules
from deeplift_fast.rules.rescale import RescaleRules
from deeplift_fast.rules.ruleset import RuleSet
from deeplift_fast.support.integers import as_int

RULES: dict[str, Callable[[], RuleSet]] = {
    "rescale": RescaleRules,
    "complete": CompleteRules,
    "pyhealth": lambda: RescaleRules(as_pyhealth=True),
}
DELTA_TOL = 0.01


@dataclass(frozen=True)
class Options:
    """Options of an attribution; see :func:`deeplift_fast.attribute`.

    Attributes:
        rules: `"rescale"`, `"complete"` or `"pyhealth"`.
        steps: number of equal segments of the line from baseline to input.
        delta_tol: under `"complete"`, the part of `f(x) − f(x0)` that a convergence delta may reach without a warning.
        segments_at_once: number of segments that go through the model as rows of one batch.

    Raises:
        ValueError: for an unknown name, a number below 1, several steps with `"pyhealth"`, or a negative tolerance.
        TypeError: if steps are no ints, or the tolerance is no number.

    Example:
        >>> Options(rules="complete", steps=4)
        Options(rules='complete', steps=4, delta_tol=0.01, segments_at_once=1)
    """

    rules: str = "rescale"
    steps: int = 1
    delta_tol: float = DELTA_TOL
    segments_at_once: int = 1

    def __post_init__(self) -> None:
        if self.rules not in tuple(RULES):
            raise ValueError(f"rules is {self.rules!r}; accepted: {', '.join(repr(name) for name in RULES)}")
        for name in ("steps", "segments_at_once"):
            object.__setattr__(self, name, positive(name, getattr(self, name)))
        if self.steps > 1 and self.rules == "pyhealth":
            raise ValueError(f'steps is {self.steps}; accepted with rules="pyhealth": 1')
        if isinstance(self.delta_tol, bool) or not isinstance(self.delta_tol, Real):
            raise TypeError(f"delta_tol is {self.delta_tol!r}; accepted: a number, 0 or more")
        if not float(self.delta_tol) >= 0:
            raise ValueError(f"delta_tol is {self.delta_tol}; accepted: 0 or more")

    @property
    def complete(self) -> bool:
        """Whether every operation has a rule and nothing is rescaled."""
        return self.rules == "complete"


def positive(name: str, value: Any) -> int:
    """The argument called `name`, an int of 1 or more, NumPy's included, as a plain int.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is below 1.
    """
    number = as_int(value)
    if number is None:
        raise TypeError(f"{name} is {value!r}; accepted: an int of 1 or more")
    if number < 1:
        raise ValueError(f"{name} is {number}; accepted: 1 or more")
    return number
