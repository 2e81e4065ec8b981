"""What a rule set is to the interpreter."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from deeplift_fast.rules.call import Arguments, Call, is_floating, leaves, named_in_place

Note = Callable[[str, str, Tensor], None]


@dataclass(frozen=True, slots=True)
class Meeting:
    """How a rule set treats a call.

    Attributes:
        name: the operation's.
        in_place: whether the result is written to the first argument.
        arguments: the call's, without `inplace`.
        func: the operation, not in place.
        linear: whether its own gradient is exact as long as nothing but its tensors differs between the streams.
        written_out: what to run in its place in both streams, if anything.
        draw: whether its result is random and depends on its tensors.
    """

    name: str
    in_place: bool = False
    arguments: Arguments = field(default_factory=lambda: Arguments((), {}, [], []))
    func: Callable[..., Any] = lambda: None
    linear: bool = False
    written_out: Callable[..., Any] | None = None
    draw: bool = False


def draw(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meeting | None:
    """How to treat a random operation: a draw to share if it depends on tensors beside the one that it fills."""
    in_place = named_in_place(func)
    depends = any(is_floating(leaf) for leaf in leaves((args[1:] if in_place else args, kwargs)))
    return Meeting(name, in_place, draw=True) if depends else None


class RuleSet(Protocol):
    """Which operations get a rule, and which."""

    complete: bool

    def meet(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meeting | None:
        """How to treat a call; `None` to run it as it is, without a partner at the baseline."""
        ...

    def apply(self, call: Call, note: Note) -> tuple[Any, str]:
        """The operation's result with its multipliers attached, and the name of the rule."""
        ...
