"""Whether a model says of a batch what is explained: padding that it takes for real changes its logits."""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.errors import PredictionWarning, warn
from deeplift_fast.pyhealth.features import Feature

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # as the fused layers' agreement with the model
_COARSE = 1e-2  # of shorter dtypes, and of a GPU's float32, which may round to TF32
_lock = threading.Lock()  # not an interpreter's own, which could then not be pickled


@dataclass(frozen=True)
class PredictionDifference:
    """How far what the model says of a batch is from what is explained.

    Attributes:
        samples: how many were compared.
        differing: of how many of them a logit differs.
        logit: the largest difference in a logit; NaN if one of the two is not finite.
        probability: the largest difference in a probability; `None` for regression.
        failure: how `model(**batch)` failed; empty where it did not.
    """

    samples: int
    differing: int
    logit: float
    probability: float | None
    failure: str = ""

    @property
    def is_to_tell(self) -> bool:
        """Whether a sample differs, or nothing could be compared."""
        return self.differing > 0 or bool(self.failure)

    def or_larger(self, other: "PredictionDifference") -> "PredictionDifference":
        """Both as one: the comparison with the larger difference in logit, and the larger one in probability.

        What is not finite is larger than any number, and a failed comparison smaller.
        """
        larger, _ = sorted((self, other), key=_size, reverse=True)
        probabilities = [each.probability for each in (self, other) if each.probability is not None]
        failure = self.failure or other.failure
        return replace(larger, probability=max(probabilities, default=None), failure=failure)

    def warn(self) -> None:
        """Issue a :class:`deeplift_fast.PredictionWarning` if a sample differs, or nothing could be compared."""
        if self.failure:
            warn(
                f"model(**batch) fails ({self.failure}), so what is explained, which enters at "
                "forward_from_embedding, could not be compared with what the model says of this batch",
                PredictionWarning,
            )
        if not self.differing:
            return
        probability = "" if self.probability is None else f" and {self.probability:.3g} in probability"
        warn(
            f"of {self.differing} of {self.samples} samples the model says something else in this batch than what is "
            f"explained, by up to {self.logit:.3g} in logit{probability}: model(**batch) takes padded steps for real, "
            "or masks a code whose embedding is 0, or does more than its forward_from_embedding. What is explained is "
            "what it says of each patient alone; docs/models.md says which models do so",
            PredictionWarning,
        )


class Comparison:
    """What the comparisons of one interpreter found: of its first batch, and of the first with padding in it.

    Threads that share the interpreter may ask at once: each of the two batches is compared by one of them.
    """

    def __init__(self) -> None:
        self.found: PredictionDifference | None = None
        """The larger difference of the two; `None` before the first."""
        self.done = False
        """Whether no further batch is compared."""
        self._begun = self._warned = False

    def wants(self, model: Any, features: Mapping[str, Feature]) -> bool:
        """Whether the caller must compare this batch; never for a model in training mode."""
        if self.done or any(module.training for module in model.modules()):
            return False
        padded = is_padded(features)
        with _lock:
            if self.done or (self._begun and not padded):
                return False
            self._begun = True
            # On a GPU the question whether a batch is padded waits, so it is asked once.
            self.done = padded or next(iter(features.values())).value.is_cuda
            return True

    def take(self, found: PredictionDifference) -> None:
        """Keep what a comparison found, and warn of it unless it was warned before."""
        with _lock:
            self.found = found if self.found is None else self.found.or_larger(found)
            is_news = found.is_to_tell and not self._warned
            self._warned |= is_news
        if is_news:
            found.warn()


def difference(model: Any, explained: Tensor, run: Callable[[], Tensor]) -> PredictionDifference:
    """Compare two sets of logits, `[batch, classes]`.

    Args:
        model: tells how logits become probabilities.
        explained: those that are explained.
        run: gives those of `model(**batch)`.
    """
    try:
        own = run()
    except Exception as error:  # the model is the user's: what is explained holds all the same
        return PredictionDifference(0, 0, math.nan, None, f"{type(error).__name__}: {error}")
    with torch.no_grad():
        alike = (own == explained) | (own.isnan() & explained.isnan())
        apart = torch.where(alike, 0.0, (own - explained).abs().double()).flatten(1)
        differs = ~(apart <= _tolerance(own) * (1 + own.abs().nan_to_num(0, 0, 0).amax())).all(1)
        before, after = (_probabilities(model, each) for each in (explained, own))
        change = None if before is None or after is None else float((before - after).abs().nan_to_num(0).max())
        return PredictionDifference(len(own), int(differs.sum()), float(apart.max()), change)


def _size(found: PredictionDifference) -> float:
    if not found.samples:
        return -1.0
    return found.logit if math.isfinite(found.logit) else math.inf


def _tolerance(own: Tensor) -> float:
    if own.is_cuda and own.dtype == torch.float32:
        return _COARSE
    return _TOLERANCE.get(own.dtype, _COARSE)


def is_padded(features: Mapping[str, Feature]) -> bool:
    """Whether a sample has fewer steps than the batch."""
    in_sequence = [each for each in features.values() if each.value.dim() > 1 and (each.is_token or each.in_steps)]
    last = [each.real()[:, -1].reshape(len(each.value), -1).any(1) for each in in_sequence]
    return not all(bool(each.all()) for each in last)


def _probabilities(model: Any, logits: Tensor) -> Tensor | None:
    mode = getattr(model, "mode", None)
    if mode == "multiclass":
        return logits.softmax(-1)
    return logits.sigmoid() if mode in ("binary", "multilabel") else None
