"""Routes the calls of a running model to rules, without a change to the model.

The two streams are two passes under a thread-local `TorchFunctionMode`. The first pass keeps the arguments of each
call. The second pass meets the same calls in the same order, and runs rules on the arguments of both streams instead.
"""

import difflib
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Self, override

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.overrides import TorchFunctionMode

from deeplift_fast.core.diagnostics import OPTIONS, UNPAIRED, Tally
from deeplift_fast.core.isolation import ShadowState, modules_in
from deeplift_fast.core.shared_rows import SharedRows, evades
from deeplift_fast.errors import Diverged, InterceptionError, InterceptionWarning, warn
from deeplift_fast.rules import layers
from deeplift_fast.rules.call import Arguments, Call, is_floating, mapped, same_choices, still
from deeplift_fast.rules.ruleset import Meeting, RuleSet


class IsolatedPass(TorchFunctionMode):
    """Runs a model without rules, on stand-ins for its own state.

    Args:
        state: stand-ins for tensors that must not change.
    """

    def __init__(self, state: ShadowState) -> None:
        super().__init__()
        self._state = state

    @override
    def __enter__(self) -> Self:
        """Begin, unless PyTorch shows no operation to any mode."""
        if torch._C._is_torch_function_all_disabled():
            raise InterceptionError(
                "attribution was called within torch._C.DisableTorchFunction(), where PyTorch hides all operations "
                "from it; call it outside"
            )
        return super().__enter__()  # type: ignore[no-any-return]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func` on stand-ins; see :class:`torch.overrides.TorchFunctionMode`."""
        args, kwargs = self._state.substitute(func, args, kwargs or {})
        return func(*args, **kwargs)


class _Record:
    """A call's arguments in the first stream."""

    __slots__ = ("arguments", "name", "shapes", "versions")

    def __init__(self, meeting: Meeting, copy: bool) -> None:
        arguments = meeting.arguments
        self.name = meeting.name
        self.shapes = _shapes(arguments)
        if meeting.linear and not (arguments.choices and _is_chosen(arguments)):
            # Its gradient is exact for any values, unless a tensor without a gradient differs between the streams.
            arguments = Arguments((), {}, [t.detach() for t in _others(meeting)], arguments.choices)
        elif copy or meeting.in_place or any(map(Tensor.is_inference, arguments.floats)):
            arguments = _changed(arguments, lambda t: t.detach().clone())
        elif torch.is_grad_enabled():
            arguments = _changed(arguments, Tensor.detach)
        self.arguments = arguments
        self.versions = _versions(arguments)

    def intact(self) -> bool:
        """Whether no argument was overwritten since."""
        return self.versions == _versions(self.arguments)

    def signature(self) -> tuple[Any, ...]:
        return self.name, self.shapes

    def describe(self, with_dtypes: bool = False) -> str:
        return _shown(self.name, self.shapes, with_dtypes)


def _others(meeting: Meeting) -> list[Tensor]:
    """The tensors of a linear operation that may differ between the streams without a gradient."""
    floats = meeting.arguments.floats
    return floats[1:] if meeting.in_place else floats if len(floats) > 1 else []


def _shown(name: str, shapes: tuple[Any, ...], with_dtypes: bool = False) -> str:
    each = [f"{tuple(shape)} ({dtype})" if with_dtypes else str(tuple(shape)) for shape, dtype in shapes]
    return f"{name} of shape {', '.join(each)}"


def _shapes(arguments: Arguments) -> tuple[Any, ...]:
    return tuple([(t.shape, t.dtype) for t in arguments.floats])


def _is_chosen(arguments: Arguments) -> bool:
    return any(isinstance(choice, Tensor) for choice in arguments.choices)


def _versions(arguments: Arguments) -> list[int]:
    """How often each tensor was written to; −1 for tensors of inference mode, which do not count."""
    tensors = arguments.floats
    if arguments.choices:
        tensors = [*tensors, *[choice for choice in arguments.choices if isinstance(choice, Tensor)]]
    return [-1 if t.is_inference() else t._version for t in tensors]


def _changed(arguments: Arguments, change: Callable[[Tensor], Tensor]) -> Arguments:
    args, kwargs = mapped(lambda leaf: change(leaf) if is_floating(leaf) else leaf, (arguments.args, arguments.kwargs))
    return Arguments.of(args, kwargs)


