"""Attribution to the input or the output of a module inside a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from deeplift_fast.core import targets
from deeplift_fast.core.attribution import Context, explain
from deeplift_fast.core.baselines import require_finite, resolve
from deeplift_fast.core.bypass import POSITION, BypassRules, position
from deeplift_fast.core.cut import Place, check_calls, value_at, versions, watched
from deeplift_fast.core.diagnostics import BYPASS, Report, Row
from deeplift_fast.core.intercept import Draws, Pass, check_model
from deeplift_fast.core.isolation import Kept, ShadowState, isolated
from deeplift_fast.core.layer_tensors import Form
from deeplift_fast.core.options import RULES, Options
from deeplift_fast.core.result import Attribution
from deeplift_fast.core.segments import repeated
from deeplift_fast.core.streams import Streams, found_at
from deeplift_fast.core.targets import Target
from deeplift_fast.errors import ArgumentTypeError, ArgumentValueError, InterceptionError, NoPathError
from deeplift_fast.ops.precision import in_full_precision
from deeplift_fast.rules.rescale import RescaleRules
from deeplift_fast.rules.ruleset import RuleSet


@dataclass(frozen=True)
class Run:
    """A model with everything that its runs at the input and at the baseline share.

    Attributes:
        model: the module or callable.
        modules: the modules that run inside it.
        inputs: its first positional arguments, `[batch, …]`, of any dtype.
        baselines: in the same shapes and dtypes.
        further: its further positional arguments.
    """

    model: Callable[..., Any]
    modules: tuple[nn.Module, ...]
    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    further: tuple[Any, ...]

    @property
    def batch(self) -> int:
        """The number of samples."""
        return len(self.inputs[0])

    def plainly(self, act: Callable[[Callable[[], Any]], Any], ends: Sequence[tuple[Tensor, ...]]) -> list[Any]:
        """Call `act` with a run of the model at each end, without rules and side effects; its results."""
        given = pytree.tree_leaves((self.inputs, self.baselines, self.further))
        tensors = [each for each in given if isinstance(each, Tensor)]
        devices = {each.device for each in tensors if each.is_cuda}
        draws, found = Draws(), []
        with torch.inference_mode(False), torch.no_grad(), isolated(self.modules, devices) as rewind:
            kept = Kept([*self.modules, *tensors])
            for inputs in ends:
                draws.start()
                with Pass(RescaleRules(), ShadowState(kept), draws=draws):
                    found.append(act(lambda given=inputs: self.model(*given, *self.further)))  # type: ignore[misc]
                draws.replaying = True  # draws that depend on data are those of the first end
                rewind()
        return found


def checked_run(
    model: Callable[..., Any],
    modules: tuple[nn.Module, ...],
    inputs: tuple[Tensor, ...],
    baselines: Sequence[Tensor | Real | None],
    further: tuple[Any, ...],
) -> Run:
    """A run whose inputs may be tokens.

    Args:
        model: the module or callable.
        modules: the modules that run inside it.
        inputs: its first positional arguments, `[batch, …]`, of any dtype.
        baselines: for each, as :func:`deeplift_fast.core.baselines.resolve`; integers for an integer input.
        further: its further positional arguments.

    Returns:
        The run, with full baselines.

    Raises:
        ValueError, TypeError: for an input or a baseline that does not fit.
    """
    check_model(model, modules)
    for number, x in enumerate(inputs):
        if x.dim() == 0:
            raise ArgumentValueError(f"input {number} has no dimensions; its first must be the batch")
        require_finite(f"input {number}", x)
    sizes = [len(x) for x in inputs]
    if len(set(sizes)) > 1:
        raise ArgumentValueError(f"inputs differ in batch size (the first dimension): {sizes}; accepted: one size")
    found = tuple(_baseline(n, x, x0) for n, (x, x0) in enumerate(zip(inputs, baselines, strict=True)))
    return Run(model, modules, tuple(x.detach() for x in inputs), found, further)


def _baseline(number: int, x: Tensor, baseline: Tensor | Real | None) -> Tensor:
    if not x.is_floating_point():
        whole = not isinstance(baseline, Real) or float(baseline).is_integer()
        if not whole or (isinstance(baseline, Tensor) and baseline.is_floating_point()):
            given = baseline.dtype if isinstance(baseline, Tensor) else baseline
            raise ArgumentTypeError(
                f"the baseline of input {number} is {given}, and the input {x.dtype}; accepted: integers"
            )
    return resolve(number, x, baseline)


@dataclass(frozen=True)
class Layer:
    """A layer that is attributed to.

    Attributes:
        place: its place in the model.
        zeros_if_unused: whether a layer without influence has contributions of 0; otherwise it is an error.
        form: its structure, if it is known from a batch of other samples.
    """

    place: Place
    zeros_if_unused: bool = False
    form: Form | None = None


@dataclass(frozen=True)
class AtLayer:
    """An attribution to a layer.

    Attributes:
        found: the attribution; its tensors are tuples, batch first. The report names what bypasses the layer.
        values: the layer's tensors at the input, batch first.
        values0: the layer's tensors at the baseline, batch first.
        form: the layer's structure.
    """

    found: Attribution
    values: tuple[Tensor, ...]
    values0: tuple[Tensor, ...]
    form: Form


@in_full_precision
def explain_layer(run: Run, layer: Layer, target: Target, options: Options, rule_set: RuleSet | None = None) -> AtLayer:
    """DeepLIFT contributions of a layer's input or output to the model's output.

    The sum of the contributions is `f(x) − f(x0)` if every path from the inputs to the output goes through the layer.
    Under `"complete"` the report names the operations in which other paths meet it, with their parts; the convergence
    delta is minus the output's difference along these paths.

    Args:
        run: the model, its inputs and baselines.
        layer: the layer.
        target: as for :func:`deeplift_fast.attribute`.
        options: rule set, steps and tolerance. Steps divide the line between the layer's values.
        rule_set: replaces the rule set that the options name.

    Returns:
        The attribution.

    Raises:
        ValueError, TypeError: for a layer that is not called or is called several times, and for other arguments that
            do not fit; the message names them.
        InterceptionError: if the output does not depend on the layer.
    """
    place = layer.place
    value, value0, number = _values(run, place)
    form = layer.form or Form.of(place, value, value0, run.batch, lambda: _of_doubled(run, place))
    xs, x0s = form.tensors(value), form.tensors(value0)
    one = torch.ones(run.batch, dtype=torch.float64, device=next(iter(xs.values())).device)
    ends = {**xs, POSITION: one}, {**x0s, POSITION: torch.zeros_like(one)}
    rules = rule_set or RULES[options.rules]()
    arguments = (*run.inputs, *run.baselines, *run.further)
    if rules.complete:
        rules = BypassRules(rules, next(iter(form.axes.values())))
    context = Context(arguments, run.modules, rules)
    rest = _Rest(run, place, number, form)
    try:
        found = explain(rest, *ends, target, options, context)
    except NoPathError as error:
        if not layer.zeros_if_unused:
            raise InterceptionError(_UNUSED.format(place=place)) from error
        found = _without_influence(rest, ends, target, context)
    if rest.written and run.batch:
        _require_the_models_output(run, place, found, target)
    return AtLayer(_of_layer(found), tuple(xs.values()), tuple(x0s.values()), form)


def _values(run: Run, place: Place) -> tuple[Any, Any, int]:
    """The layer's value at the input and at the baseline, and the number of its call."""
    (value, number), (value0, number0) = run.plainly(lambda once: value_at(place, once), (run.inputs, run.baselines))
    if number != number0:
        raise ArgumentValueError(
            f"layer {place.name!r} is called {number + 1} time(s) at the input and {number0 + 1} at the baseline; "
            "name a call that both have: call=0, 1, …"
        )
    return value, value0, number


