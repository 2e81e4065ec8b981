"""Runs a model at the baseline, at the input and between them, and propagates multipliers back."""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.utils import _pytree as pytree

from deeplift_fast.core import targets
from deeplift_fast.core.completeness import summed
from deeplift_fast.core.diagnostics import Report, Tally
from deeplift_fast.core.intercept import Draws, Pass, Records
from deeplift_fast.core.isolation import Kept, ShadowState, isolated, modules_in
from deeplift_fast.core.result import Attribution
from deeplift_fast.core.shared_rows import SharedRows, repeating
from deeplift_fast.core.targets import Target
from deeplift_fast.errors import Diverged, InterceptionError, NoPathError
from deeplift_fast.rules.rescale import RescaleRules
from deeplift_fast.rules.ruleset import RuleSet

Values = Mapping[Hashable, Tensor]


class _Overwritten(Exception):
    """The model overwrote a tensor that a rule needs later."""


@dataclass
class Streams:
    """A model, and everything that all of its runs share.

    Attributes:
        model: the module or callable.
        forward_args: its further arguments.
        by_name: whether inputs are passed by name.
        target: the output to explain.
        batch: the number of samples.
        rules: the rule set.
        modules: the modules that run inside the model.
        steps: the number of segments of the straight line from baseline to input.
        stateless: whether no call of the model changes or draws anything, see :mod:`deeplift_fast.core.stateless`.
        tally: operations and rules of all runs.
    """

    model: Callable[..., Any]
    forward_args: Sequence[Any] | Mapping[str, Any]
    by_name: bool
    target: Target
    batch: int
    rules: RuleSet
    modules: tuple[nn.Module, ...]
    steps: int = 1
    stateless: bool = False
    tally: Tally = field(default_factory=Tally)
    _kept: Kept = field(init=False, repr=False)
    _rewind: Callable[[], None] = field(init=False, repr=False)
    _copy: bool = field(init=False, default=False)
    _draws: Draws = field(init=False, default_factory=Draws)
    _only: int | None = field(init=False, default=None)
    _hooked: bool = field(init=False, default=False)  # whether a module has backward hooks
    _twins: Values = field(init=False, default_factory=dict)  # of the inputs' baselines in which all samples are equal

    def run(self, xs: Values, x0s: Values) -> Attribution:
        """Run both streams.

        Args:
            xs: the inputs, by name or position.
            x0s: the baselines.

        Returns:
            The attribution with its multipliers, by name or position. Its target is int64 `[batch, k]`, or `None` for
            a callable; its report has no operations, see `tally`.
        """
        devices = {x.device for x in xs.values() if x.is_cuda}
        further = pytree.tree_leaves(self.forward_args) if self.forward_args else ()
        tensors = [leaf for leaf in further if isinstance(leaf, Tensor)]
        state = contextlib.nullcontext(_nothing) if self.stateless else isolated(self.modules, devices)
        with torch.inference_mode(False), state as self._rewind:
            xs, x0s = _detached(xs), _detached(x0s)
            self._kept = Kept(() if self.stateless else [*self.modules, *tensors])
            self._hooked = self.rules.complete and not self.stateless and _has_backward_hooks(self.modules)
            self._twins = repeating(x0s) if self.steps == 1 and not self._hooked else {}
            try:
                return self._walk(xs, x0s)
            except _Overwritten:
                self._copy = True
                self._rewind()
                return self._walk(xs, x0s)

    def settled_target(self, xs: Values) -> Target:
        """The target; `None` becomes the largest output at the input."""
        if self.target is not None:
            return targets.listed(self.target) if isinstance(self.target, list) else self.target
        found = targets.indices(self._plain(xs), None)
        return None if found is None or found.shape[1] == 0 else found

    def output(self, xs: Values) -> Tensor:
        """The output at the target, `[batch]`, from a run without rules and side effects."""
        output = self._plain(xs)
        return targets.select(output, targets.indices(output, self.target))

    def _plain(self, xs: Values) -> Tensor:
        devices = {x.device for x in xs.values() if x.is_cuda}
        with torch.inference_mode(False), isolated(self.modules, devices), torch.no_grad():
            return self._call(_detached(xs), Pass(RescaleRules(), ShadowState(Kept(self.modules))))

    def run_one_by_one(self, xs: Values, x0s: Values) -> Attribution:
        """Run as :meth:`run`, with one sample at a time at its baseline, for a model that mixes samples."""
        found: list[Attribution] = []
        for index in range(self.batch):
            self._only = index
            at_baseline = {}
            for name, x in xs.items():
                at_baseline[name] = x.clone()
                at_baseline[name][index] = x0s[name][index]
            found.append(self.run(xs, at_baseline))
        self._only = None
        return _joined(found)

    def mixes_samples(self, xs: Values) -> bool:
        """Whether one sample's output depends on another sample's inputs, to first order."""
        devices = {x.device for x in xs.values() if x.is_cuda}
        with torch.inference_mode(False), isolated(self.modules, devices):
            run = Pass(RescaleRules(), ShadowState(Kept(self.modules)))
            leaves = {name: x.requires_grad_() for name, x in _detached(xs).items()}
            with torch.enable_grad():
                output = self._call(leaves, run)
                for index in (0, self.batch - 1):
                    chosen = targets.select(output, targets.indices(output, self.target))[index]
                    if not chosen.requires_grad:
                        return False
                    found = torch.autograd.grad(chosen, list(leaves.values()), allow_unused=True, retain_graph=True)
                    others = torch.arange(self.batch, device=chosen.device) != index
                    if any(g is not None and bool(g[others.to(g.device)].any()) for g in found):
                        return True
        return False

    def _walk(self, xs: Values, x0s: Values) -> Attribution:
        """Make n + 1 runs for n segments; several segments start at the input, so that the first run has the target."""
        n = self.steps
        positions = [0.0, 1.0] if n == 1 else [k / n for k in range(n, -1, -1)]
        tally = Tally()
        before = point_at(xs, x0s, positions[0])
        output, records = self._first(before, xs)
        ends, target = {positions[0]: output}, None
        if positions[0] == 1:
            target = targets.indices(output, self.target)
        totals: dict[Hashable, Tensor] = {}
        depends = False
        for position in positions[1:]:
            self._rewind()
            last = position == positions[-1]
            point = point_at(xs, x0s, position)
            leaves = {name: value.detach().requires_grad_() for name, value in point.items()}
            output, records = self._meet(leaves, before, records, tally, keep=not last)
            _check_shapes(output, ends[positions[0]], position)
            if position == 1:
                target = targets.indices(output, self.target)
            chosen = targets.select(output, target)
            multipliers = self._multipliers(chosen, leaves)
            depends = depends or any(multiplier is not None for multiplier in multipliers)
            _add(totals, multipliers, point)
            if not self.stateless:
                tally.custom_functions(output)
            ends[position], before = output.detach(), point
        if not depends:
            raise NoPathError(_NO_PATH)
        at_input = chosen.detach() if n == 1 else targets.select(ends[1.0], target).detach()
        at_baseline = targets.select(ends[0.0], target).detach()
        means = {name: total if n == 1 else total / n for name, total in totals.items()}
        contributions = {name: (x - x0s[name]).mul_(means[name]) for name, x in xs.items()}
        self.tally.add(tally)
        return found_at(means, contributions, (at_input, at_baseline), target)

    def _first(self, point: Values, xs: Values) -> tuple[Tensor, Records]:
        """Record the first run; rows that are equal there are computed once, unless the model fails so."""
        if self._twins:
            try:
                return self._first_as_planned(point, xs)
            except Exception:  # an error of the model's own comes again
                self._twins = {}
                self._rewind()
        return self._first_as_planned(point, xs)

    def _first_as_planned(self, point: Values, xs: Values) -> tuple[Tensor, Records]:
        """Record the first run; draws that depend on data are made at the input."""
        self._draws = Draws()
        output, records = self._record(point, self._twins)
        if self._draws.found and point is not xs:
            self._rewind()
            self._draws = Draws()
            self._record(xs)
            self._draws.replaying = True
            self._rewind()
            output, records = self._record(point, self._twins)
        self._draws.replaying = True
        return output, records

    def _record(self, point: Values, twins: Values | None = None, gradients: bool = False) -> tuple[Tensor, Records]:
        """The model's output at a point, and the calls that it made; `twins` are those of the point.

        Where gradients are, a model may make other calls, as modules with full backward hooks do.
        """
        gradients = gradients or self._hooked
        values = {name: x.detach().requires_grad_() for name, x in point.items()} if gradients else point
        for copy in (False, True):
            records = Records(self._copy or copy)
            run = Pass(self.rules, ShadowState(self._kept), keep=records, draws=self._draws)
            run.shared = SharedRows() if twins else None
            with _with_gradients() if gradients else torch.no_grad():
                output = self._call(values, run).detach()
            if copy or self._copy or records.intact():
                break
            self._rewind()  # the model overwrote an argument: once more, with copies
        return output, records

    def _meet(
        self, leaves: Values, before: Values, records: Records, tally: Tally, keep: bool
    ) -> tuple[Tensor, Records]:
        """The model's output at a point, with rules against the point before, and its calls."""
        counts = tally.counts()
        try:
            return self._with_rules(leaves, records, tally, keep)
        except Diverged:
            if not self.rules.complete and not self._twins:
                raise
        self._rewind()
        if self._twins:  # the model's path may depend on the last digits, or on strides
            self._twins = {}
            _, records = self._record(before)
            self._rewind()
            tally.count_again_from(counts)
            return self._meet(leaves, before, records, tally, keep)
        _, ours = self._record(before, gradients=True)
        self._rewind()
        _, theirs = self._record(leaves, gradients=True)
        self._rewind()
        ours.align(theirs)
        tally.count_again_from(counts)
        return self._with_rules(leaves, ours, tally, keep)

    def _with_rules(self, leaves: Values, records: Records, tally: Tally, keep: bool) -> tuple[Tensor, Records]:
        kept = Records(self._copy)
        run = Pass(self.rules, ShadowState(self._kept), kept if keep else None, records, tally, self._draws)
        with _with_gradients():
            output = self._call(leaves, run)
        records.finish()
        if keep and not kept.intact():
            raise _Overwritten
        return output, kept

    def _call(self, values: Values, run: Pass) -> Tensor:
        # The model may write to its inputs, but autograd refuses writes to leaves: it gets clones.
        tensors = {name: value.clone() for name, value in values.items()}
        if run.shared is not None:
            for name, twin in self._twins.items():
                run.shared.add(tensors[name], twin)
        args: list[Any] = [] if self.by_name else list(tensors.values())
        kwargs: dict[Any, Any] = dict(tensors) if self.by_name else {}
        # New containers, since the model may take entries out of them.
        further = pytree.tree_map_only(Tensor, without_inference, self.forward_args) if self.forward_args else ()
        if isinstance(further, Mapping):
            kwargs.update(further)
        else:
            args.extend(further)
        self._draws.start()
        with run:
            try:
                output = self.model(*args, **kwargs)
            except RuntimeError as error:
                _refuse_compilation(error)
                raise
            if callable(self.target):
                return targets.reduce(output, self.target, self.batch)
        return targets.reduce(output, self.target, self.batch)

    def _explained(self, chosen: Tensor) -> Tensor:
        if self._only is not None:
            return chosen[self._only]
        return chosen if len(chosen) == 1 else chosen.sum()

    def _multipliers(self, chosen: Tensor, leaves: Values) -> Sequence[Tensor | None]:
        if not chosen.requires_grad:
            return [None] * len(leaves)
        try:
            with torch.enable_grad():
                return torch.autograd.grad(self._explained(chosen), list(leaves.values()), allow_unused=True)
        except RuntimeError as error:
            if "modified by an inplace operation" in str(error) and not self._copy:
                raise _Overwritten from error
            if "checkpoint" in str(error):  # torch.utils.checkpoint with use_reentrant=True
                raise InterceptionError(_CHECKPOINTING) from error
            raise


