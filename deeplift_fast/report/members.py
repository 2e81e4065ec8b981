"""The group, target and patient of each sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from deeplift_fast.report.bootstrap import hash_texts
from deeplift_fast.report.grouping import MOST_GROUPS, Cut


@dataclass(frozen=True)
class Members:
    """The samples of a part.

    Attributes:
        groups: per grouping, the group of each sample, int64 `[samples]`; −1 for none.
        target: place of its target in :attr:`Assigner.targets`, int64 `[samples]`; −1 for none.
        patient: a hash of its patient, uint64 `[samples]`.
        number: its number, int64 `[samples]`.
    """

    groups: tuple[np.ndarray, ...]
    target: np.ndarray
    patient: np.ndarray
    number: np.ndarray


class Assigner:
    """Assigns samples to groups and targets, part by part.

    Args:
        groupings: ways to divide samples into groups; a sample is in at most one group of each.
    """

    def __init__(self, groupings: Sequence[Cut]) -> None:
        self.groupings = tuple(groupings)
        self.targets: dict[int, int] = {}
        """The place of each target; `MOST_GROUPS` + 1 targets stand for more too."""

    def columns(self) -> set[str]:
        """Columns of `samples` that :meth:`assign` reads."""
        return {"sample", "patient_id", "target"}.union(*(grouping.columns for grouping in self.groupings))

    def assign(self, samples: pa.Table) -> Members:
        """The groups, targets and patients of a part's samples."""
        groups = tuple(grouping.assign(samples) for grouping in self.groupings)
        return Members(groups, self._target_of(samples), _patient_hashes(samples), samples["sample"].to_numpy())

    def _target_of(self, samples: pa.Table) -> np.ndarray:
        known, place = np.unique(samples["target"].fill_null(0).to_numpy(), return_inverse=True)
        for target in known.tolist():
            if len(self.targets) <= MOST_GROUPS:
                self.targets.setdefault(target, len(self.targets))
        return np.array([self.targets.get(target, -1) for target in known.tolist()], np.int64)[place]


def _patient_hashes(samples: pa.Table) -> np.ndarray:
    """A hash of each sample's patient, uint64 `[samples]`; a sample without `patient_id` is its own patient."""
    patients = samples["patient_id"].cast(pa.string()).to_numpy(zero_copy_only=False)
    lone = np.array([f"sample {number}" for number in samples["sample"].to_pylist()], dtype=object)
    return hash_texts(np.where(pd.isna(patients), lone, patients))
