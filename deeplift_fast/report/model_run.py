"""Runs a cohort's model again for one sample, without some of its codes or values."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.cohort.attributing import quiet, to_device
from deeplift_fast.cohort.cohort_baseline import CohortBaseline, by_index, checked_baseline, fitted
from deeplift_fast.cohort.identifiers import of_batch
from deeplift_fast.cohort.part_tables import Texts, columns_of
from deeplift_fast.cohort.reading import open_source
from deeplift_fast.cohort.samples import Batch
from deeplift_fast.core.result import Attribution
from deeplift_fast.errors import CohortError, SummaryError
from deeplift_fast.pyhealth.features import measured, read_features
from deeplift_fast.pyhealth.given_baselines import NAMES
from deeplift_fast.pyhealth.interpreter import DeepLift
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.patient.rows import Sample

CLOSE = 1e-4
"""The largest difference between the output in the table and the model's."""

_TYPICAL = "typical"


@dataclass(frozen=True)
class ModelRun:
    """A cohort's model and dataset, as its recipe gives them.

    Attributes:
        model: the PyHealth model.
        dataset: as for `attribute_cohort`.
        baseline: likewise; `None` for the one that the cohort's manifest names.
        dimensions: likewise.
    """

    model: Any
    dataset: Any
    baseline: Any = None
    dimensions: Mapping[str, Sequence[str]] | None = None


def outputs_without(
    given: ModelRun, folder: CohortFolder, sample: Sample, names: Sequence[tuple[str, str]]
) -> list[float]:
    """The model's output for one sample, once without each code or dimension.

    The tokens of the code, or the values of the dimension, are put at the baseline at every step. Everything else stays
    at the input, with its masks: see `at_baseline` of `DeepLift.explain`.

    Args:
        given: the model and its dataset.
        folder: the cohort's folder.
        sample: the sample.
        names: features and codes, as in the table.

    Returns:
        One output for each name.

    Raises:
        SummaryError: if the dataset, the model or the baseline are not those of the folder.
    """
    try:
        interpreter = DeepLift(given.model, rules=folder.rules)
        batch = _batch_of(given, sample.number, folder.out)
        found = of_batch(batch, 1)
        identifiers = {"patient_id": sample.patient, "visit_id": sample.visit}
        differing = [name for name, each in identifiers.items() if found[name][0] != each]
        if differing:
            raise _other(folder.out, f"sample {sample.number} has another {' and '.join(differing)}")
        chosen = _baseline(given, interpreter, folder)
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = interpreter.explain(chosen.given, sample.target, **batch)
            apart = abs(float(whole.output[0]) - sample.output)
            if apart > CLOSE:
                raise _other(folder.out, f"the output of sample {sample.number} differs by {apart:.2g}")
            return [
                float(
                    interpreter.explain(chosen.given, sample.target, at_baseline=mask, **batch).baseline_output.mean()
                )
                for mask in _masks(given, batch, whole, names, folder.out)
            ]
    except CohortError as error:
        raise SummaryError(str(error)) from error


def _batch_of(given: ModelRun, number: int, out: str) -> dict[str, Any]:
    """The sample as a batch of one, on the model's device."""
    source = open_source(given.dataset, given.model)
    for stretch in source.stretches(lambda part: part == number, 1, 0):
        for group in stretch.groups:
            places = np.flatnonzero(group.numbers == number)
            if len(places):
                return to_device(Batch(group, places).given(), given.model.device)
    raise _other(out, f"the dataset holds no sample {number}")


def _baseline(given: ModelRun, interpreter: DeepLift, folder: CohortFolder) -> CohortBaseline:
    """The baseline of the cohort, by its name in the manifest."""
    name = folder.baseline
    for each in (given.baseline, name if name in NAMES else None, _TYPICAL if name.startswith(_TYPICAL) else None):
        chosen = checked_baseline(each, interpreter)
        if chosen.is_unfitted:
            source = open_source(given.dataset, given.model)
            chosen = fitted(chosen, interpreter, by_index(source, given.dataset), given.dimensions)
        if chosen.name == name:
            return chosen
    raise _other(folder.out, f"the baseline is {checked_baseline(given.baseline, interpreter).name!r}, there {name!r}")


def _masks(
    given: ModelRun, batch: Mapping[str, Any], found: Attribution, names: Sequence[tuple[str, str]], out: str
) -> list[dict[str, Tensor]]:
    """For each name the positions of its tokens or values: a bool mask of the value's shape, by feature key."""
    features = read_features(given.model, batch, use_embeddings=True)
    texts = Texts(given.model, given.dimensions)
    columns = columns_of(texts, batch, found, np.arange(1), None)
    masks = []
    for key, name in names:
        if key not in features:
            raise _other(out, f"the model has no feature {key!r}")
        feature, rows = features[key], columns.features[key]
        code = texts.dictionary(columns.codes[key]).to_pylist()
        called = [f"dimension {slot}" if text is None else text for text, slot in zip(code, rows.slot, strict=True)]
        # Rows are the real positions in row-major order.
        places = (feature.real() | measured(feature)).reshape(-1).nonzero()[:, 0]
        chosen = places[torch.tensor([each == name for each in called], device=places.device)]
        if not len(chosen):
            raise _other(out, f"a code of {key!r} is not in the sample; the dimensions may have other names")
        mask = torch.zeros(feature.value.numel(), dtype=torch.bool, device=places.device)
        mask[chosen] = True
        masks.append({key: mask.reshape(feature.value.shape)})
    return masks


def _other(out: str, difference: str) -> SummaryError:
    return SummaryError(
        f"--recipe is not the one that {out} was made with: {difference}; give the recipe of the run that wrote the "
        "folder, or leave --recipe out"
    )
