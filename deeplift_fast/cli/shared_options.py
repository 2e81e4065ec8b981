"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from deeplift_fast.cli.exit import Style

CohortDir = Annotated[str, typer.Argument(metavar="DIR", help="Output folder of a cohort, finished or running.")]
MimicRoot = Annotated[
    Path | None,
    typer.Option(
        help="MIMIC-IV folder whose dictionaries describe codes. Without it, titles are those that the package holds: "
        "of common ICD-10 codes and laboratory items."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show errors only.")]
LogJson = Annotated[
    bool,
    typer.Option(
        "--log-json",
        help="Write progress, warnings and errors as lines of JSON to standard error, and the result to standard "
        "output.",
    ),
]


def style_of(quiet: bool, log_json: bool) -> Style:
    """The form of a command's lines on standard error.

    Raises:
        typer.BadParameter: if both options are given.
    """
    if quiet and log_json:
        raise typer.BadParameter("--quiet and --log-json exclude each other")
    return "errors" if quiet else "json" if log_json else "text"
