"""The metadata of a batch as columns, taken out of those of its group."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from deeplift_fast.cohort.metadata_checks import GroupMetadata, metadata_of
from deeplift_fast.cohort.metadata_entries import UNKNOWN
from deeplift_fast.cohort.samples import PaddedGroup
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.measured_flags import flags_key


@dataclass(frozen=True)
class BatchMetadata:
    """The metadata of some samples of a group.

    Attributes:
        group: those of the group.
        which: places of the samples in it, int64 `[batch]`.
    """

    group: GroupMetadata
    which: np.ndarray

    def splits(self) -> list[str | None] | None:
        """The split of each sample; `None` if none says it."""
        given = self.group.splits
        return None if given is None else [given[place] for place in self.which]

    def stays(self) -> pa.Array | None:
        """The stays of each sample, of the type of the column `stays`; `None` if none says them."""
        return None if self.group.stays is None else self.group.stays.column(self.which)

    def day(self, key: str, sample: np.ndarray, step: np.ndarray) -> np.ndarray | None:
        """The days of some steps of a feature, float32 `[rows]`, NaN where unknown; `None` without any.

        Args:
            key: the feature.
            sample: the sample of each step, a place in `which`, int `[rows]`.
            step: number of the step, int `[rows]`.
        """
        found = self.group.days.get(key)
        return None if found is None else found.at(self.which, sample, step, np.nan)

    def stay(self, key: str, sample: np.ndarray, step: np.ndarray) -> np.ndarray | None:
        """The stays of some steps as places in `group.labels`, int32 `[rows]`, :data:`UNKNOWN` where unknown."""
        found = self.group.stay.get(key)
        return None if found is None else found.at(self.which, sample, step, UNKNOWN)

    def measured(self, feature: Feature) -> np.ndarray | None:
        """The flags of a feature, int8 of the value's shape: 0, 1 or :data:`UNKNOWN`; `None` without any."""
        found = self.group.measured.get(feature.key)
        if found is None:
            return None
        if feature.flags is not None:
            flags: np.ndarray = feature.flags.cpu().numpy().astype(np.int8)
            flags[~found.said[self.which]] = UNKNOWN
            return flags
        shape = tuple(feature.value.shape)
        return found.padded(self.which, shape if len(shape) > 1 else (*shape, 1), UNKNOWN, np.int8)

    def flags(self, batch: Mapping[str, Any], model: Any) -> dict[str, Tensor]:
        """The flags of continuous features as padded tensors, which the interpreter reads faster than lists.

        Args:
            batch: the batch, padded.
            model: the model.
        """
        found = {}
        for key in self.group.fitting:
            entries, processor = self.group.measured[key], model.dataset.input_processors[key]
            if not processor.is_token() and entries.said[self.which].all():
                parts = batch[key]
                value = parts if isinstance(parts, Tensor) else parts[tuple(processor.schema()).index("value")]
                flags = entries.padded(self.which, tuple(value.shape), False, np.bool_)
                found[flags_key(key)] = torch.from_numpy(flags)
        return found


def metadata_of_batch(batch: Mapping[str, Any], size: int, model: Any) -> BatchMetadata:
    """The metadata of a whole batch; the group has their faults.

    Args:
        batch: the batch.
        size: number of its samples.
        model: the model.
    """
    which = np.arange(size)
    return BatchMetadata(metadata_of(PaddedGroup(which, batch), model), which)