def _nothing() -> None:
    """Put nothing back."""


def own_modules(model: Callable[..., Any]) -> tuple[nn.Module, ...]:
    """The model itself if it is a module, or the module whose method it is; empty for other callables."""
    owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    return (owner,) if isinstance(owner, nn.Module) else ()


def _has_backward_hooks(modules: tuple[nn.Module, ...]) -> bool:
    """Whether hooks of a backward pass are registered for modules, or for all modules."""
    everywhere = nn_module._global_backward_hooks or nn_module._global_backward_pre_hooks
    inside = (module for root in modules for module in modules_in(root))
    return bool(everywhere) or any(module._backward_hooks or module._backward_pre_hooks for module in inside)


def found_at(
    multipliers: dict[Hashable, Tensor],
    contributions: dict[Hashable, Tensor],
    outputs: tuple[Tensor, Tensor],
    target: Tensor | None,
) -> Attribution:
    """Make an attribution with its convergence delta; `outputs` are `f(x)` and `f(x0)`, `[batch]` each."""
    delta, (total, rounding) = summed(contributions, *outputs)
    report = Report((), total, rounding)
    return Attribution(contributions, delta, *outputs, target, report, multipliers=multipliers)


def _joined(found: list[Attribution]) -> Attribution:
    """Sample i of the i-th attribution, for each i."""

    def rows(values: list[Tensor]) -> Tensor:
        return torch.stack([value[i] for i, value in enumerate(values)])

    return found_at(
        {name: rows([f.multipliers[name] for f in found]) for name in found[0].multipliers},
        {name: rows([f.contributions[name] for f in found]) for name in found[0].contributions},
        (rows([f.output for f in found]), rows([f.baseline_output for f in found])),
        found[0].target,
    )


