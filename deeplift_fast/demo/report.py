"""The report of the main job: aggregates of its two tables, never one patient's data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from deeplift_fast.demo.kept import CHECKPOINT, PROCESSORS, RECIPE
from deeplift_fast.demo.planted import Planted
from deeplift_fast.demo.speed import Speed
from deeplift_fast.errors import SummaryError
from deeplift_fast.report.completeness import COLUMNS, LARGEST_FACTOR, TOLERANCE, misscaled
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouping import EVERYONE, Cut
from deeplift_fast.report.layout import wrapped
from deeplift_fast.report.show import MIN_SAMPLES, Column, table
from deeplift_fast.report.summary import Summary, summarise

TOP = 15
WIDTH = 80


@dataclass(frozen=True)
class Facts:
    """Contents of the report beside the cohort's summary.

    Attributes:
        title: one line on the method and the data.
        speed: speed of both interpreters.
        mimic: folder of the MIMIC-IV release, for the titles of codes.
        planted: planted causes of death of a synthetic hospital; `None` for a real one.
        shown_at: final path of the files.
    """

    title: str
    speed: Speed
    mimic: Path
    planted: Planted | None
    shown_at: Path


@dataclass(frozen=True)
class WellScaled:
    """Leaves out samples whose rescaling misleads: a :class:`deeplift_fast.report.grouping.Cut`."""

    name: str = "scaling"
    groups: tuple[str, ...] = ("well scaled",)
    columns: tuple[str, ...] = COLUMNS

    def assign(self, samples: pa.Table) -> np.ndarray:
        """As :meth:`deeplift_fast.report.grouping.Cut.assign`."""
        return np.where(misscaled(*(samples[name].to_numpy() for name in self.columns)), -1, 0)


def write_report(folder: Path, facts: Facts) -> str:
    """The report of a folder that `attribute_cohort` wrote, as text.

    Args:
        folder: folder of the two tables.
        facts: further contents.
    """
    try:
        summary = summarise(folder, [WellScaled()], facts.mimic)
    except SummaryError:  # a release without dictionaries gives no titles
        summary = summarise(folder, [WellScaled()])
    codes, labs = ranked(summary, WellScaled() if summary.rules != "complete" else EVERYONE)
    sections = [
        [facts.title],
        _baseline_lines(summary.baseline),
        _model_lines(folder),
        _completeness_lines(summary),
        _code_lines(codes, summary, facts.planted),
        _lab_lines(labs, facts.planted),
    ]
    if facts.planted is not None:
        areas = [planted_areas(codes, labs, facts.planted)]
        if summary.rules != "complete":
            areas.append(planted_areas(*ranked(summary), facts.planted))
        sections.append(_planted_lines(codes, areas, facts.planted))
    sections += [_speed_lines(facts.speed), _file_lines(folder, facts.shown_at)]
    return "\n\n".join("\n".join(lines) for lines in sections)


def ranked(summary: Summary, cut: Cut = EVERYONE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The codes by mean attribution and the labs by mean absolute attribution, the largest first.

    Args:
        summary: summary of the cohort, with `cut` among its groupings.
        cut: grouping whose first group is ranked.

    Returns:
        Rows of the summary's table, with the column `rank`, counted from 1. Codes and labs of fewer than `MIN_SAMPLES`
        samples are left out.
    """
    found = []
    for kind, sort in (("code", "mean"), ("value", "mean_abs")):
        rows = summary.top(kind, cut.name, cut.groups[0], len(summary.table), sort, MIN_SAMPLES)
        found.append(rows.assign(rank=np.arange(1, len(rows) + 1)))
    return found[0], found[1]


def planted_areas(codes: pd.DataFrame, labs: pd.DataFrame, planted: Planted) -> tuple[float | None, ...]:
    """AUROCs of the attributions as scores of the planted causes.

    Args:
        codes: codes, from `ranked`.
        labs: labs, from `ranked`.
        planted: planted causes of death.

    Returns:
        AUROC of risk codes against codes without effect by mean attribution; of protective codes against codes without
        effect by its negative; of planted labs against the others by mean absolute attribution. `None` if undefined.
    """
    weight = codes["code"].map(planted.weight).to_numpy(dtype=np.float64)
    score = codes["mean"].to_numpy()
    return (
        _area_under_roc(weight[weight >= 0] > 0, score[weight >= 0]),
        _area_under_roc(weight[weight <= 0] < 0, -score[weight <= 0]),
        _area_under_roc(labs["code"].map(planted.weight).to_numpy(dtype=np.float64) != 0, labs["mean_abs"].to_numpy()),
    )


def _area_under_roc(positive: np.ndarray, score: np.ndarray) -> float | None:
    return float(roc_auc_score(positive, score)) if len(set(positive.tolist())) == 2 else None


def _number(value: float | None) -> str:
    return "not defined: one class" if value is None else f"{value:.3f}"


def _model_lines(folder: Path) -> list[str]:
    cohort, columns = CohortFolder(folder), ("split", "label", "probability")
    samples = pa.concat_tables([cohort.samples(part, columns) for part in cohort.parts]).to_pandas()
    test = samples[samples["split"] == "test"]
    area = _area_under_roc(test["label"].to_numpy(), test["probability"].to_numpy())
    return [
        "Model",
        f"  StageNet on {len(samples):,} samples; {samples['label'].mean():.1%} died",
        f"  AUROC on {len(test):,} held-out samples: {_number(area)}",
    ]


