"""Whether a model says of a batch what is explained: padding that it takes for real changes its logits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.errors import PredictionWarning, warn
from deeplift_fast.features import Feature

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # as the fused layers' agreement with the model
_COARSE = 1e-2  # of shorter dtypes, and of a GPU's float32, which may round to TF32


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