class Records:
    """The calls of a pass, in order.

    Args:
        copy: whether to keep copies, for a model that overwrites arguments after a call.
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
        """Whether no kept argument was overwritten."""
        return all(record is None or record.intact() for record in self._calls)

    def partner(self, meeting: Meeting) -> Arguments | None:
        """Take the arguments of the next call's partner; `None` if it has none.

        Raises:
            Diverged: if the next record is of another operation or shape, and :meth:`align` was not called.
        """
        position = self._position
        self._position += 1
        if self._partners is not None:
            if position not in self._partners:
                return None
            position = self._partners[position]
        record = self._calls[position] if position < len(self._calls) else None
        name, shapes = meeting.name, _shapes(meeting.arguments)
        if record is None or record.name != name or record.shapes != shapes:
            alike = record is not None and record.describe() == _shown(name, shapes)  # the dtypes differ
            raise Diverged(position, _shown(name, shapes, alike), record.describe(alike) if record else "no activation")
        self._calls[position] = None  # no later call needs this record
        return record.arguments

    def finish(self) -> None:
        """Raise `Diverged` if calls are left over."""
        if self._partners is None and self._position < len(self._calls):
            record = self._calls[self._position]
            raise Diverged(self._position, "no activation", record.describe() if record else "no activation")

    def align(self, other: "Records") -> None:
        """Pair these calls with those of the other stream; calls in one stream alone stay without a partner."""
        ours = [record.signature() if record else None for record in self._calls]
        theirs = [record.signature() if record else None for record in other._calls]
        blocks = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
        self._partners = {b.b + i: b.a + i for b in blocks for i in range(b.size)}
        self._position = 0


class Draws:
    """Random results that depend on data; every run uses those of the first."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.replaying = False
        self._position = 0

    def start(self) -> None:
        """Begin a run."""
        self._position = 0

    def take(self, drawn: Any) -> Any:
        """Keep a result of the first run, or replace this run's by it."""
        if not self.replaying:
            self.found.append(drawn.detach().clone())
            return drawn
        kept = self.found[self._position] if self._position < len(self.found) else None
        self._position += 1
        return drawn if kept is None or kept.shape != drawn.shape else kept.clone()


# Getters whose values a stand-in shares: models, and PyTorch's own layers, ask for them more often than they compute.
_FACTS = frozenset(
    getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "is_cpu", "is_cuda", "is_nested")
)


