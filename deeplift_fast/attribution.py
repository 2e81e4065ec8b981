"""Two streams → multipliers → contributions and convergence delta, for any module or callable."""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from deeplift_fast import baselines as baselines_
from deeplift_fast import targets
from deeplift_fast.completeness import rescale
from deeplift_fast.errors import InterceptionError
from deeplift_fast.intercept import ActualPass, BaselinePass, Records, check_model
from deeplift_fast.isolation import isolated
from deeplift_fast.targets import Target
from deeplift_fast.training_mode import warn_if_training

RULES = ("rescale", "pyhealth")

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Baselines = Tensor | Real | Sequence[Tensor | Real | None] | Mapping[str, Tensor | Real | None] | None


@dataclass(frozen=True)
class Attribution:
    """What :func:`attribute` found.

    Attributes:
        contributions: the contributions, in the structure, shapes and dtypes of the inputs, in units of the output.
        convergence_delta: `[batch]`, `Σ contributions − (f(x) − f(x0))` *before* any rescaling.
        output: `[batch]`, `f(x)` at the target.
        baseline_output: `[batch]`, `f(x0)` at the target.
        target: int64 `[batch]`, or `[batch, k]` for outputs of more than two dimensions; `None` where the target is
            a callable or the output has no class dimension.
    """

    contributions: Any
    convergence_delta: Tensor
    output: Tensor
    baseline_output: Tensor
    target: Tensor | None


def check_rules(rules: str) -> None:
    """Raise unless `rules` names a rule set that is there.

    Raises:
        NotImplementedError: for `"complete"`, which is not built yet.
        ValueError: for an unknown name.
    """
    if rules == "complete":
        raise NotImplementedError(
            f'rules="complete" is not built yet; available: {", ".join(repr(name) for name in RULES)}'
        )
    if rules not in RULES:
        raise ValueError(f"rules is {rules!r}; accepted: {', '.join(repr(name) for name in RULES)}")


def attribute(
    model: Callable[..., Any],
    inputs: Inputs,
    baselines: Baselines = None,
    target: Target = None,
    *,
    forward_args: Sequence[Any] | Mapping[str, Any] = (),
    rules: str = "rescale",
    modules: Sequence[nn.Module] | None = None,
) -> Attribution:
    """DeepLIFT contributions of a batch's inputs to a model's output.

    Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences", with the Rescale
    rule (eq. 13) for ReLU, Sigmoid and Tanh wherever the model calls them, and ordinary gradients elsewhere; then
    scaled per sample so that contributions sum to `f(x) − f(x0)` (eq. 1).

    Neither the model nor the process is changed: parameters, buffers, `.grad`, hooks, attributes, training flag and
    random generators are as before, also after an exception. In training mode both streams see the same draws.

    Args:
        model: a module, or a callable on the inputs.
        inputs: floating-point tensors `[batch, …]`: one, a sequence (positional), or a mapping (by name).
        baselines: what inputs are compared with, in the same structure: `None` for zeros, a number, or a tensor of
            the input's shape or of one sample's.
        target: which output to explain: `None` for the largest at the input, an int, a tuple of ints for outputs of
            more than two dimensions, an integer tensor `[batch]`, or a callable from the model's output to `[batch]`.
        forward_args: further arguments of the model: a sequence (after the positional inputs) or a mapping (by name).
        rules: `"rescale"`, or `"pyhealth"` for PyHealth 2.1's arithmetic.
        modules: the modules that run inside a callable, so that their state is kept; a module, or a method of one,
            is found by itself.

    Returns:
        An :class:`Attribution`.

    Raises:
        NotImplementedError: for `rules="complete"`.
        ValueError, TypeError: for arguments that do not fit; the message names them.
        InterceptionError: if the model takes different paths at the input and at the baseline.

    Warns:
        ConvergenceWarning: if samples were scaled by a negative or a very large factor.
        TrainingModeWarning: if stochastic modules are in training mode.
    """
    check_rules(rules)
    if not callable(model):
        raise TypeError(f"model is a {type(model).__name__}; accepted: a torch.nn.Module or a callable")
    if modules is None:
        owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
        modules = (owner,) if isinstance(owner, nn.Module) else ()
    modules = tuple(modules)
    xs, x0s = _named(inputs, baselines)
    _check_forward_args(forward_args, inputs)
    check_model(model, modules)
    warn_if_training(modules)
    batch = _batch_size(xs)
    if batch == 0:
        return _empty(inputs, xs, target)
    streams = _Streams(model, forward_args, isinstance(inputs, Mapping), target, batch, rules, modules)
    found = streams.run(xs, x0s)
    contributions, delta = rescale(found.contributions, found.output, found.baseline_output)
    return Attribution(_like(inputs, contributions), delta, found.output, found.baseline_output, _shown(found.target))


