"""Routes a model's calls to rules while it runs, wherever it makes them; the model itself is not touched.

Two streams, in two passes of one thread-local `TorchFunctionMode`: the first keeps each call's arguments in the order
of the calls; the second meets the same calls in the same order and puts rules, fed with both streams, in their place.
"""

import difflib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.overrides import TorchFunctionMode

from deeplift_fast.core.diagnostics import OPTIONS, UNPAIRED, Tally
from deeplift_fast.core.isolation import ShadowState
from deeplift_fast.errors import Diverged, InterceptionError, InterceptionWarning, warn
from deeplift_fast.rules.call import Arguments, Call, is_floating, mapped, same_choices, still
from deeplift_fast.rules.ruleset import Meeting, RuleSet


class IsolatedPass(TorchFunctionMode):
    """Runs a model as it is, with its own state kept apart.

    Args:
        state: stand-ins for what must not change.
    """

    def __init__(self, state: ShadowState) -> None:
        super().__init__()
        self._state = state

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run `func`, or what stands in for it; see :class:`torch.overrides.TorchFunctionMode`."""
        args, kwargs = self._state.substitute(func, args, kwargs or {})
        return func(*args, **kwargs)


class _Record:
    """A call's arguments in the stream that ran first."""

    __slots__ = ("arguments", "name", "shapes", "versions")

    def __init__(self, meeting: Meeting, copy: bool) -> None:
        arguments = meeting.arguments
        self.name = meeting.name
        self.shapes = _shapes(arguments)
        if meeting.linear and not _is_chosen(arguments):
            # Its gradient is exact whatever its tensors hold, unless one that has none differs.
            arguments = Arguments((), {}, [t.detach() for t in _others(meeting)], arguments.choices)
        elif copy or meeting.in_place or any(t.is_inference() for t in arguments.floats):
            arguments = _changed(arguments, lambda t: t.detach().clone())
        elif torch.is_grad_enabled():
            arguments = _changed(arguments, Tensor.detach)
        self.arguments = arguments
        self.versions = [None if t.is_inference() else t._version for t in _tensors(arguments)]

    def intact(self) -> bool:
        """Whether nothing was written to since."""
        now = (None if t.is_inference() else t._version for t in _tensors(self.arguments))
        return all(a == b for a, b in zip(self.versions, now, strict=True))

    def signature(self) -> tuple[Any, ...]:
        return self.name, self.shapes

    def describe(self) -> str:
        return f"{self.name} of shape {', '.join(str(shape) for shape, _ in self.shapes)}"


def _others(meeting: Meeting) -> list[Tensor]:
    """The tensors of a linear operation that could differ between the streams and have no gradient to show for it."""
    floats = meeting.arguments.floats
    return floats[1:] if meeting.in_place else floats if len(floats) > 1 else []


def _shapes(arguments: Arguments) -> tuple[Any, ...]:
    return tuple((tuple(t.shape), t.dtype) for t in arguments.floats)


def _is_chosen(arguments: Arguments) -> bool:
    return any(isinstance(choice, Tensor) for choice in arguments.choices)


def _tensors(arguments: Arguments) -> list[Tensor]:
    return [*arguments.floats, *(choice for choice in arguments.choices if isinstance(choice, Tensor))]


def _changed(arguments: Arguments, change: Callable[[Tensor], Tensor]) -> Arguments:
    args, kwargs = mapped(lambda leaf: change(leaf) if is_floating(leaf) else leaf, (arguments.args, arguments.kwargs))
    return Arguments.of(args, kwargs)


class Records:
    """What a pass kept of each call, in order.

    Args:
        copy: whether to keep copies, for a model that writes to a call's arguments after it.
    """

    def __init__(self, copy: bool = False) -> None:
        self.copy = copy
        self._calls: list[_Record | None] = []
        self._position = 0
        self._partners: dict[int, int] | None = None

    def keep(self, meeting: Meeting) -> None:
        """Append a call."""
        self._calls.append(_Record(meeting, self.copy))

    def intact(self) -> bool:
        """Whether no argument was written to after it was kept."""
        return all(record is None or record.intact() for record in self._calls)

    def partner(self, meeting: Meeting) -> Arguments | None:
        """The arguments of the next call's partner, which is then forgotten; `None` if it has none.

        Raises:
            Diverged: if the next call is another one, and :meth:`align` has not paired the two streams.
        """
        position = self._position
        self._position += 1
        if self._partners is not None:
            if position not in self._partners:
                return None
            position = self._partners[position]
        record = self._calls[position] if position < len(self._calls) else None
        if record is None or record.signature() != (meeting.name, _shapes(meeting.arguments)):
            shapes = ", ".join(str(tuple(t.shape)) for t in meeting.arguments.floats)
            raise Diverged(
                position, f"{meeting.name} of shape {shapes}", record.describe() if record else "no activation"
            )
        self._calls[position] = None  # frees the memory: nothing asks for it again
        return record.arguments

    def finish(self) -> None:
        """Raise `Diverged` if calls are left over."""
        if self._partners is None and self._position < len(self._calls):
            record = self._calls[self._position]
            raise Diverged(self._position, "no activation", record.describe() if record else "no activation")

    def align(self, other: "Records") -> None:
        """Pair these calls with those of the other stream, of which some have no partner."""
        ours = [record.signature() if record else None for record in self._calls]
        theirs = [record.signature() if record else None for record in other._calls]
        blocks = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
        self._partners = {b.b + i: b.a + i for b in blocks for i in range(b.size)}
        self._position = 0


