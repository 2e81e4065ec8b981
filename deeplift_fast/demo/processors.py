"""Feature processors that scale StageNet's inputs.

PyHealth's own processors pass raw hours and raw laboratory values to StageNet. These saturate its gates (a sodium of
140 beside a potassium of 4, intervals of thousands of hours), so a small model learns almost nothing. These two
subclasses give times in days, and laboratory values as differences from a typical value in units of its spread. A
missing value is 0, the typical value.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from pyhealth.processors import StageNetProcessor, StageNetTensorProcessor
from pyhealth.tasks import MortalityPredictionStageNetMIMIC4

HOURS_PER_DAY = 24.0

TYPICAL: dict[str, tuple[float, float]] = {
    "Sodium": (138.5, 5.0),
    "Potassium": (4.15, 0.6),
    "Chloride": (102.5, 6.0),
    "Bicarbonate": (24.5, 5.0),
    "Glucose": (128.5, 45.0),
    "Calcium": (1.125, 0.1),
    "Magnesium": (2.05, 0.3),
    "Anion Gap": (14.5, 4.0),
    "Osmolality": (290.5, 14.0),
    "Phosphate": (3.55, 1.1),
}
"""Typical value and spread of each lab category among adult inpatients, in MIMIC-IV's units.

They are constants, so that the scaling learns nothing from test patients. Typical values lie between the values that
laboratories report, so that no scaled value is exactly 0, which StageNet takes for padding.
"""


class DailyCodes(StageNetProcessor):
    """:class:`StageNetProcessor` with times in days, and the vocabulary and the codes of a visit in sorted order.

    PyHealth gives both the order of its event cache, which differs between builds. Sorted, the same data always give
    the same indices.
    """

    code_vocab: dict[Any, int]

    def fit(self, samples: Iterable[dict[str, Any]], field: str) -> None:
        """Builds the vocabulary.

        Args:
            samples: Samples whose ``field`` is ``(hours, [[code, …], …])``.
            field: Key of the feature.
        """
        super().fit(samples, field)
        special = ("<pad>", "<unk>")
        codes = sorted(code for code in self.code_vocab if code not in special)
        self.code_vocab = {code: index for index, code in enumerate((*special, *codes))}

    def process(self, value: tuple[list | None, list]) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Encodes one sample.

        Args:
            value: Hours since the visit before, one per visit, and the codes of each visit.

        Returns:
            Days (float32, [visits]) and token indices (int64, [visits, codes]).
        """
        hours, visits = value
        hours, tokens = super().process((hours, [sorted(codes) for codes in visits]))
        return (None if hours is None else hours / HOURS_PER_DAY), tokens


class StandardLabs(StageNetTensorProcessor):
    """:class:`StageNetTensorProcessor` with times in days and values scaled by `TYPICAL`.

    A value that was not yet measured is 0, the typical value; PyHealth's processor gives a raw 0.
    """

    def __init__(self) -> None:
        super().__init__()
        typical = np.array([TYPICAL[name] for name in MortalityPredictionStageNetMIMIC4.LAB_CATEGORY_NAMES])
        self.center, self.spread = typical.T

    def fit(self, samples: Iterable[dict[str, Any]], field: str) -> None:
        """Sets the number of dimensions.

        Args:
            samples: Not used.
            field: Key of the feature.
        """
        # The base class reads the type of the first number, which may be missing, so it gets a full vector.
        super().fit([{field: ([0.0], [self.center.tolist()])}], field)

    def process(self, value: tuple[list | None, list]) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Encodes one sample.

        Args:
            value: Hours since admission, one per step, and the vector of each step.

        Returns:
            Days (float32, [steps]) and scaled values (float32, [steps, dimensions]), gaps filled forward.
        """
        hours, values = value
        standard = (np.array(values, dtype=np.float64) - self.center) / self.spread
        times, tensor = super().process((hours, standard.tolist()))
        return (None if times is None else times / HOURS_PER_DAY), tensor

    def in_units(self, values: torch.Tensor) -> torch.Tensor:
        """Scaled values in the units of the source; NaN where nothing was measured yet.

        Args:
            values: float32, [..., dimensions], from :meth:`process`.

        Returns:
            float32, of the same shape.
        """
        spread, center = (values.new_tensor(numbers) for numbers in (self.spread, self.center))
        return (values * spread + center).masked_fill(values == 0, float("nan"))
