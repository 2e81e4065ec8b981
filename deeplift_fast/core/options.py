"""How an attribution is made: rule set, steps, tolerance. One object that checks itself."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from deeplift_fast.rules.complete import CompleteRules
from deeplift_fast.rules.rescale import RescaleRules
from deeplift_fast.rules.ruleset import RuleSet

RULES: dict[str, Callable[[], RuleSet]] = {
    "rescale": RescaleRules,
    "complete": CompleteRules,
    "pyhealth": lambda: RescaleRules(as_pyhealth=True),
}
DELTA_TOL = 0.01


@dataclass(frozen=True)
class Options:
    """How an attribution is made.

    Attributes:
        rules: `"rescale"`, `"complete"` or `"pyhealth"`.
        steps: into how many equal segments the line from baseline to input is cut.
        delta_tol: under `"complete"`, the part of `f(x) − f(x0)` that a convergence delta may reach without a warning.
        segments_at_once: how many segments go through the model as rows of one batch.

    Raises:
        ValueError: for an unknown name, fewer than one step (in all or at once), several with `"pyhealth"`, or a
            negative tolerance.
        TypeError: for steps other than an int, or a tolerance other than a number.

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
        for name, value in (("steps", self.steps), ("segments_at_once", self.segments_at_once)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}; accepted: an int of 1 or more")
            if value < 1:
                raise ValueError(f"{name} is {value}; accepted: 1 or more")
        if self.steps > 1 and self.rules == "pyhealth":
            raise ValueError(f'steps is {self.steps}; rules="pyhealth" has one step only, as PyHealth')
        if isinstance(self.delta_tol, bool) or not isinstance(self.delta_tol, Real):
            raise TypeError(f"delta_tol is {self.delta_tol!r}; accepted: a number, 0 or more")
        if not float(self.delta_tol) >= 0:
            raise ValueError(f"delta_tol is {self.delta_tol}; accepted: 0 or more")

    @property
    def complete(self) -> bool:
        """Whether every operation has a rule of its own, and nothing is rescaled."""
        return self.rules == "complete"