class Draws:
    """Random results that depend on data: the first run's, for every run."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.replaying = False
        self._position = 0

    def start(self) -> None:
        """Begin a run."""
        self._position = 0

    def take(self, drawn: Any) -> Any:
        """What to go on with, in place of what this run drew."""
        if not self.replaying:
            self.found.append(drawn.detach().clone())
            return drawn
        kept = self.found[self._position] if self._position < len(self.found) else None
        self._position += 1
        return drawn if kept is None or kept.shape != drawn.shape else kept.clone()


class Pass(IsolatedPass):
    """Runs the model at one point: keeps its calls, or puts rules in their place, or both.

    Args:
        rules: which operations count.
        state: stand-ins for what must not change.
        keep: filled with the calls of this pass.
        partners: the calls of the other stream; used up by this pass.
        tally: counts what the rules did.
        draws: the random results that all runs share.

    Raises:
        Diverged: from within the model's call, if a call has no partner.
    """

    def __init__(
        self,
        rules: RuleSet,
        state: ShadowState,
        keep: Records | None = None,
        partners: Records | None = None,
        tally: Tally | None = None,
        draws: Draws | None = None,
    ) -> None:
        super().__init__(state)
        self._draws = draws or Draws()
        self._rules = rules
        self._keep = keep
        self._partners = partners
        self._tally = tally or Tally()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run `func`, or what stands in for it; see :class:`torch.overrides.TorchFunctionMode`."""
        args, kwargs = self._state.substitute(func, args, kwargs or {})
        meeting = self._rules.meet(func, args, kwargs)
        if meeting is None or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        if meeting.written_out is not None:
            with self:
                found = meeting.written_out(*args, **kwargs)
            return args[0].copy_(found) if meeting.in_place else found
        if meeting.draw:
            with torch.no_grad():
                found = self._draws.take(func(*args, **kwargs))
            return args[0].copy_(found) if meeting.in_place else found
        _require_plain(meeting)
        other = None
        if self._partners is not None:
            other = self._partners.partner(meeting)
        if self._keep is not None:
            self._keep.keep(meeting)
        if self._partners is None or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        return self._apply(meeting, other, func, args, kwargs)

    def _apply(
        self,
        meeting: Meeting,
        other: Arguments | None,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        floats = meeting.arguments.floats
        # A leaf that needs a gradient is a parameter: the inputs are no leaves.
        moved = [index for index, tensor in enumerate(floats) if tensor.requires_grad and not tensor.is_leaf]
        if not moved:
            if not any(tensor.requires_grad for tensor in floats):
                return func(*args, **kwargs)
            with torch.no_grad():  # what is made of parameters alone differs in nothing
                return func(*args, **kwargs)
        if other is None:
            self._tally.count(meeting.name, UNPAIRED)
            return func(*args, **kwargs)
        if meeting.linear and not other.args:
            return self._linear(meeting, other, func, args, kwargs)
        arguments = (
            _changed(meeting.arguments, Tensor.clone)
            if self._partners is not None and self._partners.copy
            else meeting.arguments
        )
        call = Call.of(meeting.name, meeting.func, arguments, other, moved)
        if meeting.linear and call.fixed:
            self._tally.count(meeting.name, "linear")
            return func(*args, **kwargs)
        found, rule = self._rules.apply(call, self._tally.note)
        self._tally.count(meeting.name, rule)
        return args[0].copy_(found) if meeting.in_place else found

    def _linear(
        self,
        meeting: Meeting,
        other: Arguments,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A linear operation of which no more was kept than tells whether something else differs."""
        ours, name = meeting.arguments, meeting.name
        if still(_others(meeting), other.floats) and same_choices(ours.choices, other.choices):
            self._tally.count(name, "linear")
            return func(*args, **kwargs)
        if len(other.floats) < len(ours.floats) or len(other.choices) != len(ours.choices):
            self._tally.count(name, OPTIONS)
            return func(*args, **kwargs)
        moved = [index for index, tensor in enumerate(ours.floats) if tensor.requires_grad and not tensor.is_leaf]
        baseline = ours.with_leaves(other.floats, other.choices)
        found, rule = self._rules.apply(Call(name, meeting.func, ours, baseline, moved, False), self._tally.note)
        self._tally.count(name, rule)
        return found


def _require_plain(meeting: Meeting) -> None:
    for x in meeting.arguments.floats:
        kind = None
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            kind = "transformed"
        elif x.is_nested or x.layout is not torch.strided:
            kind = "sparse or nested"
        if kind:
            raise InterceptionError(
                f"{meeting.name} is called on a {kind} tensor (torch.func transforms, sparse and nested tensors cannot "
                "be looked into); write this part of the model with plain dense tensors"
            )


def check_model(model: Callable[..., Any], modules: Iterable[nn.Module]) -> None:
    """Refuse, or warn of, parts of a model whose activations cannot be met.

    Args:
        model: what is called.
        modules: the modules that run inside it.

    Raises:
        InterceptionError: for uninitialised lazy modules and for `DataParallel` over several devices.
    """
    scripted: list[Any] = [model.name] if isinstance(model, torch.jit.ScriptFunction) else []
    for root in modules:
        inside: str | None = None
        for name, module in root.named_modules():
            shown = name or type(module).__name__
            if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
                raise InterceptionError(f"{shown} is a DataParallel over several devices; pass its .module instead")
            if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
                raise InterceptionError(f"{shown} is a lazy module; run the model once before attributing")
            if inside is not None and f"{name}.".startswith(inside):
                continue
            if isinstance(module, torch.jit.ScriptModule):
                inside = f"{name}." if name else ""
                scripted.append(name or module.original_name)
            functions = [key for key, value in vars(module).items() if isinstance(value, torch.jit.ScriptFunction)]
            scripted.extend(f"{name}.{key}" if name else key for key in functions)
    if scripted:
        warn(
            f"scripted code cannot be looked into and is attributed by its gradient: {', '.join(scripted)}; "
            "pass the modules that it was made from",
            InterceptionWarning,
        )
