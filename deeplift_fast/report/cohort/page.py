"""A cohort's page, from its folder to HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.cohort.facts import facts_of, failures_of, lead_of, limits_of
from deeplift_fast.report.cohort.groups import MOST_TABLES, GroupTable, tables_of
from deeplift_fast.report.cohort.lines import FEWEST, Block, blocks_of
from deeplift_fast.report.cohort.pairs import PairTable, pair_tables
from deeplift_fast.report.cohort.patients import Link
from deeplift_fast.report.cohort_table import keep
from deeplift_fast.report.consistent import consistently
from deeplift_fast.report.described import described
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouping import Cut
from deeplift_fast.report.page import render
from deeplift_fast.report.points import MOST_POINTS
from deeplift_fast.report.summary import Summary, summary_of
from deeplift_fast.report.titles import Titles

MOST_BYTES = 2_000_000
"""Bytes of a page beyond which it shows less."""


@dataclass(frozen=True)
class Size:
    """How much a page shows.

    Attributes:
        rows: rows of the tables of codes and values, all together; each table has one at least.
        points: dots of a row.
        tables: tables by group.
    """

    rows: int
    points: int
    tables: int


_SIZES = (
    Size(300, MOST_POINTS, MOST_TABLES),
    Size(300, 100, MOST_TABLES),
    Size(100, 100, MOST_TABLES // 2),
    Size(100, 40, MOST_TABLES // 8),
)
"""The sizes that are tried one after another."""


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
        pairs: the tables of pairs that act together; `None` for a cohort without interactions.
        links: patients' pages.
        facts: completeness, model, rule set and baseline, and the notes of the summary.
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
    pairs: tuple[PairTable, ...] | None
    links: tuple[Link, ...]
    facts: tuple[tuple[str, str], ...]
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
        SummaryError: as :func:`deeplift_fast.report.summarise` raises it; or if the page would have more than 2 MB.
        ImportError: if jinja2 is not installed.

    Example:
        >>> from pathlib import Path
        >>> from deeplift_fast.report import cohort_page
        >>> _ = Path("cohort.html").write_text(cohort_page("mortality"))
    """
    titles = Titles.of(mimic_root)
    summary, folder = consistently(out, lambda folder: (summary_of(folder, by, titles), folder))
    keep(summary.cohort, summary.out, summary.about)
    text = ""
    for size in _SIZES:
        text = render("cohort", page=content_of(summary, folder, titles, pseudonymous, links, size))
        if len(text.encode()) <= MOST_BYTES:
            return text
    raise SummaryError(
        f"the page of {out} would have {len(text.encode()):,} bytes at its smallest; accepted: at most {MOST_BYTES:,}; "
        "give fewer patients' pages (--patients, in Python links)"
    )


def content_of(
    summary: Summary,
    folder: CohortFolder,
    titles: Titles,
    pseudonymous: bool,
    links: Sequence[Link] = (),
    size: Size = _SIZES[0],
) -> Content:
    """What the page shows, in one of `_SIZES`; other arguments as for :func:`cohort_page`."""
    fewest = FEWEST if pseudonymous else 1
    run = described(folder)
    groups, more = tables_of(summary.by_group, titles, fewest, size.tables)
    left_out, failures = failures_of(summary.completeness, fewest)
    blocks = blocks_of(summary.cohort.table, summary.points, titles, fewest, size.rows, size.points)
    return Content(
        lead=lead_of(summary, run, fewest),
        complete=facts_of(summary, run)[0][1],
        left_out=left_out if size == _SIZES[0] else (*left_out, _less(blocks)),
        failures=failures,
        blocks=blocks,
        points=size.points,
        groups=groups,
        more_groups=more,
        pairs=pair_tables(summary.pairs, titles, fewest),
        links=tuple(links),
        facts=(*facts_of(summary, run)[1:], *(("Note", note) for note in summary.notes)),
        limits=limits_of(),
        unit="output" if run.mode == "regression" else "logit",
        is_pseudonymous=pseudonymous,
    )


def _less(blocks: Sequence[Block]) -> str:
    """That a large page shows less, in a sentence."""
    shown, known = sum(len(block.lines) for block in blocks), sum(block.known for block in blocks)
    return (
        f"To stay within {MOST_BYTES / 1e6:g} MB, this page shows {shown:,} of {known:,} rows, those with the largest "
        "mean |contribution|, and fewer dots or tables than others. The files of the command summary hold every row."
    )
