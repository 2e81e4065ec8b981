"""NeuronDeepLift and NeuronDeepLiftShap with Captum's signatures: contributions of inputs to a neuron of a layer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, override

from torch import Tensor, nn

from deeplift_fast.captum.arguments import (
    AttributionFunction,
    Baselines,
    Tensors,
    as_tuple,
    background,
    baselines_of,
    further_of,
    rows_of,
    wrapped,
)
from deeplift_fast.captum.layered import Layered
from deeplift_fast.captum.shap import ROWS, mean_over_pairs
from deeplift_fast.core.attribution import Attribution, Context, explain
from deeplift_fast.core.baselines import resolve
from deeplift_fast.core.diagnostics import Report
from deeplift_fast.core.layers import checked_run
from deeplift_fast.core.neurons import Neuron, Selector, neuron_at
from deeplift_fast.core.options import DELTA_TOL, positive
from deeplift_fast.errors import ArgumentValueError


class NeuronDeepLift(Layered):
    """DeepLIFT contributions of inputs to a neuron of a layer, with the interface of `captum.attr.NeuronDeepLift`.

    Contributions sum to `n(x) − n(x0)`, the difference of the neuron. The model runs up to the layer.

    Args:
        model: an `nn.Module` or a callable.
        layer: a module of the model, or its name; `None` if the attribute `layer` is set later.
        multiply_by_inputs: as for :class:`DeepLift`.
        rules: as for :class:`DeepLift`.
        steps: as for :class:`DeepLift`.
        delta_tol: as for :class:`DeepLift`.
        segments_at_once: as for :class:`DeepLift`.
        call: as for :class:`LayerDeepLift`.

    Raises:
        ValueError, TypeError: for an argument that does not fit; the message names it.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
        >>> NeuronDeepLift(model, model[1]).attribute(torch.ones(4, 3), neuron_selector=2).shape
        torch.Size([4, 3])
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
    def has_convergence_delta(self) -> bool:
        """False, as in Captum: :meth:`attribute` returns no convergence delta; :meth:`report` holds their sum."""
        return False

    @override
    def compute_convergence_delta(self, *args: Any, **kwargs: Any) -> Tensor:
        """Not implemented, as in Captum: the convergence delta of a model's output says nothing of a neuron.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("neurons have no compute_convergence_delta; report() holds the sum of their deltas")

    @override
    @wrapped
    def attribute(  # type: ignore[override]
        self,
        inputs: Tensors,
        neuron_selector: Selector,
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        custom_attribution_func: AttributionFunction | None = None,
    ) -> Any:
        """Contributions of the inputs to a neuron.

        Args:
            inputs: as for :meth:`DeepLift.attribute`.
            neuron_selector: the neuron in the layer's value: an int or a tuple of ints, one for each dimension after
                the batch; with slices in the tuple, the sum of the neurons there. The last dimensions may be left out
                if their size is 1, or if the tuple has slices: then the sum is over them too. Or a callable that takes
                the layer's value (a tensor, or its structure) and returns one number per sample, or one for the batch.
            baselines: as for :meth:`DeepLift.attribute`.
            additional_forward_args: as for :meth:`DeepLift.attribute`.
            attribute_to_neuron_input: whether the neuron is in the layer's positional arguments, not in its output.
            custom_attribution_func: as for :meth:`DeepLift.attribute`.

        Returns:
            Attributions in the structure and shapes of `inputs`.

        Raises:
            ValueError, TypeError: for an argument that does not fit, a layer that the model does not call, or one that
                it calls several times without `call`; the message names it.
            InterceptionError: if the neuron does not depend on the inputs.

        Warns:
            ConvergenceWarning: as :meth:`DeepLift.attribute`.
        """
        xs, x0s = as_tuple("inputs", inputs), baselines_of(inputs, baselines)
        further = further_of(additional_forward_args)
        neuron = self._neuron(xs, further, neuron_selector, attribute_to_neuron_input)
        found = self._explain_neuron(neuron, xs, x0s, further)
        self._report = found.report.settled()
        made = self._attributions(found, xs, x0s, custom_attribution_func)
        return made if isinstance(inputs, tuple | list) else made[0]

    def _neuron(self, xs: tuple[Tensor, ...], further: tuple[Any, ...], selector: Selector, at_input: bool) -> Neuron:
        run = checked_run(self.model, self._modules or (), xs, (None,) * len(xs), further)
        return neuron_at(run, replace(self._place, at_input=at_input), selector)

    def _explain_neuron(
        self, neuron: Neuron, xs: tuple[Tensor, ...], x0s: tuple[Any, ...], further: tuple[Any, ...]
    ) -> Attribution:
        options, context = self.options, Context(further, self._modules, self._rule_set())
        if not neuron.whole:
            return explain(neuron, xs, x0s, neuron.select, options, context)
        full = tuple(resolve(n, x, x0)[None] for n, (x, x0) in enumerate(zip(xs, x0s, strict=True)))
        found = explain(
            neuron, tuple(x[None] for x in xs), full, neuron.select, replace(options, segments_at_once=1), context
        )
        contributions, multipliers = (tuple(each[0] for each in of) for of in (found.contributions, found.multipliers))
        return replace(found, contributions=contributions, multipliers=multipliers)


class NeuronDeepLiftShap(NeuronDeepLift):
    """The mean of :class:`NeuronDeepLift` over a background set, as `captum.attr.NeuronDeepLiftShap`.

    Args:
        model: as for :class:`NeuronDeepLift`.
        layer: as for :class:`NeuronDeepLift`.
        multiply_by_inputs: as for :class:`DeepLift`.
        rules: as for :class:`DeepLift`.
        steps: as for :class:`DeepLift`.
        delta_tol: as for :class:`DeepLift`.
        segments_at_once: as for :class:`DeepLift`.
        call: as for :class:`LayerDeepLift`.
        rows: number of pairs of input and baseline that go through the model at once.

    Raises:
        ValueError, TypeError: for an argument that does not fit; the message names it.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> NeuronDeepLiftShap(net, net[1]).attribute(torch.ones(2, 3), 0, torch.zeros(5, 3)).shape
        torch.Size([2, 3])
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
        neuron_selector: Selector,
        baselines: Any = None,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        custom_attribution_func: AttributionFunction | None = None,
    ) -> Any:
        """The mean over baselines of :meth:`NeuronDeepLift.attribute`.

        Args:
            inputs: as for :meth:`DeepLift.attribute`.
            neuron_selector: as for :meth:`NeuronDeepLift.attribute`; a callable returns one number per sample.
            baselines: the background set, as for :meth:`DeepLiftShap.attribute`.
            additional_forward_args: as for :meth:`DeepLiftShap.attribute`.
            attribute_to_neuron_input: as for :meth:`NeuronDeepLift.attribute`.
            custom_attribution_func: as for :meth:`DeepLift.attribute`; called once for each `rows` pairs.

        Returns:
            Attributions in the structure and shapes of `inputs`.

        Raises:
            ValueError, TypeError: as :meth:`NeuronDeepLift.attribute`.
            InterceptionError: if the neuron does not depend on the inputs.
        """
        xs = as_tuple("inputs", inputs)
        x0s = background(inputs, baselines, len(xs))
        batch, further = len(xs[0]), further_of(additional_forward_args)
        neuron = self._neuron(xs, further, neuron_selector, attribute_to_neuron_input)
        if neuron.whole:
            raise ArgumentValueError(
                f"neuron_selector gives one number for {batch} samples; accepted by NeuronDeepLiftShap: one per sample"
            )

        def explained(i: Tensor, j: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Report]:
            rows, refs = tuple(x.detach()[i] for x in xs), tuple(x0[j] for x0 in x0s)
            found = self._explain_neuron(neuron, rows, refs, tuple(rows_of(each, i, batch) for each in further))
            parts = self._attributions(found, rows, refs, custom_attribution_func)
            return parts, found.convergence_delta, found.report

        totals, _, self._report = mean_over_pairs(batch, len(x0s[0]), self.rows, explained)
        return totals if isinstance(inputs, tuple | list) else totals[0]
