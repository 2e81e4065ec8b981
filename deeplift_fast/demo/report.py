"""What the main job prints: aggregates of its two tables, never one patient's data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from deeplift_fast.baselines import Baseline
from deeplift_fast.demo.planted import Planted
from deeplift_fast.demo.speed import Speed
from deeplift_fast.errors import SummaryError
from deeplift_fast.printable import printable
from deeplift_fast.report.completeness import LARGEST_FACTOR, TOLERANCE, misscaled
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouping import EVERYONE
from deeplift_fast.report.statistics import Statistics
from deeplift_fast.report.titles import Titles

MIN_SAMPLES = 10
"""What fewer samples carry is not ranked: its mean is noise, and nearly one patient's data."""

COLUMNS = ("sample", "output", "baseline_output", "probability", "label", "convergence_delta")
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
    columns: tuple[str, ...] = ("output", "baseline_output", "convergence_delta")

    def assign(self, samples: pa.Table) -> np.ndarray:
        """As :meth:`deeplift_fast.report.grouping.Cut.assign`."""
        return np.where(misscaled(*(samples[name].to_numpy() for name in self.columns)), -1, 0)


def feature_statistics(cohort: CohortFolder) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attributions summed up per code or dimension: of the samples that are well scaled, and of all.

    Args:
        cohort: where the tables are.

    Returns:
        Tables with the columns `feature`, `code`, `samples` (that carry it), `mean` and `mean_abs` (mean and mean
        absolute attribution per row), among others.
    """
    statistics = Statistics([WellScaled(), EVERYONE], replicates=1)
    columns = sorted(statistics.columns())
    for part in cohort.parts:
        statistics.add(cohort, part, cohort.samples(part, columns).sort_by("sample"))
    table = statistics.table()
    return table[table["grouping"] == WellScaled.name], table[table["grouping"] == EVERYONE.name]


def write_report(folder: Path, facts: Facts) -> str:
    """The report of a folder that `attribute_cohort` wrote, as text.

    Args:
        folder: where the two tables are.
        facts: what they do not say.
    """
    cohort = CohortFolder(folder)
    samples = pa.concat_tables([cohort.samples(part, COLUMNS) for part in cohort.parts]).to_pandas()
    well_scaled, everyone = feature_statistics(cohort)
    statistics = everyone if facts.rules == "complete" else well_scaled
    codes, labs = ranked_codes(statistics), ranked_labs(statistics)
    titles = read_titles(facts.mimic, set(codes["code"]))
    sections = [
        [facts.title],
        _baseline_lines(cohort.baseline, facts.baseline),
        _model_lines(samples, facts.held_out),
        _completeness_lines(samples, facts),
        _code_lines(codes, titles, facts),
        _lab_lines(labs, facts.planted),
    ]
    if facts.planted is not None:
        areas = planted_areas(codes, labs, facts.planted)
        of_all = None
        if facts.rules != "complete":
            of_all = planted_areas(ranked_codes(everyone), ranked_labs(everyone), facts.planted)
        sections.append(_planted_lines(codes, titles, facts.planted, areas, of_all))
    sections += [_speed_lines(facts.speed), _file_lines(folder, facts.shown_at)]
    return "\n\n".join("\n".join(lines) for lines in sections)


def ranked_codes(statistics: pd.DataFrame) -> pd.DataFrame:
    """The codes of `MIN_SAMPLES` samples or more, by mean attribution, the largest first."""
    codes = statistics[(statistics["feature"] == "icd_codes") & (statistics["code"] != "<unk>")]
    return codes[codes["samples"] >= MIN_SAMPLES].sort_values("mean", ascending=False, ignore_index=True)


def ranked_labs(statistics: pd.DataFrame) -> pd.DataFrame:
    """The lab categories of `MIN_SAMPLES` samples or more, by mean absolute attribution, the largest first."""
    labs = statistics[(statistics["feature"] == "labs") & (statistics["samples"] >= MIN_SAMPLES)]
    return labs.sort_values("mean_abs", ascending=False, ignore_index=True)


def planted_areas(codes: pd.DataFrame, labs: pd.DataFrame, planted: Planted) -> tuple[float | None, ...]:
    """How well the attributions tell what is planted from what is not.

    Args:
        codes: as `ranked_codes` gives them.
        labs: as `ranked_labs` gives them.
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


def read_titles(mimic: Path, codes: set[str]) -> dict[str, str]:
    """Titles of codes, several joined by " / ".

    Args:
        mimic: folder of a MIMIC-IV release; its dictionaries of codes may be missing.
        codes: the codes wanted.
    """
    try:
        titles = Titles(mimic)
    except SummaryError:
        return {}
    found = {code: titles.find("icd_codes", code) for code in codes}
    return {code: printable(title.text) for code, title in found.items() if title is not None}


def area_under_roc(positive: np.ndarray, score: np.ndarray) -> float | None:
    """AUROC of a score, or `None` where all are positive or none is."""
    return float(roc_auc_score(positive, score)) if len(set(positive.tolist())) == 2 else None


