"""A cohort's page, from its folder to HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeplift_fast.report.cohort.facts import facts_of, failures_of, lead_of, limits_of
from deeplift_fast.report.cohort.groups import GroupTable, tables_of
from deeplift_fast.report.cohort.lines import FEWEST, Block, blocks_of
from deeplift_fast.report.cohort.patients import Link
from deeplift_fast.report.cohort_table import keep
from deeplift_fast.report.described import described
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouping import Cut
from deeplift_fast.report.page import render
from deeplift_fast.report.points import MOST_POINTS
from deeplift_fast.report.summary import Summary, summarise
from deeplift_fast.report.titles import Titles

MOST_BYTES = 2_000_000
"""Bytes of a page beyond which it shows less."""

_SIZES = ((300, MOST_POINTS), (300, 100), (100, 100))
"""Rows of all tables together, and points of each, tried one after another."""


@dataclass(frozen=True)
class Content:
    """What a cohort's page shows.

    Attributes:
        lead: the cohort in a sentence.
        complete: how many samples are complete, in a sentence.
        left_out: what was left out, in sentences.
        failures: reasons of failures and their numbers of samples, as text.
        blocks: the tables of codes and values.
        points: the largest number of dots of a row.
        groups: the tables by label and by other groups.
        more_groups: number of tables that are left out.
        links: patients' pages.
        facts: completeness, model, rule set and baseline.
        notes: notes of the summary.
        limits: what the page does not say.
        unit: "logit" or "output".
        is_pseudonymous: whether it names nobody.
    """

    lead: str
    complete: str
    left_out: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]
    blocks: tuple[Block, ...]
    points: int
    groups: tuple[GroupTable, ...]
    more_groups: int
    links: tuple[Link, ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    limits: tuple[str, ...]
    unit: str
    is_pseudonymous: bool


def cohort_page(
    out: str | Path,
    mimic_root: str | Path | None = None,
    pseudonymous: bool = False,
    by: Sequence[Cut] = (),
    links: Sequence[Link] = (),
) -> str:
    """The HTML page of a cohort: one file that loads nothing.

    Args:
        out: the cohort's folder, a path or an fsspec URL. Its `summary.parquet` is written if it is missing.
        mimic_root: folder of a MIMIC-IV release whose dictionaries describe codes; `None` for those of the package.
        pseudonymous: whether what fewer than 10 patients have is left out; no page names a patient.
        by: groupings beside the label, such as from `deeplift_fast.report.grouping.read_grouping`.
        links: patients' pages, from :func:`deeplift_fast.report.patient_pages`.

    Raises:
        SummaryError: as :func:`deeplift_fast.report.summarise` raises it.
        ImportError: if jinja2 is not installed.
    """
    titles = Titles.packaged() if mimic_root is None else Titles(mimic_root)
    summary = summarise(out, by)
    folder = CohortFolder(out)
    keep(summary.cohort, folder)
    text = ""
    for rows, points in _SIZES:
        text = render("cohort", page=content_of(summary, folder, titles, pseudonymous, links, rows, points))
        if len(text.encode()) <= MOST_BYTES:
            break
    return text


def content_of(
    summary: Summary,
    folder: CohortFolder,
    titles: Titles,
    pseudonymous: bool,
    links: Sequence[Link] = (),
    rows: int = _SIZES[0][0],
    points: int = MOST_POINTS,
) -> Content:
    """What the page shows; arguments as for :func:`cohort_page` and :func:`blocks_of`."""
    fewest = FEWEST if pseudonymous else 1
    run = described(folder)
    groups, more = tables_of(summary.by_group, titles, fewest)
    left_out, failures = failures_of(summary.completeness, fewest)
    return Content(
        lead=lead_of(summary, run, fewest),
        complete=facts_of(summary, run)[0][1],
        left_out=left_out,
        failures=failures,
        blocks=blocks_of(summary.cohort.table, summary.points, titles, fewest, rows, points),
        points=points,
        groups=groups,
        more_groups=more,
        links=tuple(links),
        facts=facts_of(summary, run)[1:],
        notes=summary.notes,
        limits=limits_of(),
        unit="output" if run.mode == "regression" else "logit",
        is_pseudonymous=pseudonymous,
    )
