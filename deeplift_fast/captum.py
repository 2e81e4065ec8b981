"""DeepLift and DeepLiftShap with Captum's signatures, for any `nn.Module`; Captum itself is not needed."""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core import attribution
from deeplift_fast.core.attribution import Attribution, Context
from deeplift_fast.core.baselines import resolve
from deeplift_fast.core.cancellation import joined
from deeplift_fast.core.completeness import convergence_delta
from deeplift_fast.core.diagnostics import Report, merged
from deeplift_fast.core.options import DELTA_TOL, Options, require_positive
from deeplift_fast.core.streams import Streams, own_modules
from deeplift_fast.core.targets import listed
from deeplift_fast.errors import ArgumentTypeError, ArgumentValueError
from deeplift_fast.ops.precision import in_full_precision
from deeplift_fast.rules.activations import ActivationRules
from deeplift_fast.rules.rescale import RescaleRules

Tensors = Tensor | tuple[Tensor, ...]
Baselines = Tensor | int | float | tuple[Tensor | int | float, ...] | None
Target = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None
AttributionFunction = Callable[..., tuple[Tensor, ...]]

ROWS = 256  # pairs of input and baseline that DeepLiftShap takes through the model at once


def _wrapped[**P, R](method: Callable[P, R]) -> Callable[P, R]:
    """Wrap a method, since Captum's NoiseTunnel calls `attribute.__wrapped__`."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(*args, **kwargs)

    return call


class DeepLift:
    """DeepLIFT (Shrikumar et al. 2017) of any module, with the interface of `captum.attr.DeepLift`.

    `captum.attr.NoiseTunnel` and `captum.metrics` accept it in place of Captum's. `rules="complete"` supports models
    that Captum's refuses or gets wrong: reused modules, functional activations, softmax, gates, attention, recurrent
    layers. The model stays unchanged. In training mode both streams see the same draws.

    Args:
        model: an `nn.Module` or a callable that returns a tensor.
        multiply_by_inputs: whether to return contributions; `False` gives multipliers ("local" attribution).
        eps: accepted for compatibility with Captum; the slopes here need none.
        rules: `"complete"`, or `"rescale"` for the operations that Captum has rules for: exact slopes of ReLU, Sigmoid,
            Tanh, LeakyReLU, ELU and Softplus, the winner rule for max pools and the log-mean rule for softmax (as
            modules, functions or methods), gradients elsewhere, and no scaling. The numbers equal Captum's if Captum's
            rule is complete. That rules out softmax, and max pools with overlapping or dilated windows.
            :func:`deeplift_fast.attribute` and PyHealth's DeepLift use `"rescale"` for another rule set: ReLU, Sigmoid
            and Tanh alone, with scaling.
        steps: number of segments of the line from baseline to input; 1 is DeepLIFT.
        delta_tol: under `"complete"`, the part of `f(x) − f(x0)` that a convergence delta may reach without a warning.
        segments_at_once: number of segments that go through the model as rows of one batch.

    Raises:
        ValueError, TypeError: for an argument that does not fit; the message names it.

    Example:
        >>> DeepLift(torch.nn.Linear(2, 1)).attribute(torch.ones(3, 2)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        multiply_by_inputs: bool = True,
        eps: float = 1e-10,
        *,
        rules: str = "complete",
        steps: int = 1,
        delta_tol: float = DELTA_TOL,
        segments_at_once: int = 1,
    ) -> None:
        if rules == "pyhealth":
            raise ValueError('rules is "pyhealth"; accepted: "complete", "rescale"')
        options = Options(rules, steps, delta_tol, segments_at_once)
        if isinstance(eps, bool) or not isinstance(eps, Real):
            raise TypeError(f"eps is {eps!r}; accepted: a number")
        if not callable(model):
            raise TypeError(f"model is a {type(model).__name__}; accepted: a torch.nn.Module or a callable")
        self.model: Callable[..., Any] = model
        self.forward_func = model  # as Captum's other classes name it
        self.eps = eps
        self.options: Options = options
        self._multiply_by_inputs: bool = multiply_by_inputs
        self._report: Report | None = None

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether contributions are returned instead of multipliers."""
        return self._multiply_by_inputs

    def has_convergence_delta(self) -> bool:
        """True: :meth:`attribute` can return the convergence delta."""
        return True

    def report(self) -> Report:
        """The report of the last call: operations, rules and their parts of the convergence delta.

        Raises:
            RuntimeError: before the first call.
        """
        if self._report is None:
            raise RuntimeError("report() describes the last call; call attribute first")
        return self._report

    @_wrapped
    def attribute(
        self,
        inputs: Tensors,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        custom_attribution_func: AttributionFunction | None = None,
    ) -> Any:
        """Contributions of the inputs to the model's output at the target.

        Args:
            inputs: floating point, `[batch, …]`: a tensor, or a tuple of them, the model's first positional arguments.
            baselines: the same structure: tensors of the inputs' shapes or of one sample's, numbers, or `None` for 0.
            target: the output's index: `None` for a model with one output per sample, an int or a tuple of ints for
                every sample, or one of these per sample (a tensor or a list).
            additional_forward_args: the model's further positional arguments, one or a tuple; both streams get them.
            return_convergence_delta: whether to return the convergence delta too.
            custom_attribution_func: takes `(multipliers, inputs, baselines)`, tuples of tensors, or the first one or
                two of these, and returns the attributions.

        Returns:
            Attributions in the structure and shapes of `inputs`. With `return_convergence_delta`, a pair of these and
            `Σ attributions − (f(x) − f(x0))`, `[batch]`; with `multiply_by_inputs=False` it uses the contributions.

        Raises:
            ValueError, TypeError: for an argument that does not fit; the message names it. They are AssertionErrors too
                if Captum raises one; a target outside the output is also an IndexError.

        Warns:
            ConvergenceWarning: if a convergence delta passes `delta_tol` under `"complete"`.
        """
        xs, x0s = _as_tuple("inputs", inputs), _baselines(inputs, baselines)
        found = self._explain(xs, x0s, target, _further(additional_forward_args))
        self._report = found.report.settled()
        attributions = self._attributions(found, xs, x0s, custom_attribution_func)
        shown = attributions if isinstance(inputs, tuple | list) else attributions[0]
        if not return_convergence_delta:
            return shown
        return shown, _delta(found, attributions if custom_attribution_func else None)

    def attribute_future(self) -> None:
        """Not implemented, as in Captum.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("attribute_future is not implemented for DeepLift; call attribute")

    @in_full_precision
    def compute_convergence_delta(
        self,
        attributions: Tensors,
        start_point: Baselines,
        end_point: Tensors,
        target: Target = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """`Σ attributions − (f(end_point) − f(start_point))`, `[batch]`, from two plain runs of the model.

        The runs have no side effects, and in training mode both see the same draws. :meth:`attribute` with
        `return_convergence_delta` gives the same number without further runs.

        Args:
            attributions: `[batch, …]`, a tensor or a tuple.
            start_point: the baselines, as for :meth:`attribute`.
            end_point: the inputs.
            target: as for :meth:`attribute`.
            additional_forward_args: as for :meth:`attribute`.

        Returns:
            The convergence delta, `[batch]`.

        Raises:
            ValueError, TypeError: as :meth:`attribute`.
        """
        xs = _as_tuple("end_point", end_point)
        x0s = _baselines(end_point, start_point)
        given = _as_tuple("attributions", attributions)
        resolved = [resolve(i, x, x0) for i, (x, x0) in enumerate(zip(xs, x0s, strict=True))]
        batch, further, modules = len(xs[0]), _further(additional_forward_args), own_modules(self.model)
        streams = Streams(self.model, further, False, _target(target, batch), batch, RescaleRules(), modules)
        ends = [streams.output(dict(enumerate(values))) for values in (xs, resolved)]
        return convergence_delta(dict(enumerate(given)), *ends)

    def _explain(
        self, xs: tuple[Tensor, ...], x0s: tuple[Any, ...], target: Target, further: tuple[Any, ...]
    ) -> Attribution:
        batch = len(xs[0]) if isinstance(xs[0], Tensor) and xs[0].dim() else 0
        context = Context(further, rule_set=ActivationRules() if self.options.rules == "rescale" else None)
        return attribution.explain(self.model, xs, x0s, _target(target, batch), self.options, context)

    def _attributions(
        self, found: Attribution, xs: tuple[Tensor, ...], x0s: tuple[Any, ...], function: AttributionFunction | None
    ) -> tuple[Tensor, ...]:
        if function is not None:
            full = [resolve(i, x, x0) for i, (x, x0) in enumerate(zip(xs, x0s, strict=True))]
            wanted = len(inspect.signature(function).parameters)
            made = function(*(found.multipliers, tuple(x.detach() for x in xs), tuple(full))[:wanted])
            return _as_tuple("the result of custom_attribution_func", made)
        return tuple(found.contributions if self._multiply_by_inputs else found.multipliers)


class DeepLiftShap(DeepLift):
    """The mean of DeepLIFT over a background set: an approximation of SHAP values (Lundberg & Lee 2017, section 4.2).

    Every input is paired with every baseline, `rows` pairs at a time, so that memory does not grow with the set.

    Args:
        model: as for :class:`DeepLift`.
        multiply_by_inputs: as for :class:`DeepLift`.
        rules: as for :class:`DeepLift`.
        steps: as for :class:`DeepLift`.
        delta_tol: as for :class:`DeepLift`.
        segments_at_once: as for :class:`DeepLift`.
        rows: number of pairs of input and baseline that go through the model at once.

    Raises:
        ValueError, TypeError: for an argument that does not fit; the message names it.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        multiply_by_inputs: bool = True,
        *,
        rules: str = "complete",
        steps: int = 1,
        delta_tol: float = DELTA_TOL,
        segments_at_once: int = 1,
        rows: int = ROWS,
    ) -> None:
        super().__init__(
            model, multiply_by_inputs, rules=rules, steps=steps, delta_tol=delta_tol, segments_at_once=segments_at_once
        )
        require_positive("rows", rows)
        self.rows = rows

    @_wrapped
    def attribute(
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        custom_attribution_func: AttributionFunction | None = None,
    ) -> Any:
        """The mean over baselines of :meth:`DeepLift.attribute`.

        Args:
            inputs: as for :meth:`DeepLift.attribute`.
            baselines: the background set: tensors `[baselines, …]` of equal length, or a function that returns them; it
                takes the inputs or nothing.
            target: as for :meth:`DeepLift.attribute`.
            additional_forward_args: as for :meth:`DeepLift.attribute`; tensors with one row per input follow the input.
            return_convergence_delta: whether to return the convergence deltas too.
            custom_attribution_func: as for :meth:`DeepLift.attribute`; called once for each `rows` pairs.

        Returns:
            Attributions in the structure and shapes of `inputs`. With `return_convergence_delta`, a pair of these and
            the convergence deltas, `[batch · baselines]`, input by input.

        Raises:
            ValueError, TypeError: as :meth:`DeepLift.attribute`.
        """
        xs = _as_tuple("inputs", inputs)
        x0s = _background(inputs, baselines, len(xs))
        batch, count = len(xs[0]), len(x0s[0])
        further = _further(additional_forward_args)
        totals = [torch.zeros_like(x) for x in xs]
        deltas, reports = [], []
        for i, j in _pairs(batch, count, self.rows):
            rows = tuple(x.detach()[i] for x in xs)
            refs = tuple(x0[j] for x0 in x0s)
            follow = tuple(_rows(argument, i, batch) for argument in further)
            found = self._explain(rows, refs, _rows_of_target(target, i, batch), follow)
            parts = self._attributions(found, rows, refs, custom_attribution_func)
            for total, part in zip(totals, parts, strict=True):
                total.index_add_(0, i.to(total.device), part.detach().to(total.dtype), alpha=1 / count)
            deltas.append(_delta(found, parts if custom_attribution_func else None))
            reports.append(found.report.settled())
        cancelled = [report.cancellation for report in reports if report.cancellation is not None]
        self._report = replace(merged(reports), cancellation=joined(cancelled) if cancelled else None)
        shown = tuple(totals) if isinstance(inputs, tuple | list) else totals[0]
        if not return_convergence_delta:
            return shown
        return shown, torch.cat(deltas) if deltas else xs[0].new_empty(0)


def _delta(found: Attribution, made: tuple[Tensor, ...] | None) -> Tensor:
    """The convergence delta of the contributions, or of a custom function's attributions."""
    if made is None:
        return found.convergence_delta
    with torch.no_grad():
        return convergence_delta(dict(enumerate(made)), found.output, found.baseline_output)


def _pairs(batch: int, count: int, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of inputs and of baselines, every pair once, inputs first."""
    for start in range(0, batch * count, rows):
        pair = torch.arange(start, min(start + rows, batch * count), device="cpu")
        yield pair // count, pair % count


def _as_tuple(name: str, given: Any) -> tuple[Tensor, ...]:
    values = tuple(given) if isinstance(given, tuple | list) else (given,)
    for value in values:
        if not isinstance(value, Tensor):
            raise ArgumentTypeError(f"{name} holds a {type(value).__name__}; accepted: a tensor or a tuple of tensors")
    if not values:
        raise ArgumentValueError(f"{name} is empty; at least one tensor is needed")
    return values


def _baselines(inputs: Any, baselines: Any) -> tuple[Any, ...]:
    count = len(inputs) if isinstance(inputs, tuple | list) else 1
    if baselines is None:
        return (None,) * count
    values = tuple(baselines) if isinstance(baselines, tuple | list) else (baselines,)
    if len(values) != count:
        raise ArgumentValueError(f"baselines holds {len(values)} for {count} input(s); accepted: one for each, or None")
    return values


def _background(inputs: Any, baselines: Any, count: int) -> tuple[Tensor, ...]:
    if callable(baselines):
        baselines = baselines(inputs) if inspect.signature(baselines).parameters else baselines()
    if baselines is None:
        raise ArgumentValueError(
            "baselines is None; accepted by DeepLiftShap: a background set, tensors [baselines, …], or a function"
        )
    values = _as_tuple("baselines", baselines)
    if len(values) != count:
        raise ArgumentValueError(f"baselines holds {len(values)} tensors for {count} input(s); accepted: one for each")
    for x, value in zip(_as_tuple("inputs", inputs), values, strict=True):
        if value.dim() != x.dim() or value.shape[1:] != x.shape[1:]:
            raise ArgumentValueError(
                f"baselines hold shape {tuple(value.shape)} for inputs of shape {tuple(x.shape)}; accepted: one or "
                f"more rows of shape {tuple(x.shape[1:])}"
            )
    sizes = [len(value) if value.dim() else 0 for value in values]
    if len(set(sizes)) > 1 or not sizes[0]:
        raise ArgumentValueError(f"baselines have {sizes} rows; accepted: one or more, as many in each tensor")
    return values


def _further(given: Any) -> tuple[Any, ...]:
    if given is None:
        return ()
    return tuple(given) if isinstance(given, tuple | list) else (given,)


def _rows(value: Any, index: Tensor, batch: int) -> Any:
    return value[index] if isinstance(value, Tensor) and value.dim() and len(value) == batch else value


def _rows_of_target(target: Target, index: Tensor, batch: int) -> Any:
    if isinstance(target, list):
        target = listed(target)
    if not isinstance(target, Tensor) or target.numel() == 1:
        return target
    if target.dim() == 0 or len(target) != batch:
        raise ArgumentValueError(f"target has shape {tuple(target.shape)} for {batch} inputs; accepted: one per input")
    return target[index]


def _target(target: Target, batch: int) -> Any:
    """Captum's target in the form that :mod:`deeplift_fast.core.targets` accepts."""
    if target is None:
        return _single
    if isinstance(target, list):
        target = listed(target)
    if isinstance(target, Tensor) and target.numel() == 1:
        return int(target)
    return target


def _single(output: Tensor) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(f"the model returned a {type(output).__name__}; a tensor is needed")
    if output.dim() and output.numel() != len(output):
        raise ArgumentValueError(f"target is None, and the model returned shape {tuple(output.shape)}: name a target")
    return output.reshape(-1)
