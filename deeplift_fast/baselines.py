"""Baselines that are fitted on a dataset: the typical patient, and the mean of a cohort."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.errors import BaselineWarning, warn
from deeplift_fast.pyhealth.dimension_statistics import MeanOfValues, MedianOfPatients, Statistic
from deeplift_fast.pyhealth.feature_baselines import Baseline, Removed
from deeplift_fast.pyhealth.features import PAD, kind_of
from deeplift_fast.pyhealth.fitted_baselines import Fits, FittedBaseline, FittedEmbedding, FittedValues
from deeplift_fast.pyhealth.fitting import FittedPart, fitted_part, value_of, values_of
from deeplift_fast.pyhealth.measured_flags import flags_key
from deeplift_fast.pyhealth.token_leaves import token_point

__all__ = ["Baseline", "mean", "typical"]

MOST_NAMED = 12  # dimensions in one warning


def typical(
    dataset: Any,
    samples: int = 2048,
    seed: int = 0,
    dimensions: Mapping[str, Sequence[str]] | None = None,
    processors: Mapping[str, Any] | None = None,
) -> FittedBaseline:
    """The typical patient: no codes, and the usual values.

    Tokens and `multi_hot` marks are removed. The baseline of a continuous dimension is the median over patients of each
    patient's median of measured values. For a feature `K`, the entry `K_measured` of a sample (bool per step and
    dimension) marks the measured values. Without it, values other than 0 are measured; in `tensor` features 0 is a
    value too. Values that were not measured keep their 0 in both streams and contribute exactly 0.

    Args:
        dataset: the samples that the model was trained on: a PyHealth `SampleDataset`, a subset of one, or a sequence
            of processed samples. Samples with the same `patient_id` belong to one patient; a sample without one is a
            patient of its own.
        samples: most samples to fit on, chosen without replacement.
        seed: seed of this choice.
        dimensions: names of a continuous feature's dimensions, by feature key, for the printed baseline.
        processors: PyHealth's, by feature key, for a dataset that has none: `model.dataset.input_processors`.

    Returns:
        A :class:`deeplift_fast.pyhealth.fitted_baselines.FittedBaseline`; `print` shows its numbers.

    Raises:
        TypeError, ValueError: for a dataset without length, index, samples or processors, for bad `samples`, `seed` or
            `dimensions`, and for a `K_measured` that does not fit.

    Warns:
        BaselineWarning: if a dimension was never measured, so that it is removed; if samples without values of a
            feature, or with another number of dimensions, were left out.

    Example:
        >>> from deeplift_fast import DeepLift, baselines
        >>> usual = baselines.typical(dataset)
        >>> found = DeepLift(model, rules="complete", baseline=usual).explain(**batch)
        >>> found.baseline
        'typical ...'
    """
    part = fitted_part(dataset, samples, seed, processors)
    return _fitted("typical", part, part.processors, dimensions, None)


def mean(
    dataset: Any, model: Any, samples: int = 2048, seed: int = 0, dimensions: Mapping[str, Sequence[str]] | None = None
) -> FittedBaseline:
    """The mean of a cohort: its mean code and its mean values.

    The baseline of a token is the mean embedding of all tokens in the samples. The baseline of a continuous dimension
    is the mean of its measured values (see :func:`typical`). `multi_hot` marks are removed.

    Args:
        dataset: as for :func:`typical`.
        model: the PyHealth model whose embeddings are averaged. It stays unchanged; the baseline fits this model alone.
        samples: as for :func:`typical`.
        seed: as for :func:`typical`.
        dimensions: as for :func:`typical`.

    Returns:
        A :class:`deeplift_fast.pyhealth.fitted_baselines.FittedBaseline`.

    Raises:
        TypeError, ValueError: as :func:`typical`, and for a feature whose tokens the model does not embed.

    Warns:
        BaselineWarning: as :func:`typical`.

    Example:
        >>> from deeplift_fast import DeepLift, baselines
        >>> contributions = DeepLift(model, rules="complete").attribute(baselines.mean(dataset, model), **batch)
        >>> sorted(contributions)
        ['codes', 'labs']
    """
    processors = getattr(getattr(model, "dataset", None), "input_processors", None)
    keys = getattr(model, "feature_keys", None)
    if processors is None or keys is None:
        raise ValueError(
            f"model is a {type(model).__name__}; accepted: a PyHealth model, with feature_keys and dataset"
        )
    part = fitted_part(dataset, samples, seed, processors)
    return _fitted("mean", part, {key: processors[key] for key in keys}, dimensions, model)


def _fitted(
    statistic: str,
    part: FittedPart,
    processors: Mapping[str, Any],
    dimensions: Mapping[str, Sequence[str]] | None,
    model: Any,
) -> FittedBaseline:
    continuous = [key for key, each in processors.items() if not each.is_token() and not _is_multi_hot(each)]
    names = _checked_names(dimensions, continuous)
    tables = {key: _embeddings(model, key) for key, each in processors.items() if each.is_token() and model is not None}
    new = MedianOfPatients if statistic == "typical" else MeanOfValues
    found: dict[str, Statistic] = {key: new() for key in continuous}
    counts = {key: torch.zeros(len(table), dtype=torch.int64, device="cpu") for key, table in tables.items()}
    patients = part.patients()
    for numbers in patients:
        read = [(number, part.sample(number)) for number in numbers]
        for key in continuous:
            flagged = flags_key(key) not in part.processors
            found[key].add([values_of(sample, number, key, processors[key], flagged) for number, sample in read])
        for key in tables:
            for number, sample in read:
                _count(counts[key], sample, number, key, processors[key])
    fits: dict[str, Fits] = {key: Removed() for key in processors}
    for key in continuous:
        fits[key] = _values(key, statistic, found[key], names.get(key))
    for key, table in tables.items():
        fits[key] = _mean_embedding(key, table, counts[key])
    _warn_of_gaps(statistic, fits, found, [key for key in tables if not counts[key].any()])
    return FittedBaseline(statistic, tuple(fits.items()), len(part.numbers), len(patients))


def _is_multi_hot(processor: Any) -> bool:
    return kind_of(type(processor)) == "multi_hot"


def _checked_names(dimensions: Any, keys: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if dimensions is not None and not isinstance(dimensions, Mapping):
        raise TypeError(f"dimensions is a {type(dimensions).__name__}; accepted: a dict of names by feature key")
    return {key: tuple(map(str, names)) for key, names in (dimensions or {}).items() if key in keys}


def _values(key: str, statistic: str, found: Statistic, names: tuple[str, ...] | None) -> FittedValues:
    centre, spread, patients = found.result()
    if not len(centre):
        raise ValueError(f"the samples to fit on hold no values of feature {key!r}; fit on the model's own dataset")
    if names is not None and len(names) != len(centre):
        raise ValueError(f"dimensions[{key!r}] has {len(names)} name(s); the feature has {len(centre)} dimension(s)")
    known = patients > 0
    return FittedValues(
        key,
        statistic,
        tuple(float(number) if sure else None for number, sure in zip(centre, known, strict=True)),
        tuple(float(number) if sure else None for number, sure in zip(spread, known, strict=True)),
        tuple(map(int, patients)),
        names,
    )


def _embeddings(model: Any, key: str) -> Tensor:
    """The embeddings of a feature's tokens, `[tokens, dim]`."""
    layer = token_point(model, key).layer
    if layer is None:
        raise ValueError(
            f"feature {key!r} has no embedding in {type(model).__name__}, so its tokens have no mean; use "
            "deeplift_fast.baselines.typical, or 'removed'"
        )
    return layer.weight.detach().cpu()


