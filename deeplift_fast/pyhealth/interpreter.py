"""DeepLift with PyHealth's signature."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import torch
from pyhealth.interpret.api import Interpretable
from pyhealth.interpret.methods.base_interpreter import BaseInterpreter
from pyhealth.models import GPT2, HALO, MedLink, TorchvisionModel
from torch import Tensor, nn

from deeplift_fast.core.attribution import Attribution
from deeplift_fast.core.diagnostics import Report
from deeplift_fast.core.isolation import isolated
from deeplift_fast.core.options import DELTA_TOL, Options
from deeplift_fast.core.questions import NOW, Questions
from deeplift_fast.core.targets import class_target
from deeplift_fast.core.training_mode import warn_if_harmlessly_training
from deeplift_fast.errors import BaselineWarning, FusionWarning, NotFused, warn
from deeplift_fast.pyhealth import as_read, given_baselines, predictions, several_baselines
from deeplift_fast.pyhealth.feature_baselines import Baseline, BaselineValue, Everywhere, FeatureBaseline, Given
from deeplift_fast.pyhealth.features import Feature, check_embeddable, read_features, require_known_dtype
from deeplift_fast.pyhealth.fused import route
from deeplift_fast.pyhealth.fused.graphs import Graphs
from deeplift_fast.pyhealth.generic import GenericRoute, Values
from deeplift_fast.pyhealth.given_baselines import Chosen, Parser
from deeplift_fast.pyhealth.points import FromEmbedding, FromTokens, Point, without_logits
from deeplift_fast.pyhealth.predictions import Comparison, PredictionDifference

# None, a name, a mapping of feature key to name, number or tensor, or an object from deeplift_fast.baselines.
OneBaseline = None | str | Mapping[str, Any] | Baseline
Baselines = OneBaseline | Sequence[OneBaseline]

_WITHOUT_LOGITS = (TorchvisionModel, GPT2, HALO, MedLink)

_UNTRAINED = (
    "no baseline was given, so each code is compared with the unknown code (UNK), whose embedding training never "
    "touches (PyHealth knows every code of the dataset): drawing it again would flip the sign of a third of the "
    'contributions; pass baseline="removed" to compare with the code not being there, or baseline="unk" to say that '
    "UNK is meant"
)


class DeepLift(BaseInterpreter):
    """DeepLIFT attributions of PyHealth models: a drop-in for `pyhealth.interpret.methods.DeepLift`.

    Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences". The model is put
    into eval mode, as every PyHealth interpreter does, and not touched otherwise. Attribution starts at the token
    embeddings and the raw continuous values: through `forward_from_embedding` where the model has it
    (`pyhealth.interpret.api.Interpretable`), else by answering its own embedding layers; masks are those of the real
    tokens in both streams.

    Args:
        model: a PyHealth model.
        use_embeddings: whether token features are embedded first and attributed through their embeddings (needed for
            tokens); `False` runs `model.forward` on continuous features as they are.
        rules: `"rescale"` for exact secant slopes of ReLU, Sigmoid and Tanh wherever the model calls them, and padding
            left as padding in the default baseline; `"complete"` for an exact secant Jacobian of every operation, with
            nothing rescaled; `"pyhealth"` for the numbers of PyHealth 2.1 (only for the models that it takes).
        steps: into how many equal segments the line from baseline to input (in embedding space for tokens) is cut:
            DeepLIFT at 1, integrated gradients as it grows; `steps + 1` forward passes.
        delta_tol: under `"complete"`, the part of `f(x) − f(x0)` that a convergence delta may reach without a warning.
        fuse: whether models whose layers are known here go through kernels for whole layers (StageNet,
            StageAttentionNet, Transformer, MLP, RNN; on the CPU): the same numbers, many times as fast. A model that is
            not exactly PyHealth's own (hooks, changed code) goes operation by operation, with a warning that says why.
        segments_at_once: how many of the steps go through the model as rows of one batch, in two passes for each such
            batch; for models that treat the patients of a batch one by one. It does not matter to fused layers.
        cuda_graphs: whether fused layers on CUDA are captured once per kind of batch and then replayed by one launch:
            the same numbers, for batches that keep the CPU busier than the GPU. Batches are of one kind if they have as
            many samples and, rounded up to a multiple of 16, as many steps. Where that is not possible it is done
            without, with a :class:`deeplift_fast.GraphWarning` that says why.
        baseline: what inputs are compared with where a call gives nothing else, in the forms of :meth:`attribute`.
            `None` is `"removed"` under `"complete"`, and `"unk"` (PyHealth's UNK and 0.01) under the other two.

    Raises:
        ValueError: if the model is none of PyHealth's, `rules` is unknown or does not fit the model, or `steps` or
            `delta_tol` is out of range.

    Example:
        >>> from deeplift_fast import DeepLift  # doctest: +SKIP
        >>> attributions = DeepLift(model).attribute(**next(iter(loader)))  # doctest: +SKIP
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
    ) -> None:
        options = Options(rules, steps, delta_tol, segments_at_once)
        interpretable = isinstance(model, Interpretable)
        if not interpretable and not _is_pyhealth_model(model):
            raise ValueError(
                f"model is a {type(model).__name__}; accepted: a PyHealth model, with feature_keys and a dataset (for "
                "other modules: deeplift_fast.attribute, deeplift_fast.captum.DeepLift)"
            )
        if isinstance(model, _WITHOUT_LOGITS):
            raise ValueError(without_logits(type(model).__name__, "its forward pass returns no logits of classes"))
        if rules == "pyhealth" and not interpretable:
            raise ValueError(
                f'rules is "pyhealth" and model a {type(model).__name__}, which PyHealth\'s DeepLift does not take (it '
                'is not Interpretable); accepted for it: "rescale", "complete"'
            )
        given_baselines.check(baseline, rules, list(getattr(model, "feature_keys", ())))
        super().__init__(model)
        self.use_embeddings = use_embeddings
        self.options = options
        self.baseline = baseline
        self.fuse = fuse
        self.cuda_graphs = cuda_graphs
        self._graphs = Graphs() if cuda_graphs else None
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
        name = type(self.model).__name__
        steps = f", steps={self.steps}" if self.steps != 1 else ""
        fuse = ("" if self.fuse else ", fuse=False") + (", cuda_graphs=True" if self.cuda_graphs else "")
        baseline = given_baselines.shown(self.baseline, self.rules)
        return (
            f"DeepLift(model={name}, use_embeddings={self.use_embeddings}, rules={self.rules!r}{steps}, "
            f"baseline={baseline!r}{fuse})"
        )

    @property
    def prediction_difference(self) -> PredictionDifference | None:
        """How far what the model says of a padded batch is from what is explained; `None` before the first call.

        It is looked at once: on the first batch, and where no sample of it is padded, once more on the first that has
        one; this is the larger difference then. `None` as well for a model that is run by its own `forward`, which says
        the same of itself.
        """
        return self._comparison.found

    def report(self) -> Report:
        """Each operation that the last call met, its rule, how often, and its part of the convergence delta.

        Also how far contributions cancel: the median and the 90th percentile of `Σ|c| / |f(x) − f(x0)|`.

        Returns:
            A :class:`deeplift_fast.core.diagnostics.Report`; `print` shows a table.

        Raises:
            RuntimeError: before the first call.
        """
        if self._report is None:
            raise RuntimeError("report() tells of the last call; call attribute first")
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
            baseline: what the batch is compared with; `None` for the interpreter's own. A name: `"removed"` (each token
                as if it were not there, each value as if it had never been recorded; masks and lengths stay), or
                `"unk"` (PyHealth's unknown code and 0.01). A dict of feature key to a name, a number (at every real
                position), or a tensor: of the value's shape (token indices or values), `[size]` for a continuous
                feature of `size` dimensions, or an embedding, `[dim]` or `[*value.shape, dim]`, for tokens; features
                that it lacks keep the default. An object from :mod:`deeplift_fast.baselines`. Several of these, as a
                sequence or with a leading dimension in every tensor, give the mean of their contributions.
            target_class_idx: the class to explain, below 0 from the last one; `None` for the predicted one. A
                single-logit model has only one.
            return_convergence_delta: whether to return the convergence delta too.
            steps: as for the class, for this call.
            **batch: what PyHealth's loader yields: per feature key a tensor, or a tuple in the order of the processor's
                schema, on the model's device. `K_measured` says which values of a continuous feature `K` were measured,
                for baselines that ask (:func:`deeplift_fast.features.measured`). Labels and metadata do not matter.

        Returns:
            One floating-point tensor per feature key, of the value tensor's shape; padding has exactly 0. With
            `return_convergence_delta`, a pair of that and `Σ contributions − (f(x) − f(x0))` per sample, `[batch]`
            (`[baselines, batch]` for several), *before* the rescaling of `"rescale"` that makes it 0.

        Raises:
            ValueError, TypeError: for a batch, baseline or target that does not fit; the message names the feature.
            InterceptionError: if the model takes different paths at the input and at the baseline (not under
                `"complete"`), or embeds its tokens in a way that is not known here.

        Warns:
            ConvergenceWarning: if samples were rescaled by a negative or a very large factor, or, under `"complete"`, a
                convergence delta passes `delta_tol`.
            TrainingModeWarning: if the model was put back into training mode.
            BaselineWarning: once, if no baseline is given under `"rescale"` and the batch holds tokens.
        """
        found = self.explain(baseline, target_class_idx, steps, **batch)
        if return_convergence_delta:
            return found.contributions, found.convergence_delta
        return found.contributions

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
            at_baseline: which tokens and values are put at the baseline while the others stay as they are: a bool mask
                of the value's shape per feature key; features that it lacks stay as they are. `output −
                baseline_output` then says what these tokens and values do. `None` puts everything at the baseline.
            **batch: as for :meth:`attribute`.

        Returns:
            An :class:`deeplift_fast.Attribution`; `contributions` is a dict by feature key, `output` and
            `baseline_output` are target logits, `target` is int64 `[batch]`. With several baselines,
            `convergence_delta` and `baseline_output` are `[baselines, batch]`.
        """
        options = self.options if steps is None else replace(self.options, steps=steps)
        questions = route.questions_to(self.model) if self.fuse else NOW
        features = read_features(self.model, batch, self.use_embeddings, questions)
        read = as_read.as_read(self.model, features, self.rules)
        point = self._generic.point(read, batch)
        layers = point.layers()
        target = class_target(self.model, target_class_idx)
        chosen = Parser(self.rules, features, layers, questions).read(baseline, self.baseline)
        self._check_embeddable(features, chosen, layers, questions)
        only = given_baselines.masks(at_baseline, features)
        self._warn_of_untrained(baseline)
        if next(iter(features.values())).value.shape[0] == 0:
            found = self._empty(features, len(chosen.each) if chosen.several else None)
        else:
            warn_if_harmlessly_training(self.model)
            values = [_values(each, features, only) for each in chosen.each]
            each_found = [
                self._run_either(read, features, each, target, point, options, batch, questions) for each in values
            ]
            found = several_baselines.mean(each_found) if chosen.several else each_found[0]
            self._compare(features, point)
        name = chosen.name if only is None else f"{chosen.name}, where at_baseline says"
        self._report = replace(found.report, baseline=name)
        return replace(found, report=self._report, baseline=name, source=(self.model, batch))

    def _warn_of_untrained(self, given: Baselines) -> None:
        """Warn, once, where nobody chose the baseline of tokens; `given` is what a call was given."""
        if given is None and self.baseline is None and self.rules == "rescale":
            processors = self.model.dataset.input_processors
            if any(processors[key].is_token() for key in self.model.feature_keys):
                self._warn_once(_UNTRAINED, BaselineWarning)

    def _check_embeddable(
        self,
        features: Mapping[str, Feature],
        chosen: Chosen,
        layers: Mapping[str, Any],
        questions: Questions,
    ) -> None:
        for key, feature in features.items():
            if key not in layers:
                require_known_dtype(feature, self.model)
                continue
            check_embeddable(f"feature {key!r}", feature.value, layers[key], questions)
            for each in chosen.each:
                given = each[key]
                if isinstance(given, Given):
                    check_embeddable(f"baseline of feature {key!r}", given.value, layers[key], questions)
                elif isinstance(given, Everywhere) and feature.is_token:
                    check_embeddable(f"baseline of feature {key!r}", given.step, layers[key])

    def _empty(self, features: Mapping[str, Feature], baselines: int | None) -> Attribution:
        dtype, device = next((p.dtype, p.device) for p in self.model.parameters() if p.is_floating_point())
        nothing = torch.empty(0, dtype=dtype, device=device)
        contributions = {
            key: torch.zeros_like(f.value, dtype=dtype if f.is_token else f.value.dtype) for key, f in features.items()
        }
        target = torch.empty(0, dtype=torch.int64, device=device)
        each = nothing.clone() if baselines is None else nothing.expand(baselines, 0)
        return Attribution(contributions, each, nothing, each.clone(), target)

    def _run_either(
        self,
        read: Mapping[str, Feature],
        features: Mapping[str, Feature],
        baselines: Values,
        target: int | None,
        point: Point,
        options: Options,
        batch: Mapping[str, Any],
        questions: Questions,
    ) -> Attribution:
        """The attribution of one baseline: `read` is how the model reads `features`."""
        baselines = as_read.baselines_as_read(self.model, features, baselines)
        found = self._run_fused(read, baselines, target, options, batch, questions)
        if found is None:
            questions.fetch()
            if self._graphs is not None:
                self._graphs.refuse(f"{type(self.model).__name__} is attributed operation by operation")
            found = self._generic.run(read, baselines, target, point, options)
        return replace(found, contributions=as_read.as_given(found.contributions, features))

    def own_logits(self, features: Mapping[str, Feature], batch: Mapping[str, Any], count: int) -> Tensor:
        """The model's logits of the first samples, `[count, classes]`, as this interpreter runs it.

        Args:
            features: the batch, as :func:`deeplift_fast.pyhealth.features.read_features` gives it.
            batch: what PyHealth's loader yielded.
            count: how many samples.
        """
        return self._generic.own_logits(features, batch, count)

    def _compare(self, features: Mapping[str, Feature], point: Point) -> None:
        """Compare, once, what is explained with what the model says of the batch: the first, and the first padded one.

        A model that is run by its own `forward` says the same of itself.
        """
        if self._comparison.done or not isinstance(point, FromEmbedding) or not self.use_embeddings:
            return
        if any(module.training for module in self.model.modules()) or not self._comparison.wants(features):
            return
        explained = self._generic.own_logits(features, {}, len(next(iter(features.values())).value))
        with isolated([self.model], set()) as rewind:
            alone = self._generic.alone(rewind)
            found = predictions.difference(self.model, explained, lambda: alone(lambda: _plain(self.model, features)))
        self._comparison.take(found)

    def _run_fused(
        self,
        features: Mapping[str, Feature],
        baselines: Values,
        target: int | None,
        options: Options,
        batch: Mapping[str, Any],
        questions: Questions,
    ) -> Attribution | None:
        """The attribution through fused layers; `None` where there are none for the model or the batch."""
        if not self.fuse:
            return None
        inputs = as_read.with_masks(self.model, features, self.rules, torch.bool)
        try:
            return route.attribute(
                self.model, inputs, baselines, target, options,
                lambda count: self._generic.own_logits(features, batch, count), questions, self._graphs,
            )  # fmt: skip
        except NotFused as error:
            if str(error):
                self._warn_once(
                    f"{type(self.model).__name__} is attributed operation by operation, which is slower: {error}; "
                    "fuse=False says that this is meant",
                    FusionWarning,
                )
            return None

    def _warn_once(self, message: str, category: type[Warning]) -> None:
        if category not in self._warned:
            self._warned.add(category)
            warn(message, category)


def _is_pyhealth_model(model: Any) -> bool:
    dataset = getattr(model, "dataset", None)
    return isinstance(model, nn.Module) and hasattr(model, "feature_keys") and hasattr(dataset, "input_processors")


def _values(
    each: Mapping[str, FeatureBaseline], features: Mapping[str, Feature], only: Mapping[str, Tensor] | None
) -> dict[str, BaselineValue]:
    """What a batch holds at a baseline."""
    found = {key: each[key].of(feature) for key, feature in features.items()}
    return found if only is None else {key: value.only(only[key], features[key]) for key, value in found.items()}


def _plain(model: Any, features: Mapping[str, Feature]) -> Tensor:
    """What the model says of a batch: `model(**batch)["logit"]`."""
    given = {key: each.parts if len(each.parts) > 1 else each.value for key, each in features.items()}
    return FromTokens(model, given, []).plain(features, {key: each.value for key, each in features.items()})
