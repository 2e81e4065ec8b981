"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

CohortDir = Annotated[str, typer.Argument(metavar="DIR", help="Output folder of a cohort, finished or running.")]
MimicRoot = Annotated[
    Path | None,
    typer.Option(
        help="MIMIC-IV folder whose dictionaries describe codes. Without it, titles are those that the package holds: "
        "of common ICD-10 codes and laboratory items."
    ),
]
