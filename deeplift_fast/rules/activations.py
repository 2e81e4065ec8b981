"""The rules of Captum's front end under `"rescale"`: for the activations, pools and softmax that Captum knows."""

from collections.abc import Callable
from typing import Any

from deeplift_fast.rules.call import Call, shared_name
from deeplift_fast.rules.complete import POOLS, SOFTMAX, CompleteRules
from deeplift_fast.rules.operations import DRAWS
from deeplift_fast.rules.ruleset import Meeting, Note, draw

_SECANT = ("relu", "sigmoid", "special_expit", "expit", "tanh", "leaky_relu", "elu", "softplus")
_NAMES = frozenset((*_SECANT, *SOFTMAX, *POOLS))


class ActivationRules:
    """The rules of `"complete"` for a few operations, as modules, functions or methods; ordinary gradients elsewhere.

    ReLU, Sigmoid, Tanh, LeakyReLU, ELU and Softplus have their secant slope, max pools the winner rule and softmax the
    log-mean rule.
    """

    complete = False

    def __init__(self) -> None:
        self._rules = CompleteRules()

    def meet(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meeting | None:
        """See :class:`deeplift_fast.rules.ruleset.RuleSet`."""
        name = shared_name(func)
        if name in DRAWS:
            return draw(name, func, args, kwargs)
        return self._rules.meet(func, args, kwargs) if name in _NAMES else None

    def apply(self, call: Call, note: Note) -> tuple[Any, str]:
        """See :class:`deeplift_fast.rules.ruleset.RuleSet`."""
        return self._rules.apply(call, note)