def _named(inputs: Inputs, baselines: Baselines) -> tuple[dict[Hashable, Tensor], dict[Hashable, Tensor]]:
    """Inputs and baselines by name, or by position."""
    if isinstance(inputs, Tensor):
        xs, x0s = {0: inputs}, {0: baselines}
    elif isinstance(inputs, Mapping):
        xs, x0s = dict(inputs), dict.fromkeys(inputs) if baselines is None else baselines  # type: ignore
        if not isinstance(x0s, Mapping) or set(x0s) != set(xs):
            given = sorted(map(str, x0s)) if isinstance(x0s, Mapping) else type(x0s).__name__
            raise ValueError(f"baselines is {given}; with named inputs it must be a mapping of {sorted(map(str, xs))}")
    elif isinstance(inputs, Sequence):
        xs = dict(enumerate(inputs))
        values = [None] * len(xs) if baselines is None else baselines
        if isinstance(values, Tensor | Real | Mapping) or len(values) != len(xs):  # type: ignore[arg-type]
            raise ValueError(f"baselines must be a sequence of {len(xs)}, as inputs is; got {type(baselines).__name__}")
        x0s = dict(enumerate(values))  # type: ignore[arg-type]
    else:
        raise TypeError(f"inputs is a {type(inputs).__name__}; accepted: a tensor, a sequence or a mapping of tensors")
    if not xs:
        raise ValueError("inputs is empty; at least one tensor is needed")
    for name, x in xs.items():
        _check_input(name, x)
    return xs, {name: baselines_.resolve(name, x, x0s[name]) for name, x in xs.items()}  # type: ignore