def _count(counts: Tensor, sample: Mapping[str, Any], number: int, key: str, processor: Any) -> None:
    value = value_of(sample, key, processor)
    if value is None or value.is_floating_point():
        return
    tokens = value.detach().cpu().reshape(-1).long()
    tokens = tokens[tokens != PAD]
    if len(tokens) and (int(tokens.min()) < 0 or int(tokens.max()) >= len(counts)):
        raise ValueError(
            f"sample {number} of the dataset holds a token of feature {key!r} outside the model's vocabulary, 0 to "
            f"{len(counts) - 1}: process it with the processors that the model was made with"
        )
    counts += torch.bincount(tokens, minlength=len(counts))


def _mean_embedding(key: str, table: Tensor, counts: Tensor) -> Fits:
    if not counts.any():
        return Removed()
    weights = counts.double() / counts.sum()
    return FittedEmbedding(key, tuple((weights @ table.double()).tolist()))


def _warn_of_gaps(
    statistic: str, fits: Mapping[str, Fits], found: Mapping[str, Statistic], without_tokens: list[str]
) -> None:
    never = [
        f"{key} {name}" for key, fit in fits.items() if isinstance(fit, FittedValues) for name in fit.never_measured()
    ]
    never += [f"{key} (no tokens)" for key in without_tokens]
    if never:
        more = f" and {len(never) - MOST_NAMED} more" if len(never) > MOST_NAMED else ""
        warn(
            f"{statistic} baseline: never measured in the fitted samples, and so treated as removed: "
            f"{', '.join(never[:MOST_NAMED])}{more}",
            BaselineWarning,
        )
    left_out = {key: each.left_out for key, each in found.items() if each.left_out}
    if left_out:
        counted = ", ".join(f"{count:,} of {key}" for key, count in left_out.items())
        warn(
            f"{statistic} baseline: samples whose feature holds no values, or another number of dimensions, were left "
            f"out: {counted}",
            BaselineWarning,
        )