def _number(value: float | None) -> str:
    return "not defined: one class" if value is None else f"{value:.3f}"


def _model_lines(samples: pd.DataFrame, held_out: np.ndarray) -> list[str]:
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


def _code_lines(codes: pd.DataFrame, titles: dict[str, str], facts: Facts) -> list[str]:
    if codes.empty:
        return ["Codes", f"  none is carried by {MIN_SAMPLES} samples or more: nothing to rank"]
    first = f"the first {min(TOP, len(codes))} of {len(codes)}"
    against = "the unknown code" if facts.baseline == "unk" else "their removal"
    lines = [
        f"Codes, by mean attribution in logits, against {against}",
        f"({first} that {MIN_SAMPLES} samples or more carry)",
    ]
    lines += _code_table(codes.head(TOP), titles, facts.planted)
    if not titles:
        lines.append("  (no titles: d_icd_diagnoses and d_icd_procedures were not found)")
    return lines


def _code_table(codes: pd.DataFrame, titles: dict[str, str], planted: Planted | None) -> list[str]:
    """One line per code; the index of `codes` is its rank, counted from 0."""
    lines = [f"  rank  code       mean  samples  {_mark_heading(planted)}title"]
    for rank, row in codes.iterrows():
        numbers = f"{printable(row['code']):8} {row['mean']:+6.3f}  {row['samples']:7,d}"
        line = f"  {rank + 1:4d}  {numbers}  {_mark(planted, row['code'])}{titles.get(row['code'], '')}"
        lines.append((line if len(line) <= WIDTH else line[: WIDTH - 1] + "…").rstrip())
    return lines


def _lab_lines(labs: pd.DataFrame, planted: Planted | None) -> list[str]:
    if labs.empty:
        return ["Labs", f"  none is measured in {MIN_SAMPLES} samples or more: nothing to rank"]
    lines = [
        "Labs, by mean absolute attribution (both high and low values may matter)",
        f"  rank  lab             |mean|      mean  {_mark_heading(planted)}".rstrip(),
    ]
    for rank, row in labs.iterrows():
        mark = _mark(planted, row["code"])
        numbers = f"{row['mean_abs']:8.4f}  {row['mean']:+8.4f}"
        lines.append(f"  {rank + 1:4d}  {printable(row['code']):12}  {numbers}  {mark}".rstrip())
    return lines


def _planted_lines(
    codes: pd.DataFrame,
    titles: dict[str, str],
    planted: Planted,
    areas: tuple[float | None, ...],
    of_all: tuple[float | None, ...] | None,
) -> list[str]:
    names = ("risk codes above codes without effect", "protective codes below those", "planted labs above the others")
    lines = ["What the deaths follow from, and how it ranks"]
    for place, (name, area) in enumerate(zip(names, areas, strict=True)):
        everyone = "" if of_all is None else f"  (no sample left out: {_number(of_all[place])})"
        lines.append(f"  {name + ':':40} AUROC {_number(area)}{everyone}")
    lines += _code_table(codes[codes["code"].map(planted.weight) != 0], titles, planted)
    pairs = ", ".join(f"{one} × {other} {weight:+.1f}" for (one, other), weight in planted.interactions.items())
    return [*lines, f"  interactions: {pairs}"]


def _misscaled(samples: pd.DataFrame) -> np.ndarray:
    columns = ("output", "baseline_output", "convergence_delta")
    return misscaled(*(samples[name].to_numpy() for name in columns))


def _change(samples: pd.DataFrame) -> np.ndarray:
    return (samples["output"] - samples["baseline_output"]).to_numpy(dtype=np.float64)


def _completeness_lines(samples: pd.DataFrame, facts: Facts) -> list[str]:
    delta = samples["convergence_delta"].to_numpy(dtype=np.float64)
    complete = np.abs(delta) <= TOLERANCE * np.abs(_change(samples))
    share = f"  {complete.mean():.1%} of samples are complete to {TOLERANCE:.0%}; "
    lines = ["Completeness"]
    if facts.rules == "complete":
        lines.append(f'{share}rules="complete" scales nothing')
    else:
        lines += [
            f'{share}rules="{facts.rules}" then scales each until it is',
            f"  {_misscaled(samples).mean():.1%} were scaled by a negative factor or by more than "
            f"{LARGEST_FACTOR:g}; the ranks leave them out",
        ]
    if facts.failures:
        lines.append(f"  {facts.failures:,} sample(s) could not be attributed; failures.parquet says why")
    return lines


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


def _mark_heading(planted: Planted | None) -> str:
    return "" if planted is None else "planted  "


def _mark(planted: Planted | None, name: str) -> str:
    """The column that tells planted weights, which a real hospital has not."""
    if planted is None:
        return ""
    weight = planted.weight(name)
    return f"{weight:+7.1f}  " if weight else " " * 9
