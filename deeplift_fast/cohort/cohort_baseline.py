"""What every sample of a cohort is compared with.

A batch's baseline has the batch's shape, which differs from batch to batch: a cohort's is given per step instead.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.baselines import require_finite
from deeplift_fast.cohort.errors import CohortError
from deeplift_fast.cohort.hashing import digest
from deeplift_fast.features import Feature, default_baseline, read_features

_ACCEPTED = "None, or a dict with a number per feature key, or a tensor that fits one step of the feature"


class CohortBaseline:
    """A baseline for batches of any shape.

    Args:
        given: `None` for the interpreter's own default, or a mapping from feature keys to a number (a token index, a
            value) or a tensor of one step's shape, which stands at every real position; padding stays padding, and
            features that are not named keep the default.
        model: the PyHealth model.
        rules: the interpreter's rule set.

    Raises:
        CohortError: for anything else.
    """

    def __init__(self, given: Any, model: Any, rules: str) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise CohortError(f"baseline is a {type(given).__name__}; accepted: {_ACCEPTED}")
        unknown = sorted(set(map(str, given or ())) - set(model.feature_keys))
        if unknown:
            raise CohortError(f"baseline has the key(s) {unknown}; accepted: {list(model.feature_keys)}")
        self._as_pyhealth = rules == "pyhealth"
        self._steps = {key: _step(key, value, model) for key, value in (given or {}).items()}

    @property
    def name(self) -> str:
        """`"default"`, or a digest of what was given."""
        return digest(self._steps) if self._steps else "default"

    def of(self, model: Any, batch: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """What `DeepLift.explain` takes for a batch.

        Raises:
            ValueError, TypeError: for a batch that does not fit the model, as `read_features` does, or a step of
                another shape.
        """
        if not self._steps:
            return None
        features = read_features(model, batch, use_embeddings=True)
        return {key: self._of_feature(feature) for key, feature in features.items()}

    def _of_feature(self, feature: Feature) -> Tensor:
        if feature.key not in self._steps:
            return default_baseline(feature, self._as_pyhealth)
        step = self._steps[feature.key].to(feature.value)
        return torch.where(feature.real(), step.expand(feature.value.shape), feature.value)


def _step(key: str, given: Any, model: Any) -> Tensor:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not isinstance(given, Tensor) and not is_number:
        raise CohortError(f"baseline of feature {key!r} is a {type(given).__name__}; accepted: {_ACCEPTED}")
    step = given if isinstance(given, Tensor) else torch.tensor(given, device="cpu")
    tokens = bool(model.dataset.input_processors[key].is_token())
    if tokens and (step.is_floating_point() or step.is_complex() or step.dtype == torch.bool):
        raise CohortError(f"baseline of feature {key!r} is {step.dtype}; accepted: a token index")
    if step.dim() > 1:
        raise CohortError(
            f"baseline of feature {key!r} has shape {tuple(step.shape)}; accepted: one number, or one per dimension of "
            "a step: lengths differ from sample to sample"
        )
    try:
        require_finite(f"baseline of feature {key!r}", step)
    except ValueError as error:
        raise CohortError(str(error)) from None
    return step