def point_at(xs: Values, x0s: Values, position: float) -> Values:
    """The point at a position from 0 (baseline) to 1 (input) of the straight line between them."""
    if position in (0.0, 1.0):
        return xs if position else x0s
    return {name: torch.lerp(x0s[name], x, position) for name, x in xs.items()}


def _add(totals: dict[Hashable, Tensor], multipliers: Sequence[Tensor | None], point: Values) -> None:
    for (name, x), multiplier in zip(point.items(), multipliers, strict=True):
        part = torch.zeros_like(x) if multiplier is None else multiplier
        totals[name] = totals[name] + part if name in totals else part


def _check_shapes(output: Tensor, other: Tensor, position: float) -> None:
    if output.shape != other.shape:
        here, there = (
            ("the input", "the baseline") if position == 1 else (f"{position:g} of the way to it", "the input")
        )
        raise ValueError(
            f"the model returned shape {tuple(output.shape)} at {here} and {tuple(other.shape)} at {there}; they "
            "must be equal: choose a baseline with the same shapes and lengths"
        )


def _detached(xs: Values) -> dict[Hashable, Tensor]:
    return {name: without_inference(x).detach() for name, x in xs.items()}


def without_inference(tensor: Tensor) -> Tensor:
    """A copy of a tensor from inference mode, which autograd refuses; other tensors stay."""
    return tensor.clone() if tensor.is_inference() else tensor


