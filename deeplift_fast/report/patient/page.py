"""A patient's page, from a cohort's folder to HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplift_fast.report.consistent import consistently
from deeplift_fast.report.described import described
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.formats import cut, share
from deeplift_fast.report.page import render
from deeplift_fast.report.patient.columns import columns_of
from deeplift_fast.report.patient.items import Item, items_of
from deeplift_fast.report.patient.position import FEWEST, Position, positions_of
from deeplift_fast.report.patient.rows import Sample, likelihood, read_sample
from deeplift_fast.report.patient.timeline import Timeline, timeline_of
from deeplift_fast.report.patient.waterfall import Waterfall, waterfall_of
from deeplift_fast.report.patient.words import (
    REASONS,
    Lead,
    Reason,
    about_of,
    facts_of,
    lead_of,
    limits_of,
    reasons_of,
)
from deeplift_fast.report.show import difference_of
from deeplift_fast.report.titles import Titles
from deeplift_fast.support.numbers import Numbers

if TYPE_CHECKING:
    from deeplift_fast.report.model_run import ModelRun


MOST_BYTES = 150_000
"""Bytes of a page beyond which its folds show less."""

_FEWER = (40, 0)
"""Moments that all folds of a large page show, tried one after another."""


@dataclass(frozen=True)
class Without:
    """The model's prediction without one code or dimension.

    Attributes:
        title: what was left out.
        predicted: the prediction without it: a probability and its logit, or an output.
        moved: the change that its being there makes, as text with sign and mark.
        contribution: its contribution.
    """

    title: str
    predicted: str
    moved: str
    contribution: str


@dataclass(frozen=True)
class Content:
    """What a patient's page shows.

    Attributes:
        name: how the page calls the patient.
        about: the record in one line.
        lead: the prediction in words.
        reasons: the strongest reasons.
        timeline: the timeline.
        waterfall: the waterfall.
        unit: "logit" or "output".
        without: the predictions without each reason; empty where the model was not run.
        positions: where the patient lies among the cohort.
        few: whether some positions are left out because too few patients have the code.
        facts: completeness, model, rule set and baseline.
        limits: what the page does not say.
        is_pseudonymous: whether it names nobody.
    """

    name: str
    about: str
    lead: Lead
    reasons: tuple[Reason, ...]
    timeline: Timeline
    waterfall: Waterfall
    unit: str
    without: tuple[Without, ...]
    positions: tuple[Position, ...]
    few: bool
    facts: tuple[tuple[str, str], ...]
    limits: tuple[str, ...]
    is_pseudonymous: bool


def patient_page(
    out: str | Path,
    sample: int | None = None,
    patient: str | None = None,
    mimic_root: str | Path | None = None,
    pseudonymous: bool = False,
    model_run: "ModelRun | None" = None,
) -> str:
    """The HTML page of one sample of a cohort: one file that loads nothing.

    Args:
        out: the cohort's folder, a path or an fsspec URL. Its `summary.parquet` is written if it is missing.
        sample: the sample's number.
        patient: the patient's `patient_id`, instead of `sample` or with it.
        mimic_root: folder of a MIMIC-IV release whose dictionaries describe codes; `None` for those of the package.
        pseudonymous: whether identifiers, and codes that fewer than 10 patients have, are left out.
        model_run: the cohort's model and dataset, to run the model without each of the strongest reasons.

    Raises:
        SummaryError: if the folder has no such sample, a file is missing or damaged, no dictionary is found, or
            `model_run` is not of this cohort.
        ImportError: if jinja2 is not installed.

    Example:
        >>> from pathlib import Path
        >>> from deeplift_fast.report import patient_page
        >>> _ = Path("patient.html").write_text(patient_page("mortality", patient="ID"))
    """
    content = consistently(out, lambda folder: content_of(folder, sample, patient, mimic_root, pseudonymous, model_run))
    text = render("patient", page=content)
    for moments in _FEWER:
        if len(text.encode()) > MOST_BYTES:
            text = render("patient", page=replace(content, timeline=content.timeline.with_moments(moments)))
    return text


def content_of(
    folder: CohortFolder,
    sample: int | None,
    patient: str | None,
    mimic_root: str | Path | None,
    pseudonymous: bool,
    model_run: "ModelRun | None",
) -> Content:
    """What the page shows; arguments as for :func:`patient_page`."""
    found = read_sample(folder, sample, patient)
    run, titles = described(folder), _titles(mimic_root)
    table = cohort_of(folder)
    rare, hidden = (_rare(found, table), _identifiers(found)) if pseudonymous else ((), ())
    if pseudonymous:
        found = _relative(found)
    items = items_of(found, titles, rare, hidden)
    columns = columns_of(found, names_stays=not pseudonymous)
    timeline = timeline_of(items, columns, carried=run.carried)
    strongest = [item for item in items if item.attribution][:REASONS]
    positions = positions_of(strongest, table, found.target, FEWEST if pseudonymous else 1)
    difference = difference_of(folder.prediction_difference)
    return Content(
        name="A patient" if pseudonymous or found.patient is None else f"Patient {cut(found.patient, 60)}",
        about=about_of(columns, found),
        lead=lead_of(found, run),
        reasons=reasons_of(items, columns, found.unit, found.pairs),
        timeline=timeline,
        waterfall=waterfall_of(found, items),
        unit=found.unit,
        without=() if model_run is None else _without(model_run, folder, found, strongest),
        positions=positions,
        few=len(positions) < len(strongest),
        facts=facts_of(found, run, items, difference, pseudonymous),
        limits=limits_of(timeline.is_hollow),
        is_pseudonymous=pseudonymous,
    )


def cohort_of(folder: CohortFolder) -> Any:
    """The cohort's table, a pandas data frame."""
    from deeplift_fast.report.cohort_table import cohort_table

    return cohort_table(folder).table


