"""What a figure is made of: rows of contributions, read from an attribution, a table or a cohort's folder."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deeplift_fast.cohort import ATTRIBUTIONS
from deeplift_fast.core.frames import base_of
from deeplift_fast.core.result import Attribution
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouping import EMPTY
from deeplift_fast.report.titles import Title, Titles

NEEDED = ("feature", "attribution")
"""Columns that a table must have."""

OPTIONAL = ("sample", "patient_id", "step", "slot", "code", "time", "value", "day", "stay", "measured")
"""Columns that it may have, as :mod:`deeplift_fast.cohort.tables` describes them; missing ones are null."""

MOST_UNIT = 20
"""Letters of a unit; longer ones are not drawn."""

Named = Mapping[Any, str] | Titles | None
"""Titles of codes: by code, or by feature and code; or the dictionaries of a MIMIC-IV release."""

Dimensions = Mapping[str, Sequence[str]] | None
"""Names of the dimensions of a continuous feature, by feature."""

_DIGEST = re.compile(r" [0-9a-f]{12}\b")


@dataclass(frozen=True)
class Rows:
    """Contributions, one row each.

    Attributes:
        table: the columns `NEEDED` and `OPTIONAL`, and `name`: the code, or "dimension 3" where it has none.
        output: the output explained; `None` where it is not known, or there are several samples.
        baseline_output: the output at the baseline, likewise.
        baseline: what the contributions are relative to; empty where it is not known.
        rules: the rule set, likewise.
        probability: the predicted probability, likewise.
        unit: what contributions are in.
    """

    table: pd.DataFrame
    output: float | None = None
    baseline_output: float | None = None
    baseline: str = ""
    rules: str = ""
    probability: float | None = None
    unit: str = "logits"

    @property
    def compared_with(self) -> str:
        """The baseline without the digests of its numbers, which a reader of a figure cannot use."""
        return _DIGEST.sub("", self.baseline)

    @property
    def valued(self) -> np.ndarray:
        """Which rows are of a feature of values, bool: some are measured, or nothing was and flags say so."""
        value, said = self.table["value"].notna(), self.table["measured"]
        features = pd.DataFrame({"value": value, "flag": said.notna(), "true": said.eq(True)})
        found = features.groupby(self.table["feature"]).transform("any")
        return (found["value"] | (found["flag"] & ~found["true"])).to_numpy(bool)


def patient_rows(
    data: Any, sample: int | None = None, patient: str | None = None, dimensions: Dimensions = None
) -> Rows:
    """The rows of one sample.

    Args:
        data: an :class:`deeplift_fast.Attribution`; a table with the columns of a cohort's `attributions` (pandas,
            polars, pyarrow); or a cohort's folder.
        sample: which sample, by its number; `None` where there is one.
        patient: which patient, by `patient_id`; `None` where there is one.
        dimensions: of an attribution, the names of dimensions, by feature.

    Raises:
        TypeError: if `data` is something else.
        ValueError: if columns are missing, contributions are not finite, or there is no sample or more than one.
    """
    if isinstance(data, Attribution):
        return _of_attribution(data, sample, patient, dimensions)
    check_unnamed(data, dimensions)
    if isinstance(data, str | os.PathLike):
        return _of_folder(data, sample, patient)
    return Rows(_one_sample(table_of(data), sample, patient))


def cohort_rows(data: Any, dimensions: Dimensions = None) -> pd.DataFrame:
    """The rows of many samples: an attribution of a batch, or a table as for :func:`patient_rows`."""
    if isinstance(data, Attribution):
        return normalised(data.to_dataframe(dimensions=dimensions))
    check_unnamed(data, dimensions)
    return table_of(data)


def check_unnamed(data: Any, dimensions: Dimensions) -> None:
    """Raise if names of dimensions are given for data that has names."""
    if dimensions is not None:
        raise ValueError(
            f"dimensions is given and data a {type(data).__name__}; accepted: dimensions with an Attribution. A table "
            "and a cohort have the names in their column code: give dimensions to to_dataframe or attribute_cohort"
        )


def table_of(data: Any) -> pd.DataFrame:
    """A table of pandas, polars or pyarrow as one of pandas, checked, with every column.

    Raises:
        TypeError: if it is none.
        ValueError: as for :func:`patient_rows`.
    """
    if isinstance(data, pd.DataFrame):
        return normalised(data)
    if callable(getattr(data, "collect", None)) and callable(getattr(data, "lazy", None)):
        data = data.collect()  # a LazyFrame of polars
    if callable(getattr(data, "to_arrow", None)):
        data = data.to_arrow()
    if callable(getattr(data, "to_pandas", None)):
        return normalised(data.to_pandas())
    raise TypeError(
        f"data is a {type(data).__name__}; accepted: an Attribution, a table (pandas, polars, pyarrow) with the "
        "columns of a cohort's attributions, or the path of a cohort's folder"
    )


def normalised(given: pd.DataFrame) -> pd.DataFrame:
    """The columns `NEEDED`, `OPTIONAL` and `name`, with null for what is missing.

    Raises:
        ValueError: if a column of `NEEDED` is missing, there are no rows, or contributions are not finite.
    """
    missing = [name for name in NEEDED if name not in given.columns]
    if missing:
        raise ValueError(
            f"the table lacks the column(s) {', '.join(missing)}; it has {list(given.columns)[:20]}; accepted: the "
            "columns of a cohort's attributions"
        )
    if given.empty:
        raise ValueError("the table has no rows; give those of one sample or more")
    table = pd.DataFrame({name: given[name] if name in given.columns else None for name in (*NEEDED, *OPTIONAL)})
    table = table.reset_index(drop=True)
    for name in ("attribution", "time", "value", "day"):
        table[name] = pd.to_numeric(table[name]).astype(float)
    if not np.isfinite(table["attribution"]).all():
        raise ValueError("the column attribution holds NaN, inf or null; leave out samples whose attribution failed")
    for name in ("sample", "step", "slot"):
        table[name] = pd.to_numeric(table[name]).fillna(0).astype(np.int64)
    table["feature"] = table["feature"].astype(str)
    table["stay"] = table["stay"].astype(object)  # a folder's is categorical
    code = table["code"].astype(object)
    table["name"] = code.where(code.notna(), "dimension " + table["slot"].astype(str)).astype(str)
    return table


def title_of(titles: Named, feature: str, name: str) -> str:
    """What a code is called in a figure: its title, or itself where there is none; "(empty)" for nothing to see."""
    found = _title(titles, feature, name)
    return found if found.strip() else EMPTY


def _title(titles: Named, feature: str, name: str) -> str:
    if titles is None:
        return name
    if isinstance(titles, Titles):
        found = titles.find(feature, name)
        return name if found is None else found.text
    return str(titles.get((feature, name), titles.get(name, name)))


def measure_of(titles: Named, feature: str, name: str) -> Title | None:
    """The title that holds the unit and the reference range of a laboratory item; `None` if no unit is known."""
    found = titles.find(feature, name) if isinstance(titles, Titles) else None
    return found if found is not None and found.unit and len(found.unit) <= MOST_UNIT else None


def namer(titles: Named, table: pd.DataFrame) -> Callable[[str, str], str]:
    """What codes are called where some of two features have one title: these say their feature too."""
    pairs = table[["feature", "name"]].drop_duplicates().itertuples(index=False)
    found = {(feature, name): title_of(titles, feature, name) for feature, name in pairs}
    counts = pd.Series(list(found.values())).value_counts()
    return lambda feature, name: (
        f"{found[feature, name]} ({feature})" if counts[found[feature, name]] > 1 else found[feature, name]
    )


def _of_attribution(data: Attribution, sample: int | None, patient: str | None, dimensions: Dimensions) -> Rows:
    table = _one_sample(normalised(data.to_dataframe(dimensions=dimensions)), sample, patient)
    row = int(table["sample"].iloc[0])
    output = float(data.output[row])
    model = None if data.source is None else data.source[0]
    binary = getattr(model, "mode", None) in ("binary", "multilabel")
    return Rows(
        table,
        output,
        float(base_of(data)[row]),
        data.baseline,
        probability=1 / (1 + float(np.exp(-output))) if binary else None,
        unit="the output's units" if model is None else "logits",
    )


def _of_folder(data: str | os.PathLike, sample: int | None, patient: str | None) -> Rows:
    folder = CohortFolder(Path(data) if isinstance(data, os.PathLike) else data)
    if sample is None and patient is None:
        raise ValueError("data is a cohort's folder; say which patient, with patient= or sample=")
    columns = ["sample", "patient_id", "output", "baseline_output", "probability"]
    each = (
        _where(folder.samples(part, columns).to_pandas(), sample, patient).assign(part=part) for part in folder.parts
    )
    matching = [samples for samples in each if not samples.empty]
    if not matching:
        raise ValueError(_none(sample, patient, f"the finished parts of {folder.out}"))
    samples = pd.concat(matching)
    if len(samples) > 1:
        raise ValueError(_several(samples["sample"], patient))
    about = samples.iloc[0]
    batches = (batch.to_pandas() for batch in folder.attributions(int(about["part"]), ATTRIBUTIONS.names))
    likely = about["probability"]
    return Rows(
        normalised(pd.concat([batch[batch["sample"] == about["sample"]] for batch in batches])),
        float(about["output"]),
        float(about["baseline_output"]),
        folder.baseline,
        folder.rules,
        None if pd.isna(likely) else float(likely),
    )


def _where(table: pd.DataFrame, sample: int | None, patient: str | None) -> pd.DataFrame:
    """The rows of a sample and a patient, where they are given."""
    if sample is not None:
        table = table[table["sample"] == sample]
    if patient is not None:
        table = table[table["patient_id"].astype(str) == str(patient)]
    return table


def _one_sample(table: pd.DataFrame, sample: int | None, patient: str | None) -> pd.DataFrame:
    found = _where(table, sample, patient)
    if found.empty:
        raise ValueError(_none(sample, patient, "the data"))
    if found["sample"].nunique() > 1:
        raise ValueError(_several(found["sample"].drop_duplicates(), patient))
    return found.reset_index(drop=True)


def _none(sample: int | None, patient: str | None, where: str) -> str:
    asked = [f"{name}={value!r}" for name, value in (("sample", sample), ("patient", patient)) if value is not None]
    return f"no sample of {where} has {' and '.join(asked)}; give the number of a sample or a patient_id that it holds"


def _several(samples: pd.Series, patient: str | None) -> str:
    of = "the data holds" if patient is None else "the patient has"
    few = ", ".join(map(str, samples[:8])) + (", …" if len(samples) > 8 else "")
    return f"{of} {len(samples)} samples ({few}); choose one with sample="
