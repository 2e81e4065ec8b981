"""What the main job prints: aggregates of its two tables, never one patient's data."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from sklearn.metrics import roc_auc_score

from deeplift_fast.baselines import Baseline
from deeplift_fast.demo.planted import Planted
from deeplift_fast.demo.speed import Speed
from deeplift_fast.errors import SummaryError
from deeplift_fast.report.completeness import COLUMNS, LARGEST_FACTOR, TOLERANCE, Completeness, misscaled
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouping import EVERYONE
from deeplift_fast.report.show import MIN_SAMPLES, Column, table
from deeplift_fast.report.summary import Summary, summarise

TOP = 15
WIDTH = 100


@dataclass(frozen=True)
class Facts:
    """What the report needs beside the two files.

    Attributes:
        title: what was attributed, in one line.
        rules: the rule set.
        baseline: what patients were compared with: a name, or what was fitted.
        held_out: numbers of the held-out samples, int64.
        failures: how many samples could not be attributed.
        speed: how fast the interpreters were.
        mimic: folder of the MIMIC-IV release, for the titles of codes.
        planted: what the hospital's deaths follow from; `None` for a real one.
        shown_at: where the user will find the files.
    """

    title: str
    rules: str
    baseline: str | Baseline
    held_out: np.ndarray
    failures: int
    speed: Speed
    mimic: Path
    planted: Planted | None
    shown_at: Path


@dataclass(frozen=True)
class WellScaled:
    """Leaves out the samples whose rescaling misleads: a :class:`deeplift_fast.report.grouping.Cut`."""

    name: str = "scaling"
    groups: tuple[str, ...] = ("well scaled",)
    columns: tuple[str, ...] = COLUMNS

    def assign(self, samples: pa.Table) -> np.ndarray:
        """As :meth:`deeplift_fast.report.grouping.Cut.assign`."""
        return np.where(misscaled(*(samples[name].to_numpy() for name in self.columns)), -1, 0)


def write_report(folder: Path, facts: Facts) -> str:
    """The report of a folder that `attribute_cohort` wrote, as text.

    Args:
        folder: where the two tables are.
        facts: what they do not say.
    """
    summary = _summary(folder, facts.mimic)
    codes, labs = ranked(summary, facts.rules)
    sections = [
        [facts.title],
        _baseline_lines(summary.baseline, facts.baseline),
        _model_lines(CohortFolder(folder), facts.held_out),
        _completeness_lines(summary.completeness, facts),
        _code_lines(codes, summary.described, facts),
        _lab_lines(labs, facts.planted),
    ]
    if facts.planted is not None:
        of_all = None if facts.rules == "complete" else planted_areas(*ranked(summary), facts.planted)
        sections.append(_planted_lines(codes, planted_areas(codes, labs, facts.planted), of_all, facts.planted))
    sections += [_speed_lines(facts.speed), _file_lines(folder, facts.shown_at)]
    return "\n\n".join("\n".join(lines) for lines in sections)


def _summary(folder: Path, mimic: Path) -> Summary:
    """The summary of the folder; without titles of codes where the release has no dictionaries."""
    try:
        return summarise(folder, [WellScaled()], mimic)
    except SummaryError:
        return summarise(folder, [WellScaled()])


def ranked(summary: Summary, rules: str = "complete") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The codes by mean attribution and the labs by mean absolute attribution, the largest first.

    Args:
        summary: of the cohort, in which `WellScaled` is a grouping.
        rules: under other rule sets than `"complete"`, samples whose rescaling misleads are left out.

    Returns:
        Rows of the summary's table, with the column `rank`, counted from 1. Codes and labs that fewer than
        `MIN_SAMPLES` samples carry are left out.
    """
    cut = EVERYONE if rules == "complete" else WellScaled()
    found = []
    for kind, sort in (("code", "mean"), ("value", "mean_abs")):
        rows = summary.top(kind, cut.name, cut.groups[0], len(summary.table), sort, MIN_SAMPLES)
        found.append(rows.assign(rank=np.arange(1, len(rows) + 1)))
    return found[0], found[1]


def planted_areas(codes: pd.DataFrame, labs: pd.DataFrame, planted: Planted) -> tuple[float | None, ...]:
    """How well the attributions tell what is planted from what is not.

    Args:
        codes: as `ranked` gives them.
        labs: as `ranked` gives them.
        planted: what the deaths follow from.

    Returns:
        AUROC of risk codes against codes without effect by mean attribution, of protective ones likewise by its
        negative, and of planted labs against the others by mean absolute attribution; `None` where undefined.
    """
    weight = codes["code"].map(planted.weight).to_numpy(dtype=np.float64)
    score = codes["mean"].to_numpy()
    return (
        area_under_roc(weight[weight >= 0] > 0, score[weight >= 0]),
        area_under_roc(weight[weight <= 0] < 0, -score[weight <= 0]),
        area_under_roc(labs["code"].map(planted.weight).to_numpy(dtype=np.float64) != 0, labs["mean_abs"].to_numpy()),
    )


def area_under_roc(positive: np.ndarray, score: np.ndarray) -> float | None:
    """AUROC of a score, or `None` where all are positive or none is."""
    return float(roc_auc_score(positive, score)) if len(set(positive.tolist())) == 2 else None


def _number(value: float | None) -> str:
    return "not defined: one class" if value is None else f"{value:.3f}"


