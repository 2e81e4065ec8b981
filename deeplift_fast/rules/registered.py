"""Registered rules: those that users add."""

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from deeplift_fast.rules.call import shared_name

ACCEPTED = ("linear", "elementwise", "bilinear", "quadrature", "gradient")

WRITTEN_OUT: dict[str, Callable[..., Any]] = {}
KINDS: dict[str, str] = {}


def register_rule(fn: Any, rule: str | Callable[..., Any] | None = None) -> Any:
    """Register an operation's rule under `rules="complete"`, in place of quadrature or of its own rule.

    Args:
        fn: the operation that the model calls: a function, tensor method or operator of PyTorch, an operator of another
            library (`torch.ops.library.name`, or the result of `torch.library.custom_op`), or a subclass of
            `torch.autograd.Function`. The rule holds for every form that shares the name (`torch.exp`, `Tensor.exp`,
            `Tensor.exp_`).
        rule: one of

            - a function with the signature of `fn`, which runs in its place in both streams. Written in operations with
              rules, it is complete by construction;
            - `"linear"`: its own gradient is exact;
            - `"elementwise"`: the secant slope `Δy/Δx`, for a function of one tensor, element by element;
            - `"bilinear"`: each operand's multiplier uses the mean of the other, for operations of degree two;
            - `"quadrature"`: the average of its VJP on the line from baseline to input, for smooth operations;
            - `"gradient"`: its gradient at the input, named in the report.

            Without `rule`, `register_rule(fn)` is a decorator for such a function.

    Returns:
        `rule`, or the decorator.

    Raises:
        TypeError: if `rule` is neither a function nor a name; if `fn` is a plain Python function, whose calls PyTorch
            does not intercept. It needs no rule, since the operations that it calls have rules.
        ValueError: if `rule` names no rule.

    Example:
        >>> import torch
        >>> from deeplift_fast import register_rule, unregister_rule
        >>> @register_rule(torch.special.log_ndtr)
        ... def log_ndtr(x):
        ...     return torch.log(torch.special.ndtr(x))
        >>> unregister_rule(torch.special.log_ndtr)
    """
    if rule is None:
        return lambda written_out: register_rule(fn, written_out)
    name = _name(fn)
    if isinstance(rule, str):
        if rule not in ACCEPTED:
            raise ValueError(f"rule is {rule!r}; accepted: {', '.join(map(repr, ACCEPTED))}, or a function")
        WRITTEN_OUT.pop(name, None)
        KINDS[name] = rule
    elif callable(rule):
        KINDS.pop(name, None)
        WRITTEN_OUT[name] = rule
    else:
        raise TypeError(f"rule is a {type(rule).__name__}; accepted: {', '.join(map(repr, ACCEPTED))}, or a function")
    return rule


def unregister_rule(fn: Any) -> None:
    """Remove a registered rule, so that the operation's own rule holds again.

    Args:
        fn: as for :func:`register_rule`.

    Raises:
        TypeError: as :func:`register_rule`.

    Example:
        >>> import torch
        >>> from deeplift_fast import register_rule, unregister_rule
        >>> register_rule(torch.special.erfcx, "elementwise")
        'elementwise'
        >>> unregister_rule(torch.special.erfcx)
    """
    name = _name(fn)
    WRITTEN_OUT.pop(name, None)
    KINDS.pop(name, None)


def _name(fn: Any) -> str:
    if isinstance(fn, type) and issubclass(fn, torch.autograd.Function):
        return shared_name(_dispatched(fn))
    opened = getattr(fn, "_opoverload", fn)  # of torch.library.custom_op
    if isinstance(opened, OpOverload | OpOverloadPacket):
        return shared_name(opened)
    module = getattr(opened, "__module__", None) or ""
    of_tensor = getattr(opened, "__objclass__", None) is not None
    if not callable(opened) or not (of_tensor or module.partition(".")[0] == "torch"):
        raise TypeError(
            f"fn is {fn!r}, which PyTorch cannot intercept; accepted: a function, tensor method or operator of "
            "PyTorch, an operator made with torch.library.custom_op, or a torch.autograd.Function class (a plain "
            "Python function needs no rule, since the operations that it calls have rules)"
        )
    return shared_name(opened)


def _dispatched(kind: type[torch.autograd.Function]) -> Callable[..., Any]:
    """The class's `apply`, replaced by one that a `TorchFunctionMode` can intercept."""
    found = vars(kind).get("apply")
    if isinstance(found, staticmethod) and hasattr(found.__func__, "_shown"):
        return found.__func__
    own = kind.apply

    def apply(*args: Any, **kwargs: Any) -> Any:
        if torch.overrides.has_torch_function(args):
            return torch.overrides.handle_torch_function(apply, args, *args, **kwargs)
        return own(*args, **kwargs)

    apply._shown = True  # type: ignore[attr-defined]
    apply.__name__ = f"{kind.__module__}.{kind.__qualname__}".replace(".", "::")
    kind.apply = staticmethod(apply)  # type: ignore[method-assign,assignment]
    return apply