_NO_PATH = (
    "the output does not depend on the inputs through PyTorch's operations: no gradient leads from it back to any of "
    "them. Code outside of PyTorch (trees, NumPy), under torch.no_grad(), in quantized layers or in integers cannot be "
    "attributed. If only the first part of the model is such code, attribute the rest to the output of that part"
)
_CHECKPOINTING = (
    "attribution cannot run through activation checkpointing or other saved-tensor hooks; switch them off, in the "
    "model (for example model.gradient_checkpointing_disable(), or model.eval() if only training uses it) or around "
    "this call"
)


def _refuse_compilation(error: RuntimeError) -> None:
    """Raise an error of attribution for that of a function that compiles itself; other errors stay."""
    if type(error).__module__ == "torch._dynamo.exc" or "FlexAttention" in str(error):
        raise InterceptionError(
            "model calls a function that PyTorch compiles at each call, such as flex_attention, and attribution cannot "
            "see inside; accepted: scaled_dot_product_attention and attention that is written out (in the library "
            'transformers attn_implementation="sdpa" or "eager")'
        ) from error


@contextlib.contextmanager
def _with_gradients() -> Iterator[None]:
    """Run with gradients, and refuse models that this cannot work for.

    Checkpointed layers run again in the backward pass, after the baseline's records are used up. Tensors of inference
    mode that the model makes, or holds outside of its modules, have no stand-in.
    """
    try:
        with torch.enable_grad(), torch.autograd.graph.disable_saved_tensors_hooks(_CHECKPOINTING):
            yield
    except RuntimeError as error:
        if str(error) == _CHECKPOINTING:
            raise InterceptionError(_CHECKPOINTING) from error
        if "Inference tensors cannot be saved" in str(error):
            raise InterceptionError(
                "model computes with a tensor that was made under torch.inference_mode(), which has no gradients; "
                "accepted: such parameters, buffers, inputs and forward_args. Clone other tensors outside of "
                "torch.inference_mode(), or make them under torch.no_grad()"
            ) from error
        raise
