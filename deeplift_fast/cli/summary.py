"""`deeplift-fast summary`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deeplift_fast.cli.exit import Debug, reported
from deeplift_fast.cli.shared_options import CohortDir, MimicRoot


class Sort(StrEnum):
    """Columns to sort by."""

    MEAN_ABS = "mean_abs"
    MEAN = "mean"
    COUNT = "count"


def summary(
    folder: CohortDir,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.csv:COLUMN",
            help="Group by a column too; the file names samples by visit_id, hadm_id, admission_id, record_id, "
            "patient_id, subject_id or the column of --key. May be given several times.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column that names samples in the files of --by, if it has another name, such as patientunitstayid or "
            "person_id.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows shown of each table.")] = 15,
    sort: Annotated[Sort, typer.Option(help="Column to sort the shown rows by.")] = Sort.MEAN_ABS,
    min_samples: Annotated[int, typer.Option(min=1, help="Show codes and values of at least so many samples.")] = 10,
    mimic_root: MimicRoot = None,
    csv: Annotated[Path | None, typer.Option(help="Write every row as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write every row as Parquet.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every row, and the totals, as JSON.")] = None,
    debug: Debug = False,
) -> None:
    """Show a cohort's completeness, and the codes and labs that moved the output.

    Means have 95 % bootstrap intervals over patients. Unfinished parts are left out. Files hold every row, including
    rows of few samples.
    """
    with reported(debug, "cohort", "no file was begun"):
        import os

        from rich.console import Console

        from deeplift_fast.report import summarise
        from deeplift_fast.report.cohort_table import keep
        from deeplift_fast.report.files import write_csv, write_json, write_parquet
        from deeplift_fast.report.grouping import read_grouping
        from deeplift_fast.report.show import PIPED, show

        found = summarise(folder, [read_grouping(given, key) for given in by or ()], mimic_root)
        for path, write in ((csv, write_csv), (parquet, write_parquet), (json, write_json)):
            if path is not None:
                write(found, path)
        keep(found.cohort, found.out, found.about)
        console = Console()
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = PIPED
        show(found, console, top, sort.value, min_samples)