class Pass(IsolatedPass):
    """Runs the model at one point, keeps its calls, and puts rules in their place.

    Args:
        rules: the rule set.
        state: stand-ins for tensors that must not change.
        keep: filled with the calls of this pass; `None` keeps none.
        partners: the calls of the other stream, which this pass uses up; `None` uses no rules.
        tally: counts operations and rules.
        draws: the random results that all runs share.

    Attributes:
        shared: set for what repeats in this pass, so that it is computed once; `None` computes everything.

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
        self.shared: SharedRows | None = None
        self._draws = draws or Draws()
        self._rules = rules
        self._keep = keep
        self._partners = partners
        self._tally = tally or Tally()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func` or its rule; see :class:`torch.overrides.TorchFunctionMode`."""
        if func in _FACTS:
            return func(*args)
        args, kwargs = self._state.substitute(func, args, kwargs or {})
        meeting = self._rules.meet(func, args, kwargs)
        if self.shared is not None and evades(func):
            self.shared = None
        if meeting is None or kwargs.get("out") is not None:
            return self._plainly(func, args, kwargs)
        if meeting.written_out is not None and not meeting.whole:
            with self:
                found = meeting.written_out(*args, **kwargs)
            return args[0].copy_(found) if meeting.in_place else found
        if meeting.draw:
            with torch.no_grad():
                found = self._draws.take(func(*args, **kwargs))
            return args[0].copy_(found) if meeting.in_place else found
        _require_plain(meeting)
        other = None if self._partners is None else self._partners.partner(meeting)
        if self._keep is not None:
            if self.shared is not None and not meeting.linear:
                meeting.arguments = self.shared.arguments(meeting.arguments)
            self._keep.keep(meeting)
        if not torch.is_grad_enabled():
            return self._plainly(func, args, kwargs)
        if self._partners is None:
            with torch.set_grad_enabled(bool(_moved(meeting.arguments.floats))):  # as in a pass with partners
                return self._plainly(func, args, kwargs)
        return self._apply(meeting, other, func, args, kwargs)

    def _plainly(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation without a rule."""
        if self.shared is None or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        return self.shared.run(func, args, kwargs)

    def _apply(
        self,
        meeting: Meeting,
        other: Arguments | None,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        floats = meeting.arguments.floats
        moved = _moved(floats)
        if not moved:
            if not any(tensor.requires_grad for tensor in floats):
                return func(*args, **kwargs)
            with torch.no_grad():  # a result of parameters alone is the same in both streams
                return func(*args, **kwargs)
        if other is None:
            self._tally.count(meeting.name, UNPAIRED)
            return func(*args, **kwargs)
        if meeting.linear and not other.args:
            return self._linear(meeting, other, func, args, kwargs)
        copies = self._partners is not None and self._partners.copy
        of_one = meeting.of_one and len(moved) == 1 and not meeting.in_place and not copies
        if of_one and _is_fixed(meeting.arguments, other):
            self._tally.count(meeting.name, "linear")
            return func(*args, **kwargs)
        arguments = _changed(meeting.arguments, Tensor.clone) if copies else meeting.arguments
        call = Call.of(meeting.name, meeting.func, arguments, other, moved)
        if meeting.whole:
            return self._whole(meeting, call)
        if meeting.linear and call.fixed:
            self._tally.count(meeting.name, "linear")
            return func(*args, **kwargs)
        found, rule = self._rules.apply(call, self._tally.note)
        self._tally.count(meeting.name, rule)
        return args[0].copy_(found) if meeting.in_place else found

    def _whole(self, meeting: Meeting, call: Call) -> Any:
        """Run a layer by a rule of its own, or operation by operation where none fits."""
        run = layers.run(call, lambda x: self._in_parts(meeting, call, Tally(), {0: x}))
        if run is None:
            return self._in_parts(meeting, call, self._tally)
        found, rule = run
        self._tally.count(call.name, rule)
        return found

    def _in_parts(self, meeting: Meeting, call: Call, tally: Tally, floats: dict[int, Tensor] | None = None) -> Any:
        """Run a layer written out in both streams; `floats` replaces tensors of the input by their index."""
        written_out = meeting.written_out
        assert written_out is not None
        records = Records()
        with torch.no_grad(), Pass(self._rules, self._state, keep=records):
            call.baseline.run(written_out)
        try:
            with Pass(self._rules, self._state, partners=records, tally=tally):
                if floats is not None:
                    return call.actual.run(written_out, floats)
                return written_out(*call.actual.args, **call.actual.kwargs)
        except Diverged:
            tally.count(call.name, UNPAIRED)
            return call.as_it_is()

    def _linear(
        self,
        meeting: Meeting,
        other: Arguments,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a linear operation whose record holds only the tensors that may differ without a gradient."""
        ours, name = meeting.arguments, meeting.name
        if still(_others(meeting), other.floats) and same_choices(ours.choices, other.choices):
            self._tally.count(name, "linear")
            return func(*args, **kwargs)
        if len(other.floats) < len(ours.floats) or len(other.choices) != len(ours.choices):
            self._tally.count(name, OPTIONS)
            return func(*args, **kwargs)
        baseline = ours.with_leaves(other.floats, other.choices)
        call = Call(name, meeting.func, ours, baseline, _moved(ours.floats), False)
        found, rule = self._rules.apply(call, self._tally.note)
        self._tally.count(name, rule)
        return found


def _is_fixed(ours: Arguments, theirs: Arguments) -> bool:
    """Whether the streams differ only in tensors with a gradient."""
    return still(ours.floats, theirs.floats) and same_choices(ours.choices, theirs.choices)


def _moved(floats: list[Tensor]) -> list[int]:
    """The indices of the tensors that depend on the attributed inputs.

    A leaf that needs a gradient is a parameter. The attributed inputs are clones, so no leaves.
    """
    return [index for index, tensor in enumerate(floats) if tensor.requires_grad and not tensor.is_leaf]


_STRIDED = torch.strided
_is_transformed = torch._C._functorch.is_functorch_wrapped_tensor
_transforms = torch._C._functorch.peek_interpreter_stack


def _require_plain(meeting: Meeting) -> None:
    inside = _transforms() is not None  # outside of a transform there are no transformed tensors
    for x in meeting.arguments.floats:
        if x.is_nested or x.layout is not _STRIDED or (inside and _is_transformed(x)):
            kind = "sparse or nested" if x.is_nested or x.layout is not _STRIDED else "transformed"
            raise InterceptionError(
                f"{meeting.name} is called on a {kind} tensor; accepted: plain dense tensors, without torch.func "
                "transforms. Write this part of the model with them"
            )


_SPECIAL = (nn.DataParallel, LazyModuleMixin, torch.jit.ScriptModule)


def _are_plain(modules: list[nn.Module]) -> bool:
    """Whether :func:`check_model` has to look at none of the modules."""
    kinds = set(map(type, chain.from_iterable([module.__dict__.values() for module in modules])))
    special = any(issubclass(kind, _SPECIAL) for kind in set(map(type, modules)))
    return not special and torch.jit.ScriptFunction not in kinds


def check_model(model: Callable[..., Any], modules: Iterable[nn.Module]) -> None:
    """Find parts of a model whose operations cannot be intercepted.

    Args:
        model: the module or callable.
        modules: the modules that run inside it.

    Raises:
        InterceptionError: for uninitialised lazy modules and for `DataParallel` over several devices.

    Warns:
        InterceptionWarning: for scripted code.
    """
    scripted: list[Any] = [model.name] if isinstance(model, torch.jit.ScriptFunction) else []
    for root in modules:
        if _are_plain(modules_in(root)):
            continue
        inside: str | None = None
        for name, module in root.named_modules():
            shown = name or type(module).__name__
            if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
                raise InterceptionError(f"module {shown!r} is a DataParallel over several devices; pass its .module")
            if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
                raise InterceptionError(f"module {shown!r} is lazy and has no weights yet; run the model once before")
            if inside is not None and f"{name}.".startswith(inside):
                continue
            if isinstance(module, torch.jit.ScriptModule):
                inside = f"{name}." if name else ""
                scripted.append(name or module.original_name)
            functions = [key for key, value in vars(module).items() if isinstance(value, torch.jit.ScriptFunction)]
            scripted.extend(f"{name}.{key}" if name else key for key in functions)
    if scripted:
        warn(
            f"scripted code cannot be intercepted and is attributed by its gradient: {', '.join(scripted)}; "
            "pass the original modules instead",
            InterceptionWarning,
        )
