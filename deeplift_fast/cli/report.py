"""`deeplift-fast report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deeplift_fast.cli.exit import Debug, reported
from deeplift_fast.cli.shared_options import CohortDir, MimicRoot
from deeplift_fast.cli.stdout import redirected


def report(
    folder: CohortDir,
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
    mimic_root: MimicRoot = None,
    cohort: Annotated[bool, typer.Option("--cohort", help="Write a page of the whole cohort instead.")] = False,
    patients: Annotated[
        str | None,
        typer.Option(
            metavar="top:N",
            help="With --cohort: also write the pages of the N samples with the highest predictions, into a folder "
            "beside the page.",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.csv:COLUMN", help="With --cohort: group by a column too, as `summary` does."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column that names samples in the files of --by.")
    ] = None,
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
    """Write an HTML page of one patient, or of the cohort: one file that loads nothing.

    A patient's page says what moved the prediction, when, and where the patient lies among the cohort. A cohort's page
    says which codes and values move predictions, how far, and in which groups.
    """
    if cohort == (patient is not None or sample is not None):
        raise typer.BadParameter("give --cohort, or one of --patient and --sample")
    if cohort and recipe is not None:
        raise typer.BadParameter("--recipe is for --patient and --sample")
    if not cohort and (patients is not None or by or key is not None):
        raise typer.BadParameter("--patients, --by and --key are for --cohort")
    count = 0 if patients is None else _top(patients)
    with reported(debug, "report", "no page was begun"):
        from deeplift_fast.report import cohort_page, patient_page, patient_pages
        from deeplift_fast.report.cohort.patients import pages_folder
        from deeplift_fast.report.grouping import read_grouping
        from deeplift_fast.report.private_file import require_absent, write_private

        require_absent(out, force)  # before the work
        with redirected(silent=False):
            if cohort:
                groupings = [read_grouping(given, key) for given in by or ()]
                links = patient_pages(folder, out, count, mimic_root, pseudonymous, force) if count else ()
                text = cohort_page(folder, mimic_root, pseudonymous, groupings, links)
            else:
                run = None if recipe is None else _model_run(recipe)
                text = patient_page(folder, sample, patient, mimic_root, pseudonymous, run)
        write_private(folder, out, lambda file: file.write(text.encode()), replace=force)
        print(f"{out}: {len(text.encode()):,} bytes")
        if count:
            print(f"{pages_folder(out)}: {len(links):,} patients' pages")


def _top(given: str) -> int:
    """The number in `top:N`."""
    word, _, number = given.partition(":")
    if word != "top" or not number.isdecimal() or not int(number):
        raise typer.BadParameter(f"--patients is {given!r}; accepted: top:N, such as top:50")
    return int(number)


def _model_run(recipe: str) -> Any:
    """The model and the dataset that a recipe gives."""
    from deeplift_fast.cli.recipe import load_recipe
    from deeplift_fast.report.model_run import ModelRun

    model, dataset, further = load_recipe(recipe)
    return ModelRun(model, dataset, further.get("baseline"), further.get("dimensions"))
