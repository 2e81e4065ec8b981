"""The rule set of `deeplift_fast.captum` under `"rescale"`: the activations, pools and softmax of Captum."""

from collections.abc import Callable
from typing import Any, override

from deeplift_fast.rules.call import Call, shared_name
from deeplift_fast.rules.complete import POOLS, SOFTMAX, CompleteRules
from deeplift_fast.rules.operations import DRAWS
from deeplift_fast.rules.ruleset import Meeting, Note, RuleSet, draw

_SECANT = ("relu", "sigmoid", "special_expit", "expit", "tanh", "leaky_relu", "elu", "softplus")
_NAMES = frozenset((*_SECANT, *SOFTMAX, *POOLS))


class ActivationRules(RuleSet):
    """The rules of `"complete"` for a few operations, and ordinary gradients elsewhere.

    ReLU, Sigmoid, Tanh, LeakyReLU, ELU and Softplus have their secant slope, max pools the winner rule and softmax the
    log-mean rule, as modules, functions or methods.
    """

    complete = False

    def __init__(self) -> None:
        self._rules = CompleteRules()

    @override
    def meet(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meeting | None:
        name = shared_name(func)
        if name in DRAWS:
            return draw(name, func, args, kwargs)
        return self._rules.meet(func, args, kwargs) if name in _NAMES else None

    @override
    def apply(self, call: Call, note: Note) -> tuple[Any, str]:
        return self._rules.apply(call, note)
