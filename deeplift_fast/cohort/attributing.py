"""Attributes the samples of a part batch by batch, and sorts out those that cannot be attributed."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.cohort import failures
from deeplift_fast.cohort.budget import is_out_of_memory
from deeplift_fast.cohort.entries import taken
from deeplift_fast.cohort.failures import Failure
from deeplift_fast.cohort.metadata_checks import GroupMetadata
from deeplift_fast.cohort.metadata_columns import BatchMetadata
from deeplift_fast.cohort.part_interactions import PairColumns, pair_columns
from deeplift_fast.cohort.part_tables import BatchColumns, Texts, columns_of
from deeplift_fast.cohort.samples import Batch, Group, Stretch, cut
from deeplift_fast.cohort.settings import Settings
from deeplift_fast.core.attribution import Attribution
from deeplift_fast.errors import CohortError, ConvergenceWarning, PredictionWarning, is_reader_death
from deeplift_fast.pyhealth.features import read_features
from deeplift_fast.pyhealth.fused.recognise import keeps_apart
from deeplift_fast.pyhealth.interpreter import DeepLift

ALIGNMENT = 64
"""Alignment in bytes of tensors that PyTorch allocates on a CPU."""

NO_PAIRS = "the attribution is not finite without one of the strongest codes"
"""The reason of a sample whose interactions are not finite."""

HOPELESS = 8
"""Number of errors of the interpreter after which a run without any attributed sample ends."""


@dataclass
class PartResult:
    """The result of attributing a part.

    Attributes:
        stretch: the part without its samples.
        batches: the columns that each batch adds to the tables.
        failures: samples that could not be attributed.
        budget: padded steps per batch at the end; lower than at the beginning if memory ran out.
        raised: number of failures in which the interpreter raised an error.
        seconds: duration of the attribution, which the caller measures.
    """

    stretch: Stretch
    batches: list[BatchColumns] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    budget: int = 0
    raised: int = 0
    seconds: float = 0.0

    @property
    def deltas(self) -> np.ndarray:
        """Convergence deltas of the attributed samples, float32."""
        return np.concatenate([np.empty(0, np.float32), *(each.columns["convergence_delta"] for each in self.batches)])


class Attributor:
    """Attributes parts with one interpreter.

    Args:
        interpreter: the interpreter.
        settings: the run's settings.
    """

    def __init__(self, interpreter: DeepLift, settings: Settings) -> None:
        self.interpreter = interpreter
        self.model: Any = interpreter.model
        self.keys = list(self.model.feature_keys)
        self.texts = Texts(self.model, settings.dimensions)
        self.proven = False
        """Whether any sample was attributed; before, errors may be the interpreter's fault."""
        self.splits = settings.splits
        self.interactions = settings.interactions
        self._baseline, self._target = settings.baseline, settings.target

    def attributable(self, stretch: Stretch, count: int) -> Batch | None:
        """Up to `count` samples of a stretch that can be attributed, the longest first; `None` if none can."""
        groups = [group for group in stretch.groups if not group.is_loaded]
        if not groups:
            return None
        group = max(groups, key=lambda each: len(each.numbers))
        fit, _, metadata = failures.check(group, self.model)
        longest = fit[np.argsort(-group.lengths(self.keys)[fit], kind="stable")][:count]
        batch = Batch(group, longest)
        result = PartResult(replace(stretch, groups=()), budget=self.padded(batch))
        self._attribute([batch] if len(longest) else [], metadata, result)
        tried = np.concatenate([np.empty(0, np.int64), *(each.numbers for each in result.batches)])
        return Batch(group, longest[np.isin(group.numbers[longest], tried)]) if len(tried) else None

    def explain(self, batch: Batch) -> int:
        """Attributes a batch, drops the result, and returns its padded steps: for measuring the cost."""
        given, _, _ = self._explain(batch, None)
        steps = self.padded(batch)
        self._pairs(batch, given, steps)
        return steps

    def padded(self, batch: Batch) -> int:
        """Padded steps of a batch: samples times the longest sequence among them."""
        return len(batch.which) * int(batch.group.lengths(self.keys)[batch.which].max(initial=1))

    def part(self, stretch: Stretch, budget: int) -> PartResult:
        """Attributes the samples of a part.

        Args:
            stretch: the part.
            budget: padded steps per batch.

        Raises:
            CohortError: if the interpreter raises for each of the first :data:`HOPELESS` samples, or a sample is in
                another split than it says.
        """
        result = PartResult(replace(stretch, groups=()), budget=budget)
        for group in stretch.groups:
            fit, found, metadata = failures.check(group, self.model)
            result.failures += found
            self._check_splits(group, fit, metadata.splits)
            self._attribute(cut(group, fit, self.keys, result.budget), metadata, result)
        return result

    def _check_splits(self, group: Group, fit: np.ndarray, said: list[str | None] | None) -> None:
        """Raise CohortError if one of these samples of a group says another split than the run was given."""
        if self.splits.numbers and said is not None:
            self.splits.merged(group.numbers[fit], [said[place] for place in fit])

    def _attribute(self, batches: list[Batch], metadata: GroupMetadata, result: PartResult) -> None:
        waiting = batches[::-1]  # a stack: the pieces of a batch come next
        while waiting:
            batch = waiting.pop()
            try:
                result.batches.append(self._batch(batch, BatchMetadata(metadata, batch.which), result))
            except Exception as error:
                if is_reader_death(error):
                    raise
                if is_out_of_memory(error):
                    waiting = self._smaller(batch, waiting, result)
                elif len(batch.which) > 1:
                    waiting += batch.halves()[::-1]
                else:
                    self._give_up(batch, error, result)

    def _batch(self, batch: Batch, metadata: BatchMetadata, result: PartResult) -> BatchColumns:
        """Attributes one batch; samples whose attribution is not finite become failures."""
        given, found, probability = self._explain(batch, metadata)
        pairs = self._pairs(batch, given, result.budget)
        self.proven = True
        finite = _finite(found)
        fit = finite if pairs is None else finite & ~np.isin(batch.numbers, pairs.not_finite())
        if fit.all():
            return replace(columns_of(self.texts, given, found, batch.numbers, probability, metadata), pairs=pairs)
        sound, reasons = np.flatnonzero(fit), _reasons(found)
        result.failures += [
            Failure(int(batch.numbers[row]), NO_PAIRS if finite[row] else reasons[row]) for row in np.flatnonzero(~fit)
        ]
        keep = torch.from_numpy(sound).to(found.output.device)
        given = {key: taken(value, sound) for key, value in given.items()}
        probability = None if probability is None else probability[keep]
        few = BatchMetadata(metadata.group, batch.which[sound])
        columns = columns_of(self.texts, given, _kept(found, keep), batch.numbers[sound], probability, few)
        return replace(columns, pairs=None if pairs is None else pairs.of(columns.numbers))

    def _pairs(self, batch: Batch, given: Mapping[str, Any], budget: int) -> PairColumns | None:
        """The pairs of the strongest codes of each sample; `None` for a run without them.

        Each sample is attributed again without each of these codes. At most `budget` padded steps, or as many samples
        as the batch has, are attributed at once; fewer where memory runs out for a sample alone. A model that may mix
        the samples of a batch, such as one without fused layers, always has the whole batch.
        """
        if self.interactions is None:
            return None
        samples = len(batch.which)
        rows = max(samples, budget * samples // self.padded(batch)) if keeps_apart(self.model) else None
        asked = {"baseline": self._baseline.given, "target_class_idx": self._target, **given}
        while True:
            try:
                found = self.interpreter.interactions(self.interactions, rows_at_once=rows, **asked)
            except Exception as error:
                if samples > 1 or rows in (None, 1) or not is_out_of_memory(error):
                    raise
                rows = min(rows, self.interactions) // 2
            else:
                return pair_columns(self.texts, self.keys, found, batch.numbers)

    def _explain(
        self, batch: Batch, metadata: BatchMetadata | None
    ) -> tuple[dict[str, Any], Attribution, Tensor | None]:
        given = batch.given()
        if metadata is not None:
            given |= metadata.flags(given, self.model)
        given = to_device(given, self.model.device)
        found = _as_one(self.interpreter.explain(self._baseline.given, self._target, **given))
        return given, found, self._probability(given, found)

    def _probability(self, given: Mapping[str, Any], found: Attribution) -> Tensor | None:
        """Predicted probability of the target, `[batch]`; `None` for regression.

        A multiclass model takes one more forward pass: its probability depends on all logits, not on the target's.
        """
        if self.model.mode != "multiclass":
            return found.output.sigmoid() if self.model.mode in ("binary", "multilabel") else None
        features = read_features(self.model, given, use_embeddings=True)
        logits = self.interpreter.own_logits(features, given, len(found.output))
        assert found.target is not None  # a PyHealth model's output has a class dimension
        return logits.softmax(-1).gather(1, found.target[:, None])[:, 0]

    def _smaller(self, batch: Batch, waiting: list[Batch], result: PartResult) -> list[Batch]:
        """The batches left to do after memory ran out, cut by half the budget."""
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch.which) == 1:
            result.failures.append(Failure(int(batch.numbers[0]), "memory ran out for this sample alone"))
            return waiting
        result.budget = max(1, min(result.budget, self.padded(batch)) // 2)
        if batch.group.is_loaded:
            return waiting + list(batch.halves()[::-1])
        rest = np.sort(np.concatenate([each.which for each in (batch, *waiting)]))
        return cut(batch.group, rest, self.keys, result.budget)[::-1]

    def _give_up(self, batch: Batch, error: Exception, result: PartResult) -> None:
        reason = failures.describe(error, batch.given(), self.model)
        result.failures.append(Failure(int(batch.numbers[0]), reason))
        result.raised += 1
        if not self.proven and result.raised >= HOPELESS:
            method = "explain" if self.interactions is None else "interactions"
            raise CohortError(
                f"none of the first {HOPELESS} samples could be attributed: {reason}; interpreter.{method} on one "
                "batch shows the error in full"
            ) from None  # its message may hold a patient's values


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses warnings that the run itself sums up.

    The tables hold every convergence delta, and the run warns of differing predictions once, at its end. The filter
    holds for the whole process, so the thread that starts the others enters it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", PredictionWarning)
        yield


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors, and tuples of tensors, on a device.

    Tensors on a CPU are copied unless they are aligned as PyTorch aligns its own. The last bits of products depend on
    alignment, and a resumed run must reproduce them.
    """

    def move(item: Any) -> Any:
        if isinstance(item, Tensor):
            moved = item.to(device)
            aligned = moved.device.type != "cpu" or moved.data_ptr() % ALIGNMENT == 0
            return moved if aligned else moved.clone()
        return tuple(map(move, item)) if isinstance(item, tuple) else item

    return {key: move(item) for key, item in batch.items()}


def _as_one(found: Attribution) -> Attribution:
    """The attribution with baseline outputs and deltas averaged over several baselines, `[batch]`."""
    if found.baseline_output.dim() == 1:
        return found
    outputs, deltas = found.baseline_output.mean(0), found.convergence_delta.mean(0)
    return replace(found, baseline_output=outputs, convergence_delta=deltas)


def _finite(found: Attribution) -> np.ndarray:
    """Whether the outputs and contributions of each sample are finite, bool `[batch]`."""
    every = (found.output, found.baseline_output, found.convergence_delta, *found.contributions.values())
    if found.output.device.type == "cpu" and all(math.isfinite(float(each.sum())) for each in every):
        return np.ones(len(found.output), bool)  # a sum is much cheaper than a check of each number
    finite = found.output.isfinite() & found.baseline_output.isfinite() & found.convergence_delta.isfinite()
    for contributions in found.contributions.values():
        finite = finite & contributions.reshape(len(finite), -1).isfinite().all(1)
    return finite.cpu().numpy()


def _reasons(found: Attribution) -> list[str]:
    """The reason for each sample to fail, if its attribution is not finite."""
    said = ["the attribution is not finite"] * len(found.output)
    for end, outputs in (("baseline", found.baseline_output), ("input", found.output)):
        for place in np.flatnonzero(~outputs.isfinite().cpu().numpy()):
            said[place] = f"the model's output is not finite at the {end}"
    return said


def _kept(found: Attribution, keep: Tensor) -> Attribution:
    return replace(
        found,
        contributions={key: value[keep] for key, value in found.contributions.items()},
        convergence_delta=found.convergence_delta[keep],
        output=found.output[keep],
        baseline_output=found.baseline_output[keep],
        target=found.target[keep] if isinstance(found.target, Tensor) else found.target,
    )
