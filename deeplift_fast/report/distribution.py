"""The distribution of a cohort's contributions and outputs: what one patient is compared with."""

from dataclasses import dataclass
from types import TracebackType

import numpy as np
import pandas as pd
import pyarrow as pa

from deeplift_fast.report.completeness import Completeness
from deeplift_fast.report.members import Assigner, Members
from deeplift_fast.report.per_sample import PATIENT_BITS, QUANTILES
from deeplift_fast.report.spool import Spool, bits_of


@dataclass(frozen=True, eq=False)  # == of data frames is no bool
class CohortTable:
    """The contributions of a cohort's samples, code by code.

    Attributes:
        table: one row per target, feature and code or dimension. A sample's contribution is the sum of its attributions
            to it, measured or not. The columns are `target`, `feature`, `code`, `kind` ("code" or "value"), `samples`,
            `patients`, `rows` (attributions), `mean`, `mean_abs`, `low` and `high` (ends of the mean's 95 % interval
            over patients), the quantiles `q00` (smallest), `q01`, `q05`, `q10`, `q25`, `q50`, `q75`, `q90`, `q95`,
            `q99` and `q100` (largest), and after :func:`deeplift_fast.report.cohort_table.titled` also `title` (text or
            null), `ambiguous` (bool), `unit` (text or null), `ref_low` and `ref_high` (reference range, or NaN).
            Quantiles are interpolated linearly, of contributions rounded to float32.
        patients: number of patients; a sample without `patient_id` is its own patient.
        outputs: quantiles of the explained output, by target: the columns `target`, `samples` and those quantiles.
        completeness: totals over samples.
        source: a digest of the parts that were read.
    """

    table: pd.DataFrame
    patients: int
    outputs: pd.DataFrame
    completeness: Completeness
    source: str

    @property
    def samples(self) -> int:
        """Number of attributed samples."""
        return self.completeness.samples


class Population:
    """Patients and outputs, added up part by part; a context manager. Temporary files hold 16 bytes per sample."""

    def __init__(self) -> None:
        self._outputs, self._patients = Spool(), Spool(PATIENT_BITS)
        self._samples = np.zeros(0, np.int64)

    def __enter__(self) -> "Population":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spool in (self._outputs, self._patients):
            spool.__exit__(kind, error, trace)

    def add(self, members: Members, samples: pa.Table) -> None:
        """Adds a part's samples, which have the column `output`."""
        self._patients.add(np.zeros(len(members.patient)), members.patient, once=True)
        known = members.target >= 0
        self._outputs.add(members.target[known], bits_of(samples["output"].to_numpy()[known]))
        counts = np.bincount(members.target[known], minlength=len(self._samples))
        self._samples = counts + np.pad(self._samples, (0, len(counts) - len(self._samples)))

    def patients(self) -> int:
        """Number of patients."""
        return int(self._patients.distinct(1)[0])

    def outputs(self, assigner: Assigner) -> pd.DataFrame:
        """As :attr:`CohortTable.outputs`."""
        size = len(self._samples)
        shares = self._outputs.quantiles(size, np.array(list(QUANTILES.values())))
        return pd.DataFrame(
            {"target": np.array(list(assigner.targets)[:size], np.int64), "samples": self._samples}
            | dict(zip(QUANTILES, shares.T, strict=True))
        )