def _of_doubled(run: Run, place: Place) -> Any:
    """The layer's value for every sample twice; `None` if the model fails on such a batch."""
    inputs = tuple(torch.cat([x, x]) for x in run.inputs)
    twice = replace(run, inputs=inputs, further=repeated(run.further, run.batch, 2))
    try:
        return twice.plainly(lambda once: value_at(place, once)[0], (inputs,))[0]
    except Exception:  # such as a further argument that has as many rows as the batch, but not those of its samples
        return None


EVERYTHING = "(everything)"
_UNUSED = (
    "the output at the target does not depend on {place} through PyTorch's operations with gradients; accepted: a "
    'layer that the target uses, or grad_kwargs={{"materialize_grads": True}} for contributions of 0'
)


class _Rest:
    """The model as a function of a layer's tensors; its inputs are those of the position."""

    def __init__(self, run: Run, place: Place, number: int, form: Form) -> None:
        self._run, self._place, self._number, self._form = run, place, number, form
        self.written = False  # whether the layer's value was written to, so that tensors with its memory may differ

    def __call__(self, *given: Any, **values: Tensor) -> Any:
        where = position(values[POSITION])
        count = len(self._run.inputs)
        ends = zip(given[:count], given[count : 2 * count], strict=True)
        with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            where = where.detach()  # here, since rules see through it elsewhere
            inputs = [_at(where, x, x0) for x, x0 in ends]

        replaced: list[Any] = []

        def act(number: int, value: Any) -> Any:
            if number != self._number:
                return value
            replaced.extend((value, self._form.given(value, values)))
            before.extend(versions(replaced))
            return replaced[1]

        before: list[int | None] = []
        with watched(self._place, act) as calls:
            output = self._run.model(*inputs, *given[2 * count :])
        check_calls(self._place, calls.count)
        self.written = self.written or versions(replaced) != before
        return output