def _model_lines(cohort: CohortFolder, held_out: np.ndarray) -> list[str]:
    columns = ("sample", "label", "probability")
    samples = pa.concat_tables([cohort.samples(part, columns) for part in cohort.parts]).to_pandas()
    test = samples[samples["sample"].isin(held_out)]
    area = area_under_roc(test["label"].to_numpy(), test["probability"].to_numpy())
    return [
        "Model",
        f"  StageNet on {len(samples):,} samples, of which {samples['label'].mean():.1%} died",
        f"  AUROC on {len(test):,} held-out samples: {_number(area)}",
    ]


def _baseline_lines(name: str, baseline: str | Baseline) -> list[str]:
    """What contributions are relative to, in sentences."""
    if baseline == "unk":
        return [
            f"Baseline: {name}",
            "  Every code is compared with the unknown code, every lab value with 0.01 (0 is a typical value).",
            "  Training never touches the unknown code's embedding: drawn again, it gives other contributions.",
        ]
    labs = "are 0, as if never measured (0 is a typical value)"
    if isinstance(baseline, Baseline):
        labs = "stand at their medians over the patients of the training part"
    return [
        f"Baseline: {name}",
        "  Contributions say what moves the logit away from that of the same record, visits and times, in",
        "  which all codes are removed, as if none had been recorded, and",
        f"  measured lab values {labs}.",
    ]


def _completeness_lines(found: Completeness, facts: Facts) -> list[str]:
    share = f"  {found.complete:.1%} of samples are complete to {TOLERANCE:.0%}; "
    lines = ["Completeness"]
    if facts.rules == "complete":
        lines.append(f'{share}rules="complete" scales nothing')
    else:
        lines += [
            f'{share}rules="{facts.rules}" then scales each until it is',
            f"  {found.misscaled:.1%} were scaled by a negative factor or by more than {LARGEST_FACTOR:g}; the ranks "
            "leave them out",
        ]
    if facts.failures:
        lines.append(f"  {facts.failures:,} sample(s) could not be attributed; failures.parquet says why")
    return lines


def _code_lines(codes: pd.DataFrame, described: bool, facts: Facts) -> list[str]:
    if codes.empty:
        return ["Codes", f"  none is carried by {MIN_SAMPLES} samples or more: nothing to rank"]
    against = "the unknown code" if facts.baseline == "unk" else "their removal"
    lines = [
        f"Codes, by mean attribution in logits, against {against}",
        f"(the first {min(TOP, len(codes))} of {len(codes)} that {MIN_SAMPLES} samples or more carry)",
        *_table(codes.head(TOP), ["code", "mean", "samples"], facts.planted, described),
    ]
    if not described:
        lines.append("  (no titles: d_icd_diagnoses and d_icd_procedures were not found)")
    return lines


def _lab_lines(labs: pd.DataFrame, planted: Planted | None) -> list[str]:
    if labs.empty:
        return ["Labs", f"  none is measured in {MIN_SAMPLES} samples or more: nothing to rank"]
    heading = "Labs, by mean absolute attribution (both high and low values may matter)"
    return [heading, *_table(labs, ["code", "mean |a|", "mean"], planted)]


def _planted_lines(
    codes: pd.DataFrame, areas: Sequence[float | None], of_all: Sequence[float | None] | None, planted: Planted
) -> list[str]:
    names = ("risk codes above codes without effect", "protective codes below those", "planted labs above the others")
    lines = ["What the deaths follow from, and how it ranks"]
    for place, (name, area) in enumerate(zip(names, areas, strict=True)):
        everyone = "" if of_all is None else f"  (no sample left out: {_number(of_all[place])})"
        lines.append(f"  {name + ':':40} AUROC {_number(area)}{everyone}")
    known = codes[codes["code"].map(planted.weight) != 0]
    lines += _table(known, ["code", "mean", "samples"], planted, described=True)
    pairs = ", ".join(f"{one} × {other} {weight:+.1f}" for (one, other), weight in planted.interactions.items())
    return [*lines, f"  interactions: {pairs}"]


def _table(rows: pd.DataFrame, columns: list[str], planted: Planted | None, described: bool = False) -> list[str]:
    """Lines of a table, with the weights that were planted, if any: a real hospital has none."""
    names = ["rank", *columns, *(["planted"] if planted is not None else []), *(["description"] if described else [])]
    weights = {code: planted.weight(code) if planted is not None else 0.0 for code in rows["code"]}
    more: dict[str, Column] = {
        "rank": lambda row: str(row.rank),
        "planted": lambda row: f"{weights[row.code]:+.1f}" if weights[row.code] else "",
    }
    lines = io.StringIO()
    Console(file=lines, width=WIDTH - 2).print(table(rows, names, more))
    return [f"  {line.rstrip()}" for line in lines.getvalue().rstrip("\n").split("\n")]


def _speed_lines(speed: Speed) -> list[str]:
    return [
        f"Speed ({speed.where})",
        f"  {speed.ours:,.0f} samples/s; PyHealth's DeepLift {speed.theirs:,.0f} samples/s on the same "
        f"{speed.samples:,} samples ({speed.ours / speed.theirs:.1f} times)",
        "  (PyHealth's with rules and a baseline of its own)",
    ]


def _file_lines(folder: Path, shown_at: Path) -> list[str]:
    lines = []
    for name in ("samples", "attributions"):
        files = sorted((folder / name).glob("part-*.parquet"))
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        lines.append(f"  {shown_at / name}  ({rows:,} rows in {len(files):,} part(s))")
    lines.append(f"  {shown_at / 'report.txt'}")
    if (folder / "hospital").is_dir():
        lines.append(f"  {shown_at / 'hospital'}")
    return ["Files (times in days, lab values in the laboratory's units)", *lines]
