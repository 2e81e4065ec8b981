"""LayerDeepLift and LayerDeepLiftShap with Captum's signatures: contributions of a layer's input or output."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, override

from torch import Tensor, nn

from deeplift_fast.captum.arguments import (
    AttributionFunction,
    Baselines,
    Target,
    Tensors,
    as_tuple,
    background,
    baselines_of,
    further_of,
    rows_of,
    rows_of_target,
    target_of,
    wrapped,
)
from deeplift_fast.captum.deeplift import delta_of
from deeplift_fast.captum.layered import Layered
from deeplift_fast.captum.shap import ROWS, mean_over_pairs
from deeplift_fast.core.diagnostics import Report
from deeplift_fast.core.layer_tensors import Form
from deeplift_fast.core.layers import AtLayer, Layer, checked_run, explain_layer
from deeplift_fast.core.options import DELTA_TOL, positive
from deeplift_fast.errors import ArgumentTypeError, ArgumentValueError

_GRAD_KWARGS = ("allow_unused", "materialize_grads", "retain_graph")


class LayerDeepLift(Layered):
    """DeepLIFT contributions of a layer's input or output, with the interface of `captum.attr.LayerDeepLift`.

    Both streams run from the model's inputs, which may be tokens; the layer's values at the input and at the baseline
    are what is attributed. Contributions sum to `f(x) − f(x0)` if every path to the output goes through the layer.
    Otherwise :meth:`report` names the operations where other values meet the layer's, under the rule `"bypass"`, with
    their parts (under `rules="complete"`).

    Args:
        model: as for :class:`DeepLift`.
        layer: a module of the model, or its name; `None` if the attribute `layer` is set later.
        multiply_by_inputs: as for :class:`DeepLift`.
        rules: as for :class:`DeepLift`.
        steps: number of segments of the line between the layer's values; 1 is DeepLIFT.
        delta_tol: as for :class:`DeepLift`; a bypass causes no warning.
        segments_at_once: as for :class:`DeepLift`.
        call: the call of a layer that a forward pass calls several times: 0 is the first, -1 the last, which Captum
            takes.

    Raises:
        ValueError, TypeError: for an argument that does not fit; the message names it.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> tokens = torch.tensor([[3, 1, 4], [1, 5, 2]])
        >>> LayerDeepLift(model, model[0]).attribute(tokens, baselines=0, target=1).shape
        torch.Size([2, 3, 4])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        layer: nn.Module | str | None,
        multiply_by_inputs: bool = True,
        *,
        rules: str = "complete",
        steps: int = 1,
        delta_tol: float = DELTA_TOL,
        segments_at_once: int = 1,
        call: int | None = None,
    ) -> None:
        super().__init__(
            model, multiply_by_inputs, rules=rules, steps=steps, delta_tol=delta_tol, segments_at_once=segments_at_once
        )
        self._call = call
        self.layer = layer  # type: ignore[assignment]

    @override
    @wrapped
    def attribute(  # type: ignore[override]
        self,
        inputs: Tensors,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        custom_attribution_func: AttributionFunction | None = None,
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Contributions of the layer's values to the model's output at the target.

        Args:
            inputs: the model's first positional arguments, `[batch, …]`: a tensor, or a tuple of them; of any dtype.
            baselines: as for :meth:`DeepLift.attribute`; integers for integer inputs.
            target: as for :meth:`DeepLift.attribute`.
            additional_forward_args: as for :meth:`DeepLift.attribute`.
            return_convergence_delta: whether to return the convergence delta too.
            attribute_to_layer_input: whether to attribute to the layer's positional arguments instead of its output.
            custom_attribution_func: as for :meth:`DeepLift.attribute`, with the layer's multipliers and values.
            grad_kwargs: Captum's options of `torch.autograd.grad`: with `{"materialize_grads": True}` or
                `{"allow_unused": True}` a layer without influence on the target has contributions of 0.

        Returns:
            Attributions in the shape of the layer's output or input: a tensor if it holds one floating-point tensor;
            otherwise the layer's structure, such as a tuple, with `None` for entries of other types and for masks of
            infinities. With `return_convergence_delta`, a pair of these and `Σ attributions − (f(x) − f(x0))`,
            `[batch]`.

        Raises:
            ValueError, TypeError: for an argument that does not fit, a layer that the model does not call, or one that
                it calls several times without `call`; the message names it.
            InterceptionError: if the target does not depend on the layer.

        Warns:
            ConvergenceWarning: as :meth:`DeepLift.attribute`; a bypass is left out.
        """
        xs, x0s = as_tuple("inputs", inputs), baselines_of(inputs, baselines)
        given = xs, x0s, target, further_of(additional_forward_args)
        at = self._at_layer(given, attribute_to_layer_input, grad_kwargs)
        self._report = at.found.report.settled()
        parts = self._parts(at, custom_attribution_func)
        shown = _shown(at.form, parts, at.values)
        if not return_convergence_delta:
            return shown
        return shown, delta_of(at.found, parts if custom_attribution_func else None)

    @staticmethod
    def interpolate(
        layer_attribution: Tensor, interpolate_dims: int | tuple[int, ...], interpolate_mode: str = "nearest"
    ) -> Tensor:
        """Scale a layer's attributions to the size of an input, as Captum's function of this name.

        Args:
            layer_attribution: `[batch, channels, …]`, with one to three further dimensions.
            interpolate_dims: the sizes of the further dimensions; an int for all of them.
            interpolate_mode: as in `torch.nn.functional.interpolate`.

        Returns:
            `[batch, channels, …]`.

        Raises:
            ValueError: for sizes that do not fit.
        """
        return nn.functional.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)  # type: ignore[arg-type]

    def _at_layer(
        self,
        given: tuple[tuple[Tensor, ...], tuple[Any, ...], Target, tuple[Any, ...]],
        at_input: bool,
        grad_kwargs: Mapping[str, Any] | None,
        form: Form | None = None,
    ) -> AtLayer:
        xs, x0s, target, further = given
        layer = Layer(replace(self._place, at_input=at_input), _accepts_unused(grad_kwargs), form)
        run = checked_run(self.model, self._modules or (), xs, x0s, further)
        return explain_layer(run, layer, target_of(target, len(xs[0])), self.options, self._rule_set())

    def _parts(self, at: AtLayer, function: AttributionFunction | None) -> tuple[Tensor, ...]:
        """The attributions, batch first."""
        if function is None:
            return self._attributions(at.found, at.values, at.values0, None)
        found = replace(at.found, multipliers=at.form.layer_order(at.found.multipliers))
        values, values0 = at.form.layer_order(at.values), at.form.layer_order(at.values0)
        return at.form.batch_first(self._attributions(found, values, values0, function), at.values)


class LayerDeepLiftShap(LayerDeepLift):
    """The mean of :class:`LayerDeepLift` over a background set, as `captum.attr.LayerDeepLiftShap`.

    Args:
        model: as for :class:`LayerDeepLift`.
        layer: as for :class:`LayerDeepLift`.
        multiply_by_inputs: as for :class:`DeepLift`.
        rules: as for :class:`DeepLift`.
        steps: as for :class:`LayerDeepLift`.
        delta_tol: as for :class:`LayerDeepLift`.
        segments_at_once: as for :class:`DeepLift`.
        call: as for :class:`LayerDeepLift`.
        rows: number of pairs of input and baseline that go through the model at once.

    Raises:
        ValueError, TypeError: for an argument that does not fit; the message names it.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> LayerDeepLiftShap(net, net[0]).attribute(torch.ones(2, 3), torch.zeros(5, 3), target=1).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        layer: nn.Module | str | None,
        multiply_by_inputs: bool = True,
        *,
        rules: str = "complete",
        steps: int = 1,
        delta_tol: float = DELTA_TOL,
        segments_at_once: int = 1,
        call: int | None = None,
        rows: int = ROWS,
    ) -> None:
        super().__init__(
            model,
            layer,
            multiply_by_inputs,
            rules=rules,
            steps=steps,
            delta_tol=delta_tol,
            segments_at_once=segments_at_once,
            call=call,
        )
        self.rows = positive("rows", rows)

    @override
    @wrapped
    def attribute(  # type: ignore[override]
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        custom_attribution_func: AttributionFunction | None = None,
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The mean over baselines of :meth:`LayerDeepLift.attribute`.

        Args:
            inputs: as for :meth:`LayerDeepLift.attribute`.
            baselines: the background set, as for :meth:`DeepLiftShap.attribute`; integers for integer inputs.
            target: as for :meth:`LayerDeepLift.attribute`.
            additional_forward_args: as for :meth:`DeepLiftShap.attribute`.
            return_convergence_delta: whether to return the convergence deltas too.
            attribute_to_layer_input: as for :meth:`LayerDeepLift.attribute`.
            custom_attribution_func: as for :meth:`LayerDeepLift.attribute`; called once for each `rows` pairs.
            grad_kwargs: as for :meth:`LayerDeepLift.attribute`.

        Returns:
            As :meth:`LayerDeepLift.attribute`; the convergence deltas are `[batch · baselines]`, input by input.

        Raises:
            ValueError, TypeError: as :meth:`LayerDeepLift.attribute`.
            InterceptionError: if the target does not depend on the layer.
        """
        xs = as_tuple("inputs", inputs)
        x0s = background(inputs, baselines, len(xs))
        batch, further = len(xs[0]), further_of(additional_forward_args)
        first: list[AtLayer] = []

        def explained(i: Tensor, j: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Report]:
            rows, refs = tuple(x.detach()[i] for x in xs), tuple(x0[j] for x0 in x0s)
            follow = tuple(rows_of(argument, i, batch) for argument in further)
            given = rows, refs, rows_of_target(target, i, batch), follow
            at = self._at_layer(given, attribute_to_layer_input, grad_kwargs, first[0].form if first else None)
            first.append(at) if not first else None
            parts = self._parts(at, custom_attribution_func)
            return parts, delta_of(at.found, parts if custom_attribution_func else None), at.found.report

        totals, deltas, self._report = mean_over_pairs(batch, len(x0s[0]), self.rows, explained)
        shown = _shown(first[0].form, totals, first[0].values)
        return (shown, deltas) if return_convergence_delta else shown


def _shown(form: Form, parts: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> Any:
    """Batch-first attributions in the layer's structure, unless a custom function returned other shapes."""
    if [part.shape[1:] for part in parts] == [value.shape[1:] for value in values]:
        return form.structure(parts)
    return parts if len(parts) > 1 else parts[0]


def _accepts_unused(grad_kwargs: Mapping[str, Any] | None) -> bool:
    """Whether a layer without influence has contributions of 0."""
    if grad_kwargs is None:
        return False
    if not isinstance(grad_kwargs, Mapping):
        raise ArgumentTypeError(f"grad_kwargs is a {type(grad_kwargs).__name__}; accepted: None or a dict")
    unknown = sorted(str(key) for key in grad_kwargs if key not in _GRAD_KWARGS)
    if unknown:
        raise ArgumentValueError(f"grad_kwargs holds {', '.join(unknown)}; accepted: {', '.join(_GRAD_KWARGS)}")
    return bool(grad_kwargs.get("materialize_grads") or grad_kwargs.get("allow_unused"))
