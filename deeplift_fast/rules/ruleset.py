"""The interface of a rule set, and the way that it treats a call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from deeplift_fast.rules.call import Arguments, Call, is_floating, leaves, named_in_place

Note = Callable[[str, str, Tensor], None]


@dataclass(slots=True)
class Meeting:
    """The treatment of a call; nobody writes to it.

    Attributes:
        name: the operation's name.
        in_place: whether the result is written to the first argument.
        arguments: the call's arguments, without `inplace`.
        func: the operation, not in place.
        linear: whether its own gradient is exact if nothing but its tensors differs between the streams.
        of_one: whether that holds if one tensor alone depends on the inputs, and nothing else differs.
        written_out: a function to run in its place in both streams, or `None`.
        whole: whether `deeplift_fast.rules.layers` may have a rule for it, so that `written_out` runs only if not.
        draw: whether its result is random and depends on its tensors.
    """

    name: str
    in_place: bool = False
    arguments: Arguments = field(default_factory=lambda: Arguments((), {}, [], []))
    func: Callable[..., Any] = lambda: None
    linear: bool = False
    written_out: Callable[..., Any] | None = None
    draw: bool = False
    whole: bool = False
    of_one: bool = False


def draw(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meeting | None:
    """The treatment of a random operation; `None` if it depends on no tensor besides the one that it fills."""
    in_place = named_in_place(func)
    depends = any(is_floating(leaf) for leaf in leaves((args[1:] if in_place else args, kwargs)))
    return Meeting(name, in_place, draw=True) if depends else None


class RuleSet(Protocol):
    """The choice of a rule for each operation.

    Attributes:
        complete: whether every operation has a rule, so that nothing is rescaled.
    """

    complete: bool

    def meet(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meeting | None:
        """The treatment of a call; `None` runs it without a rule."""
        ...

    def apply(self, call: Call, note: Note) -> tuple[Any, str]:
        """The operation's result, with multipliers for the backward pass, and the name of the rule."""
        ...