def _check_input(name: Hashable, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"input {name!r} is a {type(x).__name__}; accepted: a floating-point tensor")
    if not x.is_floating_point():
        raise TypeError(
            f"input {name!r} is {x.dtype}; accepted: a floating-point tensor (embed indices first, or convert with "
            ".float())"
        )
    if x.dim() == 0:
        raise ValueError(f"input {name!r} has no dimensions; its first must be the batch")
    baselines_.require_finite(f"input {name!r}", x)


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
        raise ValueError(f"inputs differ in batch size (the first dimension): {sizes}")
    devices = {name: str(x.device) for name, x in xs.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(f"inputs lie on different devices: {devices}")
    return next(iter(sizes.values()))


def _empty(inputs: Inputs, xs: Mapping[Hashable, Tensor], target: Target) -> Attribution:
    nothing = next(iter(xs.values())).new_empty(0)
    contributions = {name: torch.zeros_like(x) for name, x in xs.items()}
    found = None if callable(target) else torch.empty(0, dtype=torch.int64, device=nothing.device)
    return Attribution(_like(inputs, contributions), nothing, nothing.clone(), nothing.clone(), found)


def _like(inputs: Inputs, values: dict[Hashable, Tensor]) -> Any:
    if isinstance(inputs, Tensor):
        return values[0]
    return values if isinstance(inputs, Mapping) else tuple(values.values())


def _shown(found: Tensor | None) -> Tensor | None:
    if found is None or found.shape[1] == 0:
        return None
    return found.squeeze(1) if found.shape[1] == 1 else found


@dataclass(frozen=True)
class _Found:
    contributions: dict[Hashable, Tensor]
    output: Tensor
    baseline_output: Tensor
    target: Tensor | None


@dataclass(frozen=True)
class _Streams:
    """The model, run at the baseline and at the input."""

    model: Callable[..., Any]
    forward_args: Sequence[Any] | Mapping[str, Any]
    by_name: bool
    target: Target
    batch: int
    rules: str
    modules: tuple[nn.Module, ...]

    def run(self, xs: Mapping[Hashable, Tensor], x0s: Mapping[Hashable, Tensor]) -> _Found:
        devices = {x.device for x in xs.values() if x.is_cuda}
        with torch.inference_mode(False), isolated(self.modules, devices) as rewind:
            baseline_output, records = self._at_baseline(x0s, rewind)
            rewind()
            leaves = {name: x.detach().requires_grad_() for name, x in _detached(xs).items()}
            output = self._at_input(leaves, records)
            return self._multiply(xs, x0s, leaves, output, baseline_output)

    def _at_baseline(self, x0s: Mapping[Hashable, Tensor], rewind: Callable[[], None]) -> tuple[Tensor, Records]:
        for copy in (False, True):
            records = Records()
            with torch.no_grad(), BaselinePass(records, self._kept(), self.rules == "pyhealth", copy):
                output = self._call(x0s)
            if copy or records.intact():
                break
            rewind()  # the model wrote to a pre-activation later on: once more, with copies
        return output, records

    def _at_input(self, leaves: Mapping[Hashable, Tensor], records: Records) -> Tensor:
        variant = "pyhealth" if self.rules == "pyhealth" else "rescale"
        actual = ActualPass(records, variant, self._kept(), self.rules == "pyhealth")
        with torch.enable_grad(), _no_checkpointing(), actual:
            output = self._call(leaves)
        actual.finish()
        return output

    def _kept(self) -> list[nn.Module | Tensor]:
        tensors = [leaf for leaf in pytree.tree_leaves(self.forward_args) if isinstance(leaf, Tensor)]
        return [*self.modules, *tensors]

    def _call(self, values: Mapping[Hashable, Tensor]) -> Tensor:
        # Clones: the model may write to its inputs, and a leaf may not be written to.
        tensors = {name: value.clone() for name, value in values.items()}
        args: list[Any] = [] if self.by_name else list(tensors.values())
        kwargs: dict[Any, Any] = dict(tensors) if self.by_name else {}
        further = pytree.tree_map_only(Tensor, _without_inference, self.forward_args)  # containers anew: it may pop
        if isinstance(further, Mapping):
            kwargs.update(further)
        else:
            args.extend(further)
        return targets.reduce(self.model(*args, **kwargs), self.target, self.batch)

    def _multiply(
        self,
        xs: Mapping[Hashable, Tensor],
        x0s: Mapping[Hashable, Tensor],
        leaves: dict[Hashable, Tensor],
        output: Tensor,
        baseline_output: Tensor,
    ) -> _Found:
        if output.shape != baseline_output.shape:
            raise ValueError(
                f"the model returned shape {tuple(output.shape)} at the input and {tuple(baseline_output.shape)} at "
                "the baseline; they must be equal"
            )
        found = targets.indices(output, self.target)
        with torch.enable_grad():
            chosen = targets.select(output, found)
            multipliers = _gradients(chosen.sum(), list(leaves.values()))
        with torch.no_grad():
            contributions = {
                name: torch.zeros_like(x) if m is None else (x - x0s[name]).mul_(m)
                for (name, x), m in zip(_detached(xs).items(), multipliers, strict=True)
            }
        return _Found(contributions, chosen.detach(), targets.select(baseline_output, found), found)


def _detached(xs: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
    return {name: _without_inference(x).detach() for name, x in xs.items()}


def _without_inference(tensor: Tensor) -> Tensor:
    """A tensor that autograd may save, where one made in inference mode is given."""
    return tensor.clone() if tensor.is_inference() else tensor


def _gradients(total: Tensor, leaves: list[Tensor]) -> Sequence[Tensor | None]:
    if not total.requires_grad:
        return [None] * len(leaves)
    try:
        return torch.autograd.grad(total, leaves, allow_unused=True)
    except RuntimeError as error:
        if "checkpoint" in str(error):  # torch.utils.checkpoint with use_reentrant=True
            raise InterceptionError(_CHECKPOINTING) from error
        raise


_CHECKPOINTING = (
    "attribution cannot run through activation checkpointing or other saved-tensor hooks; switch them off, in the "
    "model (for example model.gradient_checkpointing_disable()) or around this call"
)


@contextlib.contextmanager
def _no_checkpointing() -> Iterator[None]:
    """A checkpointed segment runs again in the backward pass, where the baseline's records are gone: refuse it."""
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks(_CHECKPOINTING):
            yield
    except RuntimeError as error:
        if str(error) == _CHECKPOINTING:
            raise InterceptionError(_CHECKPOINTING) from error
        raise
