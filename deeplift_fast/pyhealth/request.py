"""One call of the interpreter: what is asked, and the batch as it was given and as the model reads it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core.options import Options
from deeplift_fast.core.questions import Questions
from deeplift_fast.core.result import Attribution
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.measured_flags import own_names
from deeplift_fast.pyhealth.points import Point


@dataclass(frozen=True)
class Request:
    """The part of a call that does not depend on the batch.

    Attributes:
        model: the PyHealth model.
        target: the class to explain, or `None` for the predicted one; int64 `[batch]` for a class of each sample, 0 and
            up.
        options: rules, steps and tolerance.
    """

    model: Any
    target: int | Tensor | None
    options: Options


@dataclass(frozen=True)
class Absent:
    """Tokens of a feature that stand at the baseline at the input too.

    Attributes:
        where: which ones, bool, in the shape that the model reads.
        at_input: the input: the baseline there, and the feature's own tokens elsewhere.
    """

    where: Tensor
    at_input: BaselineValue


@dataclass(frozen=True)
class Batch:
    """A batch.

    Attributes:
        given: the batch as PyHealth's loader yields it.
        features: its features, checked, by feature key.
        read: the same features in the shapes that the model reads.
        point: the entry of attribution in the model.
        questions: takes questions to the numbers in the batch.
        absent: the absent tokens by feature key. Masks and lengths are those of `read`, as if they were there.
    """

    given: Mapping[str, Any]
    features: Mapping[str, Feature]
    read: Mapping[str, Feature]
    point: Point
    questions: Questions
    absent: Mapping[str, Absent] = field(default_factory=dict)

    @functools.cached_property
    def layers(self) -> Mapping[str, Any]:
        """The model's embedding layers, by feature key."""
        return self.point.layers()

    @property
    def size(self) -> int:
        """The number of samples."""
        return next(iter(self.features.values())).value.shape[0]

    def without_samples(self, model: Any, baselines: int | None) -> Attribution:
        """The attribution of a batch of size 0; `baselines` is the number of baselines, or `None` for a single one."""
        dtype, device = next((p.dtype, p.device) for p in model.parameters() if p.is_floating_point())
        nothing = torch.empty(0, dtype=dtype, device=device)
        contributions = {
            key: torch.zeros_like(each.value, dtype=dtype if each.is_token else each.value.dtype)
            for key, each in self.features.items()
        }
        delta = nothing.clone() if baselines is None else nothing.expand(baselines, 0)
        target = torch.empty(0, dtype=torch.int64, device=device)
        return Attribution(contributions, delta, nothing, delta.clone(), target)


def refuse_misnamed(model: Any, given: Mapping[str, Any]) -> None:
    """Raise `TypeError` for what no batch holds, such as `target=1`, which would count as metadata of the batch."""
    for name, value in given.items():
        is_single = value is None or callable(value) or isinstance(value, _SINGLE) or getattr(value, "ndim", 1) == 0
        if is_single and name not in own_names(model):
            shown = value if isinstance(value, int | float) else type(value).__name__
            raise TypeError(
                f"{name} is {shown}, and {name} is neither an argument nor a feature or label of the model. Accepted: "
                "baseline, target_class_idx (the class to explain) and steps, with those in help() of this method; and "
                "a batch, whose metadata are tensors or lists with an entry for each sample"
            )


_SINGLE = (int, float, complex, str, bytes)
