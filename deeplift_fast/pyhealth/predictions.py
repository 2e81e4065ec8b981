"""Compares the explained logits with a model's own; padding that a model reads in a batch changes these."""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.errors import PredictionWarning, warn
from deeplift_fast.pyhealth.features import Feature

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # as in the check of fused layers
_COARSE = 1e-2  # for shorter dtypes
COMPARED = 16  # samples of a batch; a pass of the model itself can take as long as twelve attributions
_lock = threading.Lock()  # shared, because an interpreter with a lock of its own could not be pickled


@dataclass(frozen=True)
class PredictionDifference:
    """The difference between the explained logits of samples of a batch and the model's own.

    Attributes:
        samples: the number of compared samples, see :func:`compared`.
        differing: the number of samples with another logit.
        logit: the largest difference in a logit; NaN if a logit is not finite.
        probability: the largest difference in a probability; `None` for regression.
        failure: the error of `model(**batch)`; empty without one.
    """

    samples: int
    differing: int
    logit: float
    probability: float | None
    failure: str = ""

    @property
    def is_to_tell(self) -> bool:
        """Whether a sample differs, or the comparison failed."""
        return self.differing > 0 or bool(self.failure)

    def or_larger(self, other: "PredictionDifference") -> "PredictionDifference":
        """The comparison with the larger difference in logit, with the larger probability difference of both.

        A difference that is not finite is the largest, and a failed comparison the smallest.
        """
        larger, _ = sorted((self, other), key=_size, reverse=True)
        probabilities = [each.probability for each in (self, other) if each.probability is not None]
        failure = self.failure or other.failure
        return replace(larger, probability=max(probabilities, default=None), failure=failure)

    def warn(self) -> None:
        """Issue a :class:`deeplift_fast.PredictionWarning` if a sample differs, or the comparison failed."""
        if self.failure:
            warn(
                f"model(**batch) fails ({self.failure}), so its logits could not be compared with the explained ones, "
                "which enter at forward_from_embedding",
                PredictionWarning,
            )
        if not self.differing:
            return
        probability = "" if self.probability is None else f" and {self.probability:.3g} in probability"
        warn(
            f"for {self.differing} of {self.samples} compared samples the model's logits in this batch differ from the "
            f"explained ones, by up to {self.logit:.3g} in logit{probability}: model(**batch) reads padded steps as "
            "real, or masks a code whose embedding is 0, or does more than its forward_from_embedding. The explanation "
            "is of the model's logits for each patient alone, as in a batch of one: output has them, so cite those. "
            "docs/models.md names the models that differ",
            PredictionWarning,
        )


class Comparison:
    """The comparisons of one interpreter: its first batch, and its first batch with padding.

    Threads may share the interpreter; one of them compares each of the two batches.
    """

    def __init__(self) -> None:
        self.found: PredictionDifference | None = None
        """The larger difference of the two; `None` before the first."""
        self.done = False
        """Whether no further batch is compared."""
        self._begun = self._warned = False

    def wants(self, model: Any, features: Mapping[str, Feature]) -> bool:
        """Whether the caller must compare this batch; never for a model in training mode."""
        if self.done:
            return False
        padded = is_padded(features)
        if (self._begun and not padded) or any(module.training for module in model.modules()):
            return False
        with _lock:
            if self.done or (self._begun and not padded):
                return False
            self._begun = True
            # On a GPU the check for padding waits for a read-back, so only one batch is compared.
            self.done = padded or next(iter(features.values())).value.is_cuda
            return True

    def take(self, found: PredictionDifference) -> None:
        """Keep the result of a comparison; the first difference gives a warning."""
        with _lock:
            self.found = found if self.found is None else self.found.or_larger(found)
            is_news = found.is_to_tell and not self._warned
            self._warned |= is_news
        if is_news:
            found.warn()


def difference(model: Any, explained: Tensor, run: Callable[[], Tensor]) -> PredictionDifference:
    """Compare two sets of logits, `[batch, classes]`.

    Args:
        model: its `mode` says how logits become probabilities.
        explained: the explained logits.
        run: returns the logits of `model(**batch)`.
    """
    try:
        own = run()
    except Exception as error:  # the user's model may raise anything; the explanation stays valid
        return PredictionDifference(0, 0, math.nan, None, f"{type(error).__name__}: {error}")
    with torch.no_grad():
        alike = (own == explained) | (own.isnan() & explained.isnan())
        apart = torch.where(alike, 0.0, (own - explained).abs().double()).flatten(1)
        differs = ~(apart <= _TOLERANCE.get(own.dtype, _COARSE) * (1 + own.abs().nan_to_num(0, 0, 0).amax())).all(1)
        before, after = (_probabilities(model, each) for each in (explained, own))
        change = None if before is None or after is None else float((before - after).abs().nan_to_num(0).max())
        return PredictionDifference(len(own), int(differs.sum()), float(apart.max()), change)


def _size(found: PredictionDifference) -> float:
    if not found.samples:
        return -1.0
    return found.logit if math.isfinite(found.logit) else math.inf


def compared(features: Mapping[str, Feature]) -> Mapping[str, Feature]:
    """The samples to compare, at most `COMPARED`, in even steps from the shortest to the longest of the batch.

    Models differ most where most is padded. All samples are compared if a part of a feature is no tensor of samples.
    """
    value = next(iter(features.values())).value
    size = len(value)
    parts = [part for each in features.values() for part in each.parts if part is not None]
    if size <= COMPARED or not all(isinstance(part, Tensor) and part.shape[:1] == (size,) for part in parts):
        return features
    lengths = [real.flatten(1).sum(1) for real in _real_positions(features)]
    places = torch.arange(COMPARED, device=value.device) * (size - 1) // (COMPARED - 1)
    if lengths:
        places = torch.argsort(torch.stack(lengths).sum(0), stable=True)[places]
    return {key: each.at(places) for key, each in features.items()}


def is_padded(features: Mapping[str, Feature]) -> bool:
    """Whether a sample has fewer steps than the batch."""
    return not all(_all_reach(real.select(1, -1)) for real in _real_positions(features))


def _real_positions(features: Mapping[str, Feature]) -> list[Tensor]:
    """The real positions of each feature that is a sequence, bool `[batch, steps, …]`."""
    in_sequence = [each for each in features.values() if each.value.dim() > 1 and (each.is_token or each.in_steps)]
    return [each.filled if each.is_token and each.mask is None else each.real() for each in in_sequence]


def _all_reach(last: Tensor) -> bool:
    """Whether every sample has a real position in its last step; `last` is bool, `[batch, …]`."""
    reaches = last if last.dim() == 1 else last.flatten(1).any(1)
    return bool(reaches if len(reaches) == 1 else reaches.all())


def _probabilities(model: Any, logits: Tensor) -> Tensor | None:
    mode = getattr(model, "mode", None)
    if mode == "multiclass":
        return logits.softmax(-1)
    return logits.sigmoid() if mode in ("binary", "multilabel") else None
