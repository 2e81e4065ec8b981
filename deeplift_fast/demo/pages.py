"""The two HTML pages of the main job: the held-out patient with the highest risk, and the cohort."""

from pathlib import Path

import pandas as pd

from deeplift_fast.report import SummaryError, cohort_page, patient_page
from deeplift_fast.report.model_run import ModelRun
from deeplift_fast.report.private_file import write_private
from deeplift_fast.report.titles import Titles

PATIENT, COHORT = "patient.html", "cohort.html"


def write_pages(folder: Path, mimic: Path, given: ModelRun) -> None:
    """Writes both pages into the folder of the tables.

    Args:
        folder: the folder.
        mimic: folder of the MIMIC-IV release, for the titles of codes; one without dictionaries gives none.
        given: the model and its samples, to run it without each of the strongest reasons.
    """
    titles: Path | None = mimic
    try:
        Titles(mimic)
    except SummaryError:
        titles = None
    samples = pd.read_parquet(folder / "samples", columns=["sample", "split", "probability"])
    held_out = samples[samples["split"] == "test"]
    highest = int(held_out.loc[held_out["probability"].idxmax(), "sample"])
    patient = patient_page(folder, sample=highest, mimic_root=titles, model_run=given)
    cohort = cohort_page(folder, mimic_root=titles)
    write_private(str(folder), folder / PATIENT, lambda file: file.write(patient.encode()))
    write_private(str(folder), folder / COHORT, lambda file: file.write(cohort.encode()))
