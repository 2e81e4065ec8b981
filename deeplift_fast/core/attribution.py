"""Attribution of any module or callable: two streams, multipliers, contributions and convergence delta."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from deeplift_fast.core import baselines as tensor_baselines
from deeplift_fast.core.cancellation import Cancellation
from deeplift_fast.core.completeness import (
    is_exact,
    is_incomplete,
    rescale,
    warn_if_incomplete,
    warn_if_not_finite,
)
from deeplift_fast.core.diagnostics import Report
from deeplift_fast.core.intercept import check_model
from deeplift_fast.core.isolation import warn_if_training
from deeplift_fast.core.options import DELTA_TOL, RULES, Options
from deeplift_fast.core.result import Attribution
from deeplift_fast.core.segments import run_in_batches
from deeplift_fast.core.stateless import is_stateless
from deeplift_fast.core.streams import Streams, Values, own_modules
from deeplift_fast.core.targets import Target
from deeplift_fast.errors import InterceptionWarning, warn
from deeplift_fast.ops.precision import description, in_full_precision
from deeplift_fast.rules.registered import WRITTEN_OUT
from deeplift_fast.rules.ruleset import RuleSet

MIXING_TOL = 1e-4  # part of f(x) - f(x0); a larger convergence delta starts the check for a model that mixes samples

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Baselines = Tensor | Real | Sequence[Tensor | Real | None] | Mapping[str, Tensor | Real | None] | None

_DEFAULT = Options()
__all__ = ["Attribution", "attribute"]


@dataclass(frozen=True)
class Context:
    """The parts of a model's call that do not depend on its inputs.

    Attributes:
        forward_args: further arguments of the model, by position (after the inputs) or by name.
        modules: the modules that run inside the model; `None` if the model is a module or a module's method.
        rule_set: replaces the rule set that the options name.
    """

    forward_args: Sequence[Any] | Mapping[str, Any] = ()
    modules: Sequence[nn.Module] | None = None
    rule_set: RuleSet | None = None


_NO_CONTEXT = Context()


def attribute(
    model: Callable[..., Any],
    inputs: Inputs,
    baselines: Baselines = None,
    target: Target = None,
    *,
    forward_args: Sequence[Any] | Mapping[str, Any] = (),
    rules: str = "rescale",
    steps: int = 1,
    segments_at_once: int = 1,
    delta_tol: float = DELTA_TOL,
    modules: Sequence[nn.Module] | None = None,
) -> Attribution:
    """DeepLIFT contributions of a batch's inputs to a model's output.

    Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences". `"rescale"` uses
    the Rescale rule (eq. 13) for ReLU, Sigmoid and Tanh and ordinary gradients elsewhere. It then scales each sample's
    contributions so that they sum to `f(x) − f(x0)` (eq. 1). `"complete"` uses an exact secant Jacobian for every
    operation, so that contributions reach this sum without scaling.

    Parameters, buffers, `.grad`, hooks, attributes, training flags and random generators stay unchanged, also after an
    exception. In training mode both streams see the same draws.

    Args:
        model: a module, or a callable on the inputs.
        inputs: floating-point tensors `[batch, …]`: one, a sequence (positional), or a mapping (by name).
        baselines: the inputs' baselines, in the same structure: `None` for zeros, a number, or a tensor of the shape of
            the input or of one sample.
        target: the output to explain: `None` for the largest at the input, an int (negative ones count from the end),
            a tuple of ints for outputs of more than two dimensions, one of these per sample (an integer tensor
            `[batch]`, or a list), or a callable from the model's output to `[batch]`.
        forward_args: further arguments of the model: a sequence (after the positional inputs) or a mapping (by name).
        rules: `"rescale"`, `"complete"`, or `"pyhealth"` for PyHealth 2.1's arithmetic.
        steps: number of equal segments of the straight line from baseline to input; their contributions add up. One
            step is DeepLIFT; many approach integrated gradients (Sundararajan et al. 2017). They cost `steps + 1`
            forward passes.
        segments_at_once: number of segments that go through the model as rows of one batch. Each such batch costs two
            forward passes. The model must not mix rows; `forward_args` with one row per sample are repeated.
        delta_tol: under `"complete"`, the part of `f(x) − f(x0)` that a convergence delta may reach without a warning.
        modules: the modules that run inside a callable, so that their state is protected. A module, or the module of a
            method, needs no mention.

    Returns:
        An :class:`Attribution`.

    Raises:
        ValueError, TypeError: for arguments that do not fit; the message names them.
        InterceptionError: if no gradient leads from the output to any input, or the model takes different paths at the
            input and at the baseline. Under `"complete"` the second is no error: operations without a partner keep
            their gradient, and the report names them.

    Warns:
        ConvergenceWarning: if the scale of a sample is negative or very large; if a convergence delta passes
            `delta_tol` under `"complete"`; if an output is NaN or inf.
        TrainingModeWarning: if stochastic modules are in training mode.

    Example:
        >>> found = attribute(torch.nn.Linear(2, 1), torch.ones(3, 2), target=0, rules="complete")
        >>> found.contributions.shape
        torch.Size([3, 2])
    """
    options = Options(rules, steps, delta_tol, segments_at_once)
    return attributed(model, inputs, baselines, target, options, Context(forward_args, modules))


def attributed(
    model: Callable[..., Any],
    inputs: Inputs,
    baselines: Baselines,
    target: Target,
    options: Options,
    context: Context = _NO_CONTEXT,
) -> Attribution:
    """As :func:`attribute`, with its options in one object, and the further parts of the call in another."""
    found = explain(model, inputs, baselines, target, options, context)
    if options.complete or not len(found.output):
        return replace(found, multipliers=None)
    by_name, _ = rescale(_by_name(found.contributions), found.output, found.baseline_output)
    report = found.report.of(by_name.values(), found.output, found.baseline_output)
    return replace(found, contributions=_like(inputs, by_name), report=report, multipliers=None)


@in_full_precision
def explain(
    model: Callable[..., Any],
    inputs: Inputs,
    baselines: Baselines = None,
    target: Target = None,
    options: Options = _DEFAULT,
    context: Context = _NO_CONTEXT,
) -> Attribution:
    """As :func:`attributed`, but never scaled, and with the multipliers."""
    if not callable(model):
        raise TypeError(f"model is a {type(model).__name__}; accepted: a torch.nn.Module or a callable")
    modules = own_modules(model) if context.modules is None else tuple(context.modules)
    xs, x0s = _named(inputs, baselines)
    _check_forward_args(context.forward_args, inputs)
    alone = modules == (model,) and not (callable(target) or context.forward_args or WRITTEN_OUT)
    stateless = alone and is_stateless(model, (*xs.values(), *x0s.values()))
    if not stateless:
        check_model(model, modules)
        warn_if_training(modules)
    batch = _batch_size(xs)
    if batch == 0:
        return _empty(inputs, xs, target)
    rule_set = context.rule_set or RULES[options.rules]()
    by_name = isinstance(inputs, Mapping)
    streams = Streams(model, context.forward_args, by_name, target, batch, rule_set, modules, options.steps, stateless)
    found = _run(streams, xs, x0s, options)
    name = "zeros" if baselines is None else "as given"
    report = streams.tally.report_of(found.report.delta, found.report.rounding)
    cancellation = Cancellation(found.contributions.values(), found.output, found.baseline_output)
    return Attribution(
        _like(inputs, found.contributions),
        found.convergence_delta,
        found.output,
        found.baseline_output,
        _shown(found.target),
        Report(report.rows, report.delta, report.rounding, name, description(found.output.device.type), cancellation),
        name,
        multipliers=_like(inputs, found.multipliers),
    )


def _run(
    streams: Streams, xs: Mapping[Hashable, Tensor], x0s: Mapping[Hashable, Tensor], options: Options
) -> Attribution:
    """The attribution by name, with warnings about its outputs and its completeness."""
    if options.segments_at_once > 1 and options.steps > 1:
        found = run_in_batches(streams, xs, x0s, options.segments_at_once)
    else:
        found = streams.run(xs, x0s)
    if not math.isfinite(found.report.delta):
        warn_if_not_finite(found.output, found.baseline_output)
    if options.complete and not is_exact(found.convergence_delta, found.report.delta):
        if streams.batch > 1 and _mixes(streams, xs, found):
            streams.tally.clear()
            found = streams.run_one_by_one(xs, x0s)
        warn_if_incomplete(found.convergence_delta, found.output, found.baseline_output, options.delta_tol)
    return found


def _mixes(streams: Streams, xs: Values, found: Attribution) -> bool:
    """Whether the model mixes the samples of a batch; checked only if some sample is incomplete."""
    delta = found.convergence_delta
    incomplete = is_incomplete(delta, found.output, found.baseline_output, MIXING_TOL) & delta.isfinite()
    if not incomplete.any() or not streams.mixes_samples(xs):
        return False
    warn(
        f"the model mixes the samples of a batch, so each of the {len(delta)} samples has a run of its own, in which "
        "only this sample moves from its baseline; smaller batches are faster.",
        InterceptionWarning,
    )
    return True


def _named(inputs: Inputs, baselines: Baselines) -> tuple[dict[Hashable, Tensor], dict[Hashable, Tensor]]:
    """Inputs and baselines by name, or by position."""
    if isinstance(inputs, Tensor):
        xs, x0s = {0: inputs}, {0: baselines}
    elif isinstance(inputs, Mapping):
        xs, x0s = dict(inputs), dict.fromkeys(inputs) if baselines is None else baselines  # type: ignore
        if not isinstance(x0s, Mapping) or set(x0s) != set(xs):
            given = (
                f"has the keys {sorted(map(str, x0s))}" if isinstance(x0s, Mapping) else f"is a {type(x0s).__name__}"
            )
            raise ValueError(f"baselines {given}; accepted: a mapping with the keys of inputs, {sorted(map(str, xs))}")
    elif isinstance(inputs, Sequence):
        xs = dict(enumerate(inputs))
        values = [None] * len(xs) if baselines is None else baselines
        if not isinstance(values, Sequence) or len(values) != len(xs):
            size = f" of {len(values)}" if isinstance(values, Sequence) else ""
            raise ValueError(
                f"baselines is a {type(values).__name__}{size}; accepted: a sequence of {len(xs)}, one for each input"
            )
        x0s = dict(enumerate(values))  # type: ignore[arg-type]
    else:
        raise TypeError(f"inputs is a {type(inputs).__name__}; accepted: a tensor, a sequence or a mapping of tensors")
    if not xs:
        raise ValueError("inputs is empty; at least one tensor is needed")
    for name, x in xs.items():
        _check_input(name, x)
    return xs, {name: tensor_baselines.resolve(name, x, x0s[name]) for name, x in xs.items()}  # type: ignore


def _check_input(name: Hashable, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"input {name!r} is a {type(x).__name__}; accepted: a floating-point tensor")
    if not x.is_floating_point():
        raise TypeError(
            f"input {name!r} is {x.dtype}; accepted: a floating-point tensor. For tokens, attribute to their "
            "embedding: deeplift_fast.captum.LayerDeepLift(model, embedding). Pass a mask as a further argument of the "
            "model (forward_args, additional_forward_args), and convert counts with .float()"
        )
    if x.dim() == 0:
        raise ValueError(f"input {name!r} has no dimensions; its first must be the batch")
    tensor_baselines.require_finite(f"input {name!r}", x)


def _check_forward_args(forward_args: Any, inputs: Inputs) -> None:
    if isinstance(forward_args, Mapping):
        twice = sorted(set(forward_args) & set(inputs)) if isinstance(inputs, Mapping) else []
        if twice:
            raise ValueError(f"forward_args holds {', '.join(map(repr, twice))}, which inputs holds too")
    elif not isinstance(forward_args, Sequence) or isinstance(forward_args, str):
        raise TypeError(
            f"forward_args is a {type(forward_args).__name__}; accepted: a sequence, as (mask,), or a mapping by name"
        )


def _batch_size(xs: Mapping[Hashable, Tensor]) -> int:
    sizes = {name: x.shape[0] for name, x in xs.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"inputs differ in batch size (the first dimension): {sizes}; accepted: one size")
    devices = {name: str(x.device) for name, x in xs.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(f"inputs lie on different devices: {devices}; move them to one")
    return next(iter(sizes.values()))


def _empty(inputs: Inputs, xs: Mapping[Hashable, Tensor], target: Target) -> Attribution:
    nothing = next(iter(xs.values())).new_empty(0)
    zeros = _like(inputs, {name: torch.zeros_like(x) for name, x in xs.items()})
    found = None if callable(target) else torch.empty(0, dtype=torch.int64, device=nothing.device)
    return Attribution(zeros, nothing, nothing.clone(), nothing.clone(), found, multipliers=zeros)


def _by_name(values: Any) -> dict[Hashable, Tensor]:
    """Tensors by name or by position; the inverse of :func:`_like`."""
    if isinstance(values, Tensor):
        return {0: values}
    return dict(values) if isinstance(values, Mapping) else dict(enumerate(values))


def _like(inputs: Inputs, values: dict[Hashable, Tensor]) -> Any:
    if isinstance(inputs, Tensor):
        return values[0]
    return values if isinstance(inputs, Mapping) else tuple(values.values())


def _shown(found: Tensor | None) -> Tensor | None:
    if found is None or found.shape[1] == 0:
        return None
    return found.squeeze(1) if found.shape[1] == 1 else found
