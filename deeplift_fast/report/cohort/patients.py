"""Pages of the samples with the highest predictions, beside the cohort's page."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import pandas as pd

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.consistent import consistently
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.formats import share
from deeplift_fast.report.patient.page import patient_page
from deeplift_fast.report.private_file import write_private
from deeplift_fast.support.home import expanded
from deeplift_fast.support.numbers import short

MOST = 1000
"""The largest number of patients' pages."""

_COLUMNS = ("sample", "output", "probability", "label")


@dataclass(frozen=True)
class Link:
    """A patient's page.

    Attributes:
        href: its address, relative to the cohort's page.
        text: what the link says.
        number: the probability, or |output| where there is none.
        predicted: the probability or the output, as text.
        label: the true label as text; empty where there is none, or on a pseudonymous page.
    """

    href: str
    text: str
    number: float
    predicted: str
    label: str


def highest(folder: CohortFolder, count: int) -> pd.DataFrame:
    """The samples with the highest probability, or with the largest |output| where there is none.

    Args:
        folder: the cohort.
        count: the number of samples.

    Returns:
        The columns `sample`, `output`, `probability`, `label` and `rank`, what they are sorted by; the highest first,
        and the lower number of a sample first among equals.
    """
    kept = pd.DataFrame({name: pd.Series(dtype=float) for name in (*_COLUMNS, "rank")})
    for part in folder.parts:
        samples: pd.DataFrame = folder.samples(part, _COLUMNS).to_pandas()
        samples["rank"] = samples["probability"].where(samples["probability"].notna(), samples["output"].abs())
        both = samples if kept.empty else pd.concat([kept, samples])
        kept = both.sort_values(["rank", "sample"], ascending=[False, True]).head(count)
    return kept.reset_index(drop=True)


def patient_pages(
    out: str | Path,
    page: str | Path,
    count: int,
    mimic_root: str | Path | None = None,
    pseudonymous: bool = False,
    force: bool = False,
) -> tuple[Link, ...]:
    """Writes pages of the samples with the highest predictions into a folder beside a cohort's page.

    The folder of `cohort.html` is `cohort-patients`. It, and the pages in it, belong to their owner alone.

    Args:
        out: the cohort's folder, a path or an fsspec URL.
        page: the file of the cohort's page.
        count: the number of samples, from 1 to `MOST`.
        mimic_root: as for :func:`deeplift_fast.report.patient_page`.
        pseudonymous: likewise. Pages are numbered by their place, and not by the sample.
        force: whether existing pages are replaced.

    Returns:
        The links for :func:`deeplift_fast.report.cohort_page`.

    Raises:
        SummaryError: if a page cannot be made or written; pages before it stay.

    Example:
        >>> from deeplift_fast.report import cohort_page, patient_pages
        >>> links = patient_pages("mortality", "cohort.html", count=2)
        >>> page = cohort_page("mortality", links=links)
    """
    if not 1 <= count <= MOST:
        raise SummaryError(f"the number of patients' pages is {count}; accepted: from 1 to {MOST}")
    beside = pages_folder(expanded(page, "page"))
    try:
        beside.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SummaryError(f"{beside} cannot be made ({error.strerror}); give another path for the page") from error
    links = []
    for place, row in enumerate(consistently(out, partial(highest, count=count)).itertuples(index=False), 1):
        name = f"patient-{place:04}.html" if pseudonymous else f"sample-{int(row.sample)}.html"
        text = patient_page(out, int(row.sample), None, mimic_root, pseudonymous)
        write_private(str(out), beside / name, partial(_write, text), replace=force)
        links.append(_link(quote(f"{beside.name}/{name}"), place, row, pseudonymous))
    return tuple(links)


def pages_folder(page: Path) -> Path:
    """The folder of patients' pages beside a cohort's page."""
    return page.with_name(f"{page.stem}-patients")


def _write(text: str, file: BinaryIO) -> None:
    file.write(text.encode())


def _link(href: str, place: int, row: Any, pseudonymous: bool) -> Link:
    is_likely = not math.isnan(row.probability)
    return Link(
        href=href,
        text=f"patient {place}" if pseudonymous else f"sample {int(row.sample):,}",
        number=float(row.rank),
        predicted=share(float(row.probability)) if is_likely else short(float(row.output)),
        label="" if pseudonymous or math.isnan(row.label) else short(float(row.label)),
    )
