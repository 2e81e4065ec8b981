"""`deeplift-fast report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deeplift_fast.cli.exit import Debug, reported
from deeplift_fast.cli.stdout import redirected


def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Output folder of a cohort, finished or running.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write, for its owner alone.")],
    patient: Annotated[str | None, typer.Option(metavar="ID", help="The patient's patient_id.")] = None,
    sample: Annotated[int | None, typer.Option(metavar="N", min=0, help="The number of a sample.")] = None,
    pseudonymous: Annotated[
        bool,
        typer.Option(
            "--pseudonymous",
            help="Leave out identifiers, and what fewer than 10 patients have; count days from the first.",
        ),
    ] = False,
    mimic_root: Annotated[Path | None, typer.Option(help="MIMIC-IV folder whose dictionaries describe codes.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="The recipe of the run, as for `run`: the model is run again without each of the strongest reasons.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing page.")] = False,
    debug: Debug = False,
) -> None:
    """Write an HTML page of one patient: one file that loads nothing.

    The page says what moved the prediction, when, and where the patient lies among the cohort.
    """
    if patient is None and sample is None:
        raise typer.BadParameter("give one of --patient and --sample")
    with reported(debug, "report", "no page was begun"):
        from deeplift_fast.report import patient_page
        from deeplift_fast.report.private_file import write_private

        with redirected(silent=False):
            run = None if recipe is None else _model_run(recipe)
            text = patient_page(folder, sample, patient, mimic_root, pseudonymous, run)
        write_private(folder, out, lambda file: file.write(text.encode()), replace=force)
        print(f"{out}: {len(text.encode()):,} bytes")


def _model_run(recipe: str) -> Any:
    """The model and the dataset that a recipe gives."""
    from deeplift_fast.cli.recipe import load_recipe
    from deeplift_fast.report.model_run import ModelRun

    model, dataset, further = load_recipe(recipe)
    return ModelRun(model, dataset, further.get("baseline"), further.get("dimensions"))
