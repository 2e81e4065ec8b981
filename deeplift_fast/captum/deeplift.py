"""DeepLift with Captum's signature, for any `nn.Module`; Captum itself is not needed."""

import inspect
import re
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from deeplift_fast.captum.arguments import (
    AttributionFunction,
    Baselines,
    Target,
    Tensors,
    as_tuple,
    baselines_of,
    further_of,
    target_of,
    wrapped,
)
from deeplift_fast.core import attribution
from deeplift_fast.core.attribution import Attribution, Context
from deeplift_fast.core.baselines import resolve
from deeplift_fast.core.completeness import convergence_delta
from deeplift_fast.core.diagnostics import Report
from deeplift_fast.core.options import DELTA_TOL, Options
from deeplift_fast.core.streams import Streams, own_modules
from deeplift_fast.ops.precision import in_full_precision
from deeplift_fast.rules.activations import ActivationRules
from deeplift_fast.rules.rescale import RescaleRules
from deeplift_fast.rules.ruleset import RuleSet


class DeepLift:
    """DeepLIFT (Shrikumar et al. 2017) of any module, with the interface of `captum.attr.DeepLift`.

    `captum.attr.NoiseTunnel` and `captum.metrics` accept it in place of Captum's. `rules="complete"` supports models
    that Captum's refuses or gets wrong: reused modules, functional activations, softmax, gates, attention, recurrent
    layers. The model stays unchanged. In training mode both streams see the same draws.

    Args:
        model: an `nn.Module` or a callable. It returns a tensor, or a target that is a callable selects one.
        multiply_by_inputs: whether to return contributions; `False` gives multipliers ("local" attribution).
        eps: accepted for compatibility with Captum; the slopes here need none.
        rules: `"complete"`, or `"rescale"` for the operations that Captum has rules for: exact slopes of ReLU, Sigmoid,
            Tanh, LeakyReLU, ELU and Softplus, the winner rule for max pools and the log-mean rule for softmax (as
            modules, functions or methods), gradients elsewhere, and no scaling. The numbers equal Captum's if Captum's
            rule is complete. That rules out softmax, max pools with overlapping or dilated windows, and max pools right
            after an activation.
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
        self._modules: tuple[nn.Module, ...] | None = None
        self._report: Report | None = None

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether contributions are returned instead of multipliers."""
        return self._multiply_by_inputs

    @classmethod
    def get_name(cls) -> str:
        """The name of the class in words, such as `"Layer Deep Lift"`."""
        return re.sub("(?<!^)(?=[^a-z])", " ", cls.__name__)

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

    @wrapped
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
                every sample, or one of these per sample (a tensor or a list); also a callable from the model's output
                to `[batch]`.
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
        xs, x0s = as_tuple("inputs", inputs), baselines_of(inputs, baselines)
        found = self._explain(xs, x0s, target, further_of(additional_forward_args))
        self._report = found.report.settled()
        attributions = self._attributions(found, xs, x0s, custom_attribution_func)
        shown = attributions if isinstance(inputs, tuple | list) else attributions[0]
        if not return_convergence_delta:
            return shown
        return shown, delta_of(found, attributions if custom_attribution_func else None)

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
        xs = as_tuple("end_point", end_point)
        x0s = baselines_of(end_point, start_point)
        given = as_tuple("attributions", attributions)
        resolved = [resolve(i, x, x0) for i, (x, x0) in enumerate(zip(xs, x0s, strict=True))]
        batch, further, modules = len(xs[0]), further_of(additional_forward_args), own_modules(self.model)
        streams = Streams(self.model, further, False, target_of(target, batch), batch, RescaleRules(), modules)
        ends = [streams.output(dict(enumerate(values))) for values in (xs, resolved)]
        return convergence_delta(dict(enumerate(given)), *ends)

    def _explain(
        self, xs: tuple[Tensor, ...], x0s: tuple[Any, ...], target: Target, further: tuple[Any, ...]
    ) -> Attribution:
        context = Context(further, self._modules, self._rule_set())
        batch = len(xs[0]) if xs[0].dim() else 1
        return attribution.explain(self.model, xs, x0s, target_of(target, batch), self.options, context)

    def _rule_set(self) -> RuleSet | None:
        return ActivationRules() if self.options.rules == "rescale" else None

    def _attributions(
        self, found: Attribution, xs: tuple[Tensor, ...], x0s: tuple[Any, ...], function: AttributionFunction | None
    ) -> tuple[Tensor, ...]:
        if function is not None:
            full = [resolve(i, x, x0) for i, (x, x0) in enumerate(zip(xs, x0s, strict=True))]
            wanted = len(inspect.signature(function).parameters)
            made = function(*(found.multipliers, tuple(x.detach() for x in xs), tuple(full))[:wanted])
            return as_tuple("the result of custom_attribution_func", made)
        return tuple(found.contributions if self._multiply_by_inputs else found.multipliers)


def delta_of(found: Attribution, made: tuple[Tensor, ...] | None) -> Tensor:
    """The convergence delta of the contributions, or of a custom function's attributions."""
    if made is None:
        return found.convergence_delta
    with torch.no_grad():
        return convergence_delta(dict(enumerate(made)), found.output, found.baseline_output)