def _baseline_lines(name: str) -> list[str]:
    if name == "unk":
        return [
            f"Baseline: {name}",
            "  Each code is compared with the unknown code, each lab value with 0.01",
            "  (0 is a typical value). Training never touches the unknown code's embedding:",
            "  drawn again, it gives other contributions.",
        ]
    labs = "are 0, as if never measured (0 is a typical value)"
    if name.startswith("typical"):
        labs = "stand at their medians over the patients of the training part"
    return [
        f"Baseline: {name}",
        "  Contributions explain the change from the logit of the same visits and times.",
        "  There, all codes are removed, as if none had been recorded, and the measured",
        f"  lab values {labs}.",
    ]


def _completeness_lines(summary: Summary) -> list[str]:
    found = summary.completeness
    share = f"  {found.complete:.1%} of samples are complete to {TOLERANCE:.0%}; "
    lines = ["Completeness"]
    if summary.rules == "complete":
        lines.append(f'{share}rules="complete" scales nothing')
    else:
        lines += [
            f'{share}rules="{summary.rules}" then scales each until it is',
            f"  {found.misscaled:.1%} were scaled by a negative factor or by more than {LARGEST_FACTOR:g};",
            "  the ranks leave them out",
        ]
    if failures := sum(found.failures.values()):
        lines.append(f"  {failures:,} sample(s) could not be attributed; failures.parquet says why")
    return lines


def _code_lines(codes: pd.DataFrame, summary: Summary, planted: Planted | None) -> list[str]:
    if codes.empty:
        return ["Codes", f"  none is carried by {MIN_SAMPLES} samples or more: nothing to rank"]
    against = "the unknown code" if summary.baseline == "unk" else "their removal"
    lines = [
        f"Codes, by mean attribution in logits, against {against}",
        f"(the first {min(TOP, len(codes))} of {len(codes)} that {MIN_SAMPLES} samples or more carry)",
        *_table(codes.head(TOP), ["code", "mean", "samples"], planted),
    ]
    if not summary.described:
        lines.append("  (no titles: found neither in d_icd_diagnoses and d_icd_procedures nor in the package)")
    return lines


def _lab_lines(labs: pd.DataFrame, planted: Planted | None) -> list[str]:
    if labs.empty:
        return ["Labs", f"  none is measured in {MIN_SAMPLES} samples or more: nothing to rank"]
    heading = "Labs, by mean absolute attribution (both high and low values may matter)"
    return [heading, *_table(labs, ["code", "mean |a|", "mean"], planted)]


def _planted_lines(codes: pd.DataFrame, areas: Sequence[Sequence[float | None]], planted: Planted) -> list[str]:
    """Lines on the planted causes; `areas` holds those of the ranks and, where samples are left out, of all samples."""
    names = ("risk codes above codes without effect", "protective codes below those", "planted labs above the others")
    lines = ["Planted causes of death, and their ranks"]
    for name, area, *of_all in zip(names, *areas, strict=True):
        lines.append(f"  {name + ':':40} AUROC {_number(area)}")
        lines += [f"    (no sample left out: {_number(each)})" for each in of_all]
    known = codes[codes["code"].map(planted.weight) != 0]
    lines += _table(known, ["code", "mean", "samples"], planted)
    pairs = ", ".join(f"{one} × {other} {weight:+.1f}" for (one, other), weight in planted.interactions.items())
    return [*lines, *wrapped(f"  interactions: {pairs}", WIDTH, indent=4)]


def _table(rows: pd.DataFrame, columns: list[str], planted: Planted | None) -> list[str]:
    """Lines of a table, with the planted weights of a synthetic hospital."""
    names = ["rank", *columns, *(["planted"] if planted is not None else [])]
    weights = {code: planted.weight(code) if planted is not None else 0.0 for code in rows["code"]}
    more: dict[str, Column] = {
        "rank": lambda row: str(row.rank),
        "planted": lambda row: f"{weights[row.code]:+.1f}" if weights[row.code] else "",
    }
    return [f"  {line}" for line in table(rows, names, WIDTH - 2, columns[1], more)]


def _speed_lines(speed: Speed) -> list[str]:
    return [
        f"Speed ({speed.where})",
        f"  {speed.ours:,.0f} samples/s; PyHealth's DeepLift {speed.theirs:,.0f} samples/s",
        f"  on the same {speed.samples:,} samples ({speed.ours / speed.theirs:.1f} times)",
        "  (PyHealth's with its own rules and baseline)",
    ]


def _file_lines(folder: Path, shown_at: Path) -> list[str]:
    lines = ["Files (times in days, lab values in the laboratory's units)"]
    for name in ("samples", "attributions"):
        files = sorted((folder / name).glob("part-*.parquet"))
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        lines.append(f"  {shown_at / name}  ({rows:,} rows in {len(files):,} part(s))")
    lines += [f"  {shown_at / name}" for name in (CHECKPOINT, PROCESSORS, "report.txt")]
    lines.append(f"  {shown_at / RECIPE}  (for deeplift-fast run {shown_at / RECIPE}:build)")
    if (folder / "hospital").is_dir():
        lines.append(f"  {shown_at / 'hospital'}")
    return lines
