"""DeepLift with PyHealth's signature."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import torch
from pyhealth.interpret.methods.base_interpreter import BaseInterpreter
from torch import Tensor

from deeplift_fast.core.attribution import Attribution
from deeplift_fast.core.diagnostics import Report, merged
from deeplift_fast.core.isolation import warn_if_harmlessly_training
from deeplift_fast.core.options import DELTA_TOL, Options, positive
from deeplift_fast.core.questions import NOW, Questions
from deeplift_fast.core.targets import class_target
from deeplift_fast.errors import BaselineWarning, FusionWarning, NotFused, warn
from deeplift_fast.ops.precision import description, in_full_precision
from deeplift_fast.pyhealth import as_read, given_baselines, joint_effects
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused import route
from deeplift_fast.pyhealth.fused.graphs import Graphs
from deeplift_fast.pyhealth.generic import GenericRoute, Values
from deeplift_fast.pyhealth.given_baselines import Baselines, Chosen, Parser
from deeplift_fast.pyhealth.interactions import Interactions
from deeplift_fast.pyhealth.points import FromEmbedding, check_model
from deeplift_fast.pyhealth.predictions import Comparison, PredictionDifference
from deeplift_fast.pyhealth.request import Batch, Request, refuse_misnamed


class DeepLift(BaseInterpreter):
    """DeepLIFT attributions of PyHealth models: a drop-in for `pyhealth.interpret.methods.DeepLift`.

    Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences". The model is put
    into eval mode, as by every PyHealth interpreter, and is not changed otherwise. Attribution starts at token
    embeddings and continuous values. They enter through `forward_from_embedding` if the model is
    `pyhealth.interpret.api.Interpretable`, else in place of its embeddings. Both streams use the real tokens' masks.

    Args:
        model: a PyHealth model.
        use_embeddings: whether token features are attributed through their embeddings, which tokens need. `False` runs
            `model.forward` on continuous features.
        rules: `"rescale"` for exact secant slopes of ReLU, Sigmoid and Tanh, with padding kept in the default baseline;
            `"complete"` for an exact secant Jacobian of every operation, without rescaling; `"pyhealth"` for the
            numbers of PyHealth 2.1, on models that PyHealth's class takes.
        steps: the number of equal segments of the line from baseline to input (for tokens, between embeddings): 1 is
            DeepLIFT, many approach integrated gradients. It costs `steps + 1` forward passes.
        delta_tol: under `"complete"`, the part of `f(x) − f(x0)` that a convergence delta may reach without a warning.
        segments_at_once: the number of segments that run together as rows of one batch, in two passes. The model must
            treat the patients of a batch independently. Fused layers ignore it.
        fuse: whether known models (StageNet, StageAttentionNet, Transformer, MLP, RNN) run through kernels for whole
            layers: the same numbers, many times as fast. A model that differs from PyHealth's own code (hooks, changed
            classes) runs operation by operation, with a warning that names the difference.
        cuda_graphs: whether fused layers on CUDA are captured as a graph, once per kind of batch, and replayed with one
            launch. This helps where launches keep the CPU busier than the GPU. Batches are of one kind if they have
            equal numbers of samples and, rounded up to a multiple of 16, of steps. Without a graph, a
            :class:`deeplift_fast.GraphWarning` names the reason.
        baseline: the baseline of calls without one, in the forms of :meth:`attribute`. `None` is `"removed"` under
            `"complete"`, and `"unk"` (PyHealth's UNK and 0.01) otherwise.
        cuda_graphs_memory: the bytes of a GPU's memory that the graphs of this interpreter may hold; `None` for a
            quarter of its memory. Graphs share their memory, and the least recently used ones make room.

    Raises:
        ValueError: if the model is not a PyHealth model, `rules` is unknown or does not fit the model, or `steps`,
            `delta_tol` or `cuda_graphs_memory` is out of range.

    Example:
        >>> from deeplift_fast import DeepLift
        >>> deeplift = DeepLift(model, rules="complete")
        >>> contributions = deeplift.attribute(**batch)
        >>> contributions["codes"].shape == batch["codes"].shape
        True
    """

    def __init__(
        self,
        model: Any,
        use_embeddings: bool = True,
        rules: str = "rescale",
        steps: int = 1,
        delta_tol: float = DELTA_TOL,
        segments_at_once: int = 1,
        fuse: bool = True,
        cuda_graphs: bool = False,
        baseline: Baselines = None,
        cuda_graphs_memory: int | None = None,
    ) -> None:
        options = Options(rules, steps, delta_tol, segments_at_once)
        if cuda_graphs_memory is not None:
            cuda_graphs_memory = positive("cuda_graphs_memory", cuda_graphs_memory)
        check_model(model, rules)
        given_baselines.check(baseline, rules, list(getattr(model, "feature_keys", ())))
        super().__init__(model)
        self.use_embeddings = use_embeddings
        self.options = options
        self.baseline = baseline
        self.fuse = fuse
        self.cuda_graphs = cuda_graphs
        self.cuda_graphs_memory = cuda_graphs_memory
        self._graphs = Graphs(cuda_graphs_memory) if cuda_graphs else None
        self._warned: set[type[Warning]] = set()
        self._generic = GenericRoute(model, use_embeddings, rules)
        self._comparison = Comparison()
        self._report: Report | None = None

    @property
    def rules(self) -> str:
        """The rule set."""
        return self.options.rules

    @property
    def steps(self) -> int:
        """The segments of the line from baseline to input."""
        return self.options.steps

    def __repr__(self) -> str:
        name, baseline = type(self.model).__name__, given_baselines.shown(self.baseline, self.rules)
        steps = f", steps={self.steps}" if self.steps != 1 else ""
        fuse = ("" if self.fuse else ", fuse=False") + (", cuda_graphs=True" if self.cuda_graphs else "")
        if self.cuda_graphs_memory is not None:
            fuse += f", cuda_graphs_memory={self.cuda_graphs_memory}"
        first = f"DeepLift(model={name}, use_embeddings={self.use_embeddings}, rules={self.rules!r}{steps}"
        return f"{first}, baseline={baseline!r}{fuse})"

    @property
    def prediction_difference(self) -> PredictionDifference | None:
        """The largest difference between the model's own logits of a padded batch and the explained ones.

        It is measured on the first batch and, if that has no padding, on the first batch with padding, for at most 16
        samples, from the shortest to the longest. `None` before the first call, and for a model that runs by its own
        `forward`, where the two are the same.
        """
        return self._comparison.found

    def report(self) -> Report:
        """The operations of the last call: for each its rule, its count and its part of the convergence delta.

        Returns:
            A :class:`deeplift_fast.core.diagnostics.Report`, also with the median and the 90th percentile of
            `Σ|c| / |f(x) − f(x0)|`, which measure cancellation; `print` shows a table.

        Raises:
            RuntimeError: before the first call.

        Example:
            >>> from deeplift_fast import DeepLift
            >>> deeplift = DeepLift(model, rules="complete")
            >>> _ = deeplift.attribute(**batch)
            >>> deeplift.report().baseline
            'removed'
        """
        if self._report is None:
            raise RuntimeError("report() describes the last call; call attribute first")
        return self._report

    @overload
    def attribute(
        self,
        baseline: Baselines = None,
        target_class_idx: int | None = None,
        return_convergence_delta: Literal[False] = False,
        steps: int | None = None,
        **batch: Any,
    ) -> dict[str, Tensor]: ...

    @overload
    def attribute(
        self,
        baseline: Baselines = None,
        target_class_idx: int | None = None,
        *,
        return_convergence_delta: Literal[True],
        steps: int | None = None,
        **batch: Any,
    ) -> tuple[dict[str, Tensor], Tensor]: ...

    def attribute(
        self,
        baseline: Baselines = None,
        target_class_idx: int | None = None,
        return_convergence_delta: bool = False,
        steps: int | None = None,
        **batch: Any,
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], Tensor]:
        """Contributions of each token or value of a batch to the target logit, relative to a baseline.

        Args:
            baseline: the baseline; `None` for the interpreter's own. A name: `"removed"` (as if no token were there and
                no value recorded; masks and lengths stay), or `"unk"` (PyHealth's unknown code and 0.01). A dict of
                feature key to a name, a number (at every real position), or a tensor: of the value's shape, `[size]`
                for a continuous feature of `size` dimensions, or for tokens an embedding, `[dim]` or
                `[*value.shape, dim]`; missing features keep the default. An object from
                :mod:`deeplift_fast.baselines`. Several of these, as a sequence or as a leading dimension of every
                tensor, give the mean of their contributions.
            target_class_idx: the class to explain; negative numbers count from the last one, `None` is the predicted
                class. A model with a single logit has one class.
            return_convergence_delta: whether to return the convergence delta too.
            steps: as for the class, for this call.
            **batch: a batch from PyHealth's loader: per feature key a tensor, or a tuple in the order of the
                processor's schema, on the model's device. `K_measured` marks the measured values of a continuous
                feature `K`, for baselines that need it (:func:`deeplift_fast.features.measured`). Labels and other
                metadata, such as `K_days` (:mod:`deeplift_fast.cohort.metadata`), are ignored.

        Returns:
            One floating-point tensor per feature key, of the value's shape; padding has exactly 0. With
            `return_convergence_delta`, a pair of that and `Σ contributions − (f(x) − f(x0))` per sample, `[batch]`
            (`[baselines, batch]` for several), *before* the rescaling of `"rescale"` that makes it 0.

        Raises:
            ValueError, TypeError: for a batch, baseline or target that does not fit; the message names the feature.
            TypeError: for a single value under an unknown name, such as `target=1`.
            InterceptionError: if the model takes different paths at the input and at the baseline (not under
                `"complete"`), or embeds its tokens in an unknown way.

        Warns:
            ConvergenceWarning: if a rescaling factor is negative or very large, or, under `"complete"`, a convergence
                delta passes `delta_tol`.
            TrainingModeWarning: if the model was put back into training mode.
            BaselineWarning: once, if no baseline is given under `"rescale"` and the model has token features.

        Example:
            >>> from deeplift_fast import DeepLift
            >>> deeplift = DeepLift(model, rules="complete")
            >>> contributions, delta = deeplift.attribute("removed", return_convergence_delta=True, **batch)
            >>> sorted(contributions), tuple(delta.shape)
            (['codes', 'labs'], (12,))
        """
        found = self.explain(baseline, target_class_idx, steps, **batch)
        return (found.contributions, found.convergence_delta) if return_convergence_delta else found.contributions

    @in_full_precision
    def explain(
        self,
        baseline: Baselines = None,
        target_class_idx: int | None = None,
        steps: int | None = None,
        at_baseline: Mapping[str, Tensor] | None = None,
        **batch: Any,
    ) -> Attribution:
        """As :meth:`attribute`, with the outputs that the contributions account for.

        Args:
            baseline: as for :meth:`attribute`.
            target_class_idx: likewise.
            steps: likewise.
            at_baseline: the tokens and values that move to the baseline while the others stay: a bool mask of the
                value's shape per feature key; missing features stay at the input. `output − baseline_output` is then
                the effect of these tokens and values. `None` moves everything.
            **batch: as for :meth:`attribute`.

        Returns:
            An :class:`deeplift_fast.Attribution`; `contributions` is a dict by feature key, `output` and
            `baseline_output` are target logits, `target` is int64 `[batch]`. With several baselines,
            `convergence_delta` and `baseline_output` are `[baselines, batch]`.

        Example:
            >>> from deeplift_fast import DeepLift
            >>> found = DeepLift(model, rules="complete").explain(**batch)
            >>> total = sum(each.flatten(1).sum(1) for each in found.contributions.values())
            >>> torch.allclose(total, found.output - found.baseline_output, atol=1e-5)
            True
        """
        request, one, chosen = self._asked(baseline, target_class_idx, steps, batch)
        only = given_baselines.masks(at_baseline, one.features)
        if one.size == 0:
            found = one.without_samples(self.model, len(chosen.each) if chosen.several else None)
        else:
            warn_if_harmlessly_training(self.model)
            each = self._attributed(request, one, chosen.values(one.features, only))
            found = _mean(each) if chosen.several else each[0]
            self._compare(one)
        name = chosen.name if only is None else f"{chosen.name}, where at_baseline says"
        precision = description(found.output.device.type)
        told = found.report
        self._report = Report(told.rows, told.delta, told.rounding, name, precision, told.cancellation)
        named = found.convergence_delta, found.output, found.baseline_output, found.target
        return Attribution(found.contributions, *named, self._report, name, found.multipliers, (self.model, batch))

    @in_full_precision
    def interactions(
        self,
        top: int = 8,
        players: Any = None,
        exact: bool = False,
        baseline: Baselines = None,
        target_class_idx: int | None = None,
        steps: int | None = None,
        rows_at_once: int | None = None,
        **batch: Any,
    ) -> Interactions:
        """The codes that act together: for each pair of a patient's strongest codes, their joint effect.

        Each of a patient's players is put at the baseline in turn, and the contributions of the others are computed
        again. The interaction of i and j is `(c_j − c_j without i) + (c_i − c_i without j)`: for two players alone it
        is `f(ij) − f(i) − f(j) + f(∅)`, and 0 where the model is additive. It costs up to `top + 1` attributions.
        Masks, lengths and the explained class are those of the whole record throughout.

        Args:
            top: the number of each patient's strongest codes, 2 to 64. A player is a code of one feature at all of its
                positions; a patient with fewer codes has fewer players. Named `players` make it void.
            players: named players instead: `(feature, code)`, or `(feature, code, positions)` for some positions of
                the code, where `code` is its text or its token index. One list serves all patients, who all need
                these codes; a list of lists has one list per patient. :attr:`Interactions.players` is accepted.
            exact: whether to give `f(x) − f(x without i) − f(x without j) + f(x without both)` itself, by
                `1 + n + n·(n − 1)/2` forward passes of the model for n players.
            baseline: as for :meth:`attribute`; of several baselines the mean.
            target_class_idx: likewise.
            steps: likewise.
            rows_at_once: the most records without a code that run as one batch. `None` for as many as the batch has
                patients, or more of few positions; for a model without fused layers, one in training mode or one that
                differs from PyHealth's own code, the batch itself, each patient without one code: such a model may
                mix the patients of a batch or draw numbers by row.
            **batch: as for :meth:`attribute`.

        Returns:
            The :class:`deeplift_fast.Interactions`.

        Raises:
            ValueError, TypeError: as for :meth:`attribute`; also for a number out of range, a model without codes,
                players that a patient does not have, and under `"pyhealth"`, whose contributions lie on padding too.
            InterceptionError: as for :meth:`attribute`.

        Example:
            >>> found = DeepLift(model, rules="complete").interactions(top=2, **batch)
            >>> found.values.shape, len(found.to_dataframe().nlargest(5, "interaction"))
            (torch.Size([12, 2, 2]), 5)
        """
        question = joint_effects.Question(top, players, exact, rows_at_once)
        joint_effects.refuse_as_pyhealth(self.rules)
        joint_effects.refuse_at_baseline(batch, list(self.model.feature_keys))
        request, one, chosen = self._asked(baseline, target_class_idx, steps, batch)
        one.questions.fetch()
        runner = joint_effects.Runner(request, one, chosen, self._generic, self._attributed, self._questions)
        if one.size == 0:
            return joint_effects.of_nobody(question, runner)
        warn_if_harmlessly_training(self.model)
        found = joint_effects.found(question, runner)
        self._compare(one)
        return found

    @in_full_precision
    def own_logits(self, features: Mapping[str, Feature], batch: Mapping[str, Any], count: int) -> Tensor:
        """The model's logits of the first samples, `[count, classes]`, as this interpreter runs it.

        Args:
            features: the batch, from :func:`deeplift_fast.pyhealth.features.read_features`.
            batch: the batch from PyHealth's loader.
            count: the number of samples.

        Returns:
            The logits.
        """
        return self._generic.own_logits(features, batch, count)

    def _asked(
        self, baseline: Baselines, target: int | None, steps: int | None, given: Mapping[str, Any]
    ) -> tuple[Request, Batch, Chosen]:
        """A call's request, batch and baselines, read and checked."""
        refuse_misnamed(self.model, given)
        options = self.options if steps is None else replace(self.options, steps=steps)
        one = self._generic.read(given, self._questions())
        request = Request(self.model, class_target(self.model, target), options)
        chosen = Parser(self.rules, one.features, one.layers, one.questions).read(baseline, self.baseline)
        given_baselines.check_layers(self.model, one, chosen)
        self._warn_of_untrained(baseline)
        return request, one, chosen

    def _questions(self) -> Questions:
        """New questions to a batch's numbers."""
        return route.questions_to(self.model) if self.fuse else NOW

    def _attributed(self, request: Request, batch: Batch, given: Sequence[Values]) -> list[Attribution]:
        """The attribution to each baseline."""
        values = [as_read.baselines_as_read(self.model, batch.features, each) for each in given]
        # On a GPU all baselines share a read-back; on a CPU each chooses its own route.
        groups = [values] if batch.questions.static else [[each] for each in values]
        each = [found for group in groups for found in self._of_group(request, batch, group)]
        if all(batch.read[key] is feature for key, feature in batch.features.items()):
            return each
        return [replace(found, contributions=as_read.as_given(found.contributions, batch.features)) for found in each]

    def _of_group(self, request: Request, batch: Batch, baselines: Sequence[Values]) -> list[Attribution]:
        found = self._fused(request, batch, baselines) if self.fuse else None
        if found is not None:
            return found
        batch.questions.fetch()
        if self._graphs is not None:
            self._graphs.refuse(f"{type(self.model).__name__} is attributed operation by operation")
        return [self._generic.run(request, batch, values) for values in baselines]

    def _fused(self, request: Request, batch: Batch, baselines: Sequence[Values]) -> list[Attribution] | None:
        """The attributions through fused layers; `None` if the model or the batch has none."""
        try:
            return route.attribute(request, batch, baselines, self._generic.own_logits, self._graphs)
        except NotFused as error:
            if str(error):
                self._warn_once(
                    f"{type(self.model).__name__} is attributed operation by operation, which is slower: {error}; pass "
                    "fuse=False if this is intended",
                    FusionWarning,
                )
            return None

    def _compare(self, batch: Batch) -> None:
        """Compare the explained logits with the model's own, on the first batch and the first padded one."""
        runs_itself = not isinstance(batch.point, FromEmbedding) or not self.use_embeddings
        if not runs_itself and self._comparison.wants(self.model, batch.features):
            self._comparison.take(self._generic.difference(batch.features))

    def _warn_of_untrained(self, given: Baselines) -> None:
        """Warn once if neither the call, by `given`, nor the interpreter chose a baseline for tokens."""
        if given is None and self.baseline is None and given_baselines.is_untrained(self.model, self.rules):
            self._warn_once(given_baselines.UNTRAINED, BaselineWarning)

    def _warn_once(self, message: str, category: type[Warning]) -> None:
        if category not in self._warned:
            self._warned.add(category)
            warn(message, category)


def _mean(found: Sequence[Attribution]) -> Attribution:
    """The mean over baselines; convergence deltas and baseline outputs stay one by one."""
    first, deltas = found[0], torch.stack([each.convergence_delta for each in found])
    means = {key: torch.stack([each.contributions[key] for each in found]).mean(0) for key in first.contributions}
    outputs0 = torch.stack([each.baseline_output for each in found])
    report = merged([each.report for each in found]).of(means.values(), first.output, outputs0.mean(0))
    return Attribution(means, deltas, first.output, outputs0, first.target, report)
