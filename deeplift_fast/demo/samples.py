"""Loads a MIMIC-IV folder into samples through PyHealth."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeplift_fast.demo.output import private
from deeplift_fast.errors import DemoError
from deeplift_fast.report.release import find_table, table_candidates

EHR_TABLES = ("diagnoses_icd", "procedures_icd", "labevents")
SPLITS = ("train", "validation", "test")
SPLIT_RATIOS = (0.7, 0.1, 0.2)
"""Shares of patients in these parts."""

BYTES_PER_WORKER = 32 << 20
"""Bytes of the gzipped lab table per further process."""

_NEEDED = (
    "hosp/patients",
    "hosp/admissions",
    "hosp/diagnoses_icd",
    "hosp/procedures_icd",
    "hosp/labevents",
    "hosp/d_labitems",
    "icu/icustays",
)


@dataclass(frozen=True)
class Samples:
    """Samples of `MortalityWithStaysMIMIC4`, split by patient.

    The vocabulary comes from all parts, so that every code has a name.

    Attributes:
        everything: PyHealth `SampleDataset` of all samples.
        splits: numbers of the samples of each part, int64, ascending: `train`, `validation` and `test`.
        train: PyHealth `SampleDataset` to train on.
        validation: PyHealth `SampleDataset` to choose the epoch on; may be empty.
        test: PyHealth `SampleDataset` of the held-out samples.
    """

    everything: Any
    splits: Mapping[str, np.ndarray]
    train: Any
    validation: Any
    test: Any

    def parts(self) -> tuple[Any, ...]:
        """The parts that are not empty, the training part first."""
        return tuple(part for part in (self.train, self.validation, self.test) if len(part))


def check_tables(root: Path) -> None:
    """Checks that every table of the task is present.

    Raises:
        DemoError: with each missing table and its possible paths.
    """
    missing = [name for name in _NEEDED if find_table(root, name) is None]
    if missing:
        lines = (f"  {Path(n).name}: looked for {' and '.join(map(str, table_candidates(root, n)))}" for n in missing)
        raise DemoError(
            f"{root} is not a MIMIC-IV folder that this job can read; missing table(s):\n"
            + "\n".join(lines)
            + "\nGive the folder of a MIMIC-IV release, the one that holds hosp and icu."
        )


def load_samples(root: Path, cache: Path, seed: int, processors: Path | None = None) -> Samples:
    """Builds the samples; PyHealth shows its progress on standard error.

    Args:
        root: folder of a MIMIC-IV release.
        cache: folder for PyHealth's caches, which contain patient data; only its owner may read what is written there.
        seed: seed of the split by patient.
        processors: folder of processors that PyHealth has saved; `None` to fit new ones.

    Raises:
        DemoError: if tables are missing, or too few patients can be used.
    """
    check_tables(root)
    with quiet_pyhealth(), private():
        from pyhealth.datasets import MIMIC4Dataset, PatientSplit, load_processors

        from deeplift_fast.demo.processors import DailyCodes, StandardLabs
        from deeplift_fast.tasks import MortalityWithStaysMIMIC4

        dataset = MIMIC4Dataset(
            ehr_root=str(root), ehr_tables=list(EHR_TABLES), cache_dir=str(cache), num_workers=_workers(root)
        )
        task = MortalityWithStaysMIMIC4()
        task.input_schema = {"icd_codes": (DailyCodes, {}), "labs": (StandardLabs, {})}
        inputs, outputs = (None, None) if processors is None else load_processors(str(processors))
        try:
            dataset = dataset.set_task(task, input_processors=inputs, output_processors=outputs)
        except ValueError as error:
            if "zero samples" not in str(error):
                raise
            raise DemoError(_too_few(root)) from error
        parts = PatientSplit(SPLIT_RATIOS, seed=seed).split_indices(dataset.patient_to_index)
    if not (len(parts[0]) and len(parts[-1])):
        raise DemoError(_too_few(root))
    splits = dict(zip(SPLITS, parts, strict=True))
    return Samples(dataset, splits, *(dataset.subset(part) for part in parts))


def _workers(root: Path) -> int:
    """Number of PyHealth's processes; each takes half a minute to start, so a small hospital needs one."""
    labs = find_table(root, "hosp/labevents")
    assert labs is not None  # check_tables has seen it
    return min(os.cpu_count() or 1, 1 + labs.stat().st_size // BYTES_PER_WORKER)


def _too_few(root: Path) -> str:
    return (
        f"too few patients under {root} can be used: a sample needs an adult with laboratory values and with codes "
        "at a stay before the last one; give more patients"
    )


@contextlib.contextmanager
def quiet_pyhealth() -> Iterator[None]:
    """Sends PyHealth's progress to standard error and drops its notes: standard output is for the report."""
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    logger = logging.getLogger("pyhealth")
    with contextlib.redirect_stdout(sys.stderr):
        import pyhealth  # noqa: F401  (sets its logger's level)

        level = logger.level
        logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            logger.setLevel(level)
