"""Baselines with numbers from a dataset: their values, their table, and the baseline of a batch."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from deeplift_fast.core.devices import moved
from deeplift_fast.pyhealth.feature_baselines import FAINT, Baseline, BaselineValue, Embedded, FeatureBaseline, Removed
from deeplift_fast.pyhealth.features import Feature, measured

_DIGITS = 12  # length of a digest


@dataclass(frozen=True)
class FittedValues:
    """One number for each dimension of a continuous feature.

    It replaces measured values, and values that a processor filled into a gap. A value that was never measured keeps
    its 0 in both streams. If the number is 0, or the fitted part has no measurement of the dimension, the value is
    removed instead: times 2⁻¹⁰⁰, so that masks from the values stay those of the input.

    Attributes:
        key: the key of the feature.
        statistic: `"typical"` or `"mean"`.
        centre: one number for each dimension; `None` without measurements.
        spread: likewise: the distance between the quartiles of patients' medians (`"typical"`), or the standard
            deviation of the measured values (`"mean"`).
        patients: the number of patients with a measurement of each dimension.
        dimensions: the names of the dimensions; `None` if they have none.
    """

    key: str
    statistic: str
    centre: tuple[float | None, ...]
    spread: tuple[float | None, ...]
    patients: tuple[int, ...]
    dimensions: tuple[str, ...] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The statistic and a digest of its numbers."""
        return f"{self.statistic} {_digest(self.centre)}"

    def of(self, feature: Feature) -> BaselineValue:
        """The baseline of a batch's feature.

        Raises:
            ValueError: for tokens, or a feature with another number of dimensions.
        """
        self._check(feature)
        value = feature.value
        numbers = torch.tensor([number or 0.0 for number in self.centre], dtype=value.dtype, device="cpu")
        centre = moved(numbers, value.device)
        given = measured(feature) | ((value != 0) & feature.real())
        if feature.in_steps:
            given = given & feature.real()  # an empty step stays empty
        fitted = torch.where(centre != 0, centre.expand(value.shape), value * FAINT)
        return BaselineValue(torch.where(given, fitted, value), keeps_mask=True)

    def _check(self, feature: Feature) -> None:
        what = f"baseline of feature {feature.key!r} is {self.name}, fitted on"
        if feature.is_token:
            raise ValueError(f"{what} continuous values; the feature holds tokens: fit it on the model's own dataset")
        shape = feature.value.shape
        size = shape[-1] if len(shape) > 2 or (len(shape) == 2 and len(self.centre) > 1) else 1
        if size != len(self.centre):
            raise ValueError(
                f"{what} {len(self.centre)} dimension(s); the feature has {size}: fit it on the model's own dataset"
            )

    def names(self) -> tuple[str, ...]:
        """The names of the dimensions; their numbers if they have none."""
        return self.dimensions or tuple(map(str, range(len(self.centre))))

    def never_measured(self) -> list[str]:
        """The dimensions without measurements in the fitted part."""
        return [name for name, number in zip(self.names(), self.centre, strict=True) if number is None]


@dataclass(frozen=True)
class FittedEmbedding:
    """One embedding for every token of a feature.

    Attributes:
        key: the key of the feature.
        embedding: the numbers of the embedding.
    """

    key: str
    embedding: tuple[float, ...]

    @property
    def name(self) -> str:
        """The name of the feature's baseline."""
        return f"mean embedding {_digest(self.embedding)}"


Fits = Removed | FittedValues | FittedEmbedding


@dataclass(frozen=True, repr=False)
class FittedBaseline(Baseline):
    """The result of :func:`deeplift_fast.baselines.typical` and :func:`deeplift_fast.baselines.mean`.

    It prints as a table, can be pickled, and equals another one with the same numbers.

    Attributes:
        statistic: `"typical"` or `"mean"`.
        fits: the baseline of each feature, with its key.
        samples: the number of fitted samples.
        patients: the number of their patients.
    """

    statistic: str
    fits: tuple[tuple[str, Fits], ...]
    samples: int
    patients: int

    @functools.cached_property
    def name(self) -> str:  # type: ignore[override]
        """The statistic and a digest of its numbers."""
        return f"{self.statistic} {_digest(tuple((key, _numbers(fit)) for key, fit in self.fits))}"

    def feature(self, key: str) -> FeatureBaseline:
        """The baseline of a feature; see :class:`deeplift_fast.pyhealth.feature_baselines.Baseline`."""
        found = dict(self.fits).get(key)
        if found is None:
            raise ValueError(
                f"baseline is {self.name}, which knows no feature {key!r}; it was fitted on a dataset with "
                f"{', '.join(repr(known) for known, _ in self.fits)}: fit it on the model's own dataset"
            )
        if isinstance(found, FittedEmbedding):
            return Embedded(torch.tensor(found.embedding, dtype=torch.float64, device="cpu"), found.name)
        return found

    def __repr__(self) -> str:
        return f"<{self.name}, fitted on {self.samples:,} samples of {self.patients:,} patients>"

    def __str__(self) -> str:
        """A table with a row for each dimension: feature, dimension, median or mean, spread, patients."""
        centre = "median" if self.statistic == "typical" else "mean"
        rows = [("feature", "dimension", centre, "spread", "patients"), *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [f"{self.name}, fitted on {self.samples:,} samples of {self.patients:,} patients"]
        for row in rows:
            texts = (row[i].ljust(widths[i]) if i < 2 else row[i].rjust(widths[i]) for i in range(5))
            lines.append("  ".join(texts).rstrip())
        spread = (
            "median: over patients, of each patient's median; spread: between the quartiles of patients' medians"
            if self.statistic == "typical"
            else "mean: of all measured values; spread: their standard deviation"
        )
        return "\n".join([*lines, spread])

    def _rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        for key, fit in self.fits:
            if isinstance(fit, Removed):
                yield key, "all", "removed", "", ""
            elif isinstance(fit, FittedEmbedding):
                yield key, "tokens", f"embedding of width {len(fit.embedding)}", "", ""
            else:
                for row in zip(fit.names(), fit.centre, fit.spread, fit.patients, strict=True):
                    name, number, spread, patients = row
                    removed = "never measured: removed"
                    yield key, name, removed if number is None else f"{number:.4g}", _shown(spread), f"{patients:,}"


def _shown(number: float | None) -> str:
    return "" if number is None else f"{number:.4g}"


def _numbers(fit: Fits) -> object:
    """The numbers in a digest."""
    return fit.name if isinstance(fit, Removed) else fit.centre if isinstance(fit, FittedValues) else fit.embedding


def _digest(numbers: object) -> str:
    """The digest of nested tuples of numbers and texts; Python writes each float exactly."""
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:_DIGITS]
