"""`deeplift-fast synth`."""

from pathlib import Path
from typing import Annotated

import typer

from deeplift_fast.cli.exit import Debug, reported


def synth(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; it must not exist.")],
    patients: Annotated[int, typer.Option(help="Number of patients.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a hospital written earlier.")] = False,
    debug: Debug = False,
) -> None:
    """Write a synthetic hospital in MIMIC-IV's file layout, of any size, with a planted cause of death.

    Patients are drawn and written in chunks, so memory does not grow with their number. A smaller hospital is the
    start of a larger one of the same seed.
    """
    with reported(debug, "demo", "nothing was kept"):
        from deeplift_fast.demo.synth import write_new_hospital

        write_new_hospital(folder, patients, seed, force)
        print(f"Wrote a hospital of {patients:,} patients to {folder}")