def _titles(mimic_root: str | Path | None) -> Titles:
    return Titles.of(mimic_root)


def _rare(sample: Sample, table: Any) -> set[tuple[str, str]]:
    """The sample's features and codes that too few patients of the cohort have."""
    known = table[(table["target"] == sample.target) & (table["patients"] >= FEWEST)]
    common = set(zip(known["feature"], known["code"], strict=True))
    return {(row.feature, row.name) for row in sample.rows} - common


def _identifiers(sample: Sample) -> set[str]:
    """Texts that name the patient, the visit or a stay."""
    stays = {label for label, _ in sample.stays} | {row.stay for row in sample.rows}
    return {each for each in (sample.patient, sample.visit, *stays) if each}


def _relative(sample: Sample) -> Sample:
    """The sample with days and times that count from its own first one."""
    begins = [begin for _, begin in sample.stays if begin is not None]
    first = min((*begins, *(row.day for row in sample.rows if row.day is not None)), default=0.0)
    start = min((row.time for row in sample.rows if row.time is not None), default=0.0)
    rows = tuple(
        replace(
            row,
            day=None if row.day is None else row.day - first,
            time=None if row.time is None else row.time - start,
        )
        for row in sample.rows
    )
    stays = tuple((label, None if begin is None else begin - first) for label, begin in sample.stays)
    return replace(sample, rows=rows, stays=stays)


def _without(given: "ModelRun", folder: CohortFolder, sample: Sample, items: Sequence[Item]) -> tuple[Without, ...]:
    """The model's prediction without each item; rare codes, which are not named, are not left out either."""
    from deeplift_fast.report.model_run import outputs_without

    named = [item for item in items if item.count == 1 and item.code]
    outputs = outputs_without(given, folder, sample, [(item.feature, item.code) for item in named])
    changes = [sample.output - output for output in outputs]
    numbers = Numbers(max((abs(each) for each in (*changes, *(item.attribution for item in named))), default=1.0), 2)
    levels = Numbers(max(map(abs, (sample.output, *outputs))), 3)

    def predicted(output: float) -> str:
        likely = f"{share(likelihood(output))}, " if sample.is_likely else ""
        return likely + levels.level(output)

    whole = Without("nothing", predicted(sample.output), "", "")
    return whole, *(
        Without(
            item.title,
            predicted(output),
            numbers.signed(change),
            numbers.signed(item.attribution),
        )
        for item, output, change in zip(named, outputs, changes, strict=True)
    )