def _at(where: Tensor, x: Tensor, x0: Tensor) -> Tensor:
    """An input at the position of each row; tokens are at the baseline only at position 0."""
    if bool((where == 1).all()):
        return x
    rows = where.to(x.device).reshape(-1, *[1] * (x.dim() - 1))
    if not x.is_floating_point():
        return torch.where(rows > 0, x, x0)
    between = torch.lerp(x0, x, rows.to(x.dtype))
    return torch.where(rows == 1, x, torch.where(rows == 0, x0, between))


def _require_the_models_output(run: Run, place: Place, found: Attribution, target: Target) -> None:
    """Raise `InterceptionError` if the model has another output where the layer keeps its own tensor."""
    chosen = target if callable(target) else found.target

    def at_target(once: Callable[[], Any]) -> Tensor:
        output = targets.reduce(once(), chosen, run.batch)
        return targets.select(output, targets.indices(output, chosen))

    plain = run.plainly(at_target, (run.inputs, run.baselines))
    for ours, output in zip((found.output, found.baseline_output), plain, strict=True):
        dtype = torch.bfloat16 if torch._C._is_any_autocast_enabled() else output.dtype
        if (output - ours).abs().gt(torch.finfo(dtype).eps ** 0.5 * output.abs().max()).any():
            raise InterceptionError(
                f"the model writes to the memory of {place}, which other tensors share, such as views; attribution "
                "cannot put another tensor there: attribute to another layer, or let the model write to a copy"
            )


def _of_layer(found: Attribution) -> Attribution:
    """An attribution without the position, whose part becomes that of the convergence delta."""
    contributions: Mapping[str, Tensor] = {key: c for key, c in found.contributions.items() if key != POSITION}
    multipliers = tuple(m for key, m in found.multipliers.items() if key != POSITION)
    delta = found.convergence_delta - found.contributions[POSITION].to(found.convergence_delta.dtype)
    report = found.report.without(POSITION).of(contributions.values(), found.output, found.baseline_output)
    return replace(
        found,
        contributions=tuple(contributions.values()),
        multipliers=multipliers,
        convergence_delta=delta,
        report=report,
    )


def _without_influence(at: _Rest, ends: Any, target: Target, context: Context) -> Attribution:
    """Contributions of 0, with the outputs of plain runs."""
    xs, x0s = ends
    modules = tuple(context.modules or ())
    streams = Streams(at, context.forward_args, True, target, len(xs[POSITION]), RescaleRules(), modules)
    streams.target = streams.settled_target(xs)
    zeros = {name: torch.zeros_like(x) for name, x in xs.items()}
    found = found_at(zeros, zeros, (streams.output(xs), streams.output(x0s)), None)
    delta = float(found.convergence_delta.double().sum())
    return replace(found, report=Report((Row(EVERYTHING, BYPASS, 1, delta, 1.0),), delta))
