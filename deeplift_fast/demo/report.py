"""What the main job prints: aggregates of its two files, never one patient's data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from deeplift_fast.demo.planted import Planted
from deeplift_fast.demo.speed import Speed
from deeplift_fast.report.completeness import LARGEST_FACTOR, TOLERANCE, misscaled
from deeplift_fast.report.errors import SummaryError
from deeplift_fast.report.titles import Titles

MIN_SAMPLES = 10
"""What fewer samples carry is not ranked: its mean is noise, and nearly one patient's data."""

TOP = 15
WIDTH = 100


@dataclass(frozen=True)
class Facts:
    """What the report needs beside the two files.

    Attributes:
        title: what was attributed, in one line.
        rules: the rule set.
        held_out: number of the first held-out sample; all after it are held out too.
        speed: how fast the interpreters were.
        mimic: folder of the MIMIC-IV release, for the titles of codes.
        planted: what the hospital's deaths follow from; `None` for a real one.
        shown_at: where the user will find the files.
    """

    title: str
    rules: str
    held_out: int
    speed: Speed
    mimic: Path
    planted: Planted | None
    shown_at: Path


def feature_statistics(attributions: Path, left_out: np.ndarray) -> pd.DataFrame:
    """Attributions summed up per code or dimension, read row group by row group.

    Args:
        attributions: an `attributions.parquet`, whose row groups hold whole samples.
        left_out: numbers of the samples to leave out, int64.

    Returns:
        Columns `feature`, `code`, `samples` (that carry it), `mean` and `size` (mean and mean absolute attribution
        per row).
    """
    file = pq.ParquetFile(attributions)
    groups = []
    for index in range(file.num_row_groups):
        rows = file.read_row_group(index, columns=["feature", "code", "sample", "attribution"])
        rows = rows.filter(pc.invert(pc.is_in(rows["sample"], pa.array(left_out, pa.int64()))))
        size = pc.abs(rows["attribution"]).cast(pa.float64())
        table = pa.table(
            {
                "feature": rows["feature"].cast(pa.string()),
                "code": rows["code"].cast(pa.string()),
                "sample": rows["sample"],
                "mean": rows["attribution"].cast(pa.float64()),
                "size": size,
            }
        )
        sums = [("mean", "sum"), ("size", "sum"), ("sample", "count"), ("sample", "count_distinct")]
        groups.append(table.group_by(["feature", "code"]).aggregate(sums).to_pandas())
    total = pd.concat(groups).groupby(["feature", "code"], as_index=False).sum()
    return pd.DataFrame(
        {
            "feature": total["feature"],
            "code": total["code"],
            "samples": total["sample_count_distinct"],
            "mean": total["mean_sum"] / total["sample_count"],
            "size": total["size_sum"] / total["sample_count"],
        }
    )


def write_report(folder: Path, facts: Facts) -> str:
    """The report of a folder that holds `samples.parquet` and `attributions.parquet`, as text.

    Args:
        folder: where the two files are.
        facts: what they do not say.
    """
    samples = pq.read_table(folder / "samples.parquet").to_pandas()
    left_out = samples["sample"].to_numpy()[_misscaled(samples)]
    statistics = feature_statistics(folder / "attributions.parquet", left_out)
    codes, labs = ranked_codes(statistics), ranked_labs(statistics)
    titles = read_titles(facts.mimic, set(codes["code"]))
    sections = [
        [facts.title],
        _model_lines(samples, facts.held_out),
        _completeness_lines(samples, facts.rules),
        _code_lines(codes, titles, facts.planted),
        _lab_lines(labs, facts.planted),
    ]
    if facts.planted is not None:
        everyone = feature_statistics(folder / "attributions.parquet", np.empty(0, dtype=np.int64))
        areas = planted_areas(codes, labs, facts.planted)
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
    return labs.sort_values("size", ascending=False, ignore_index=True)


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
        area_under_roc(labs["code"].map(planted.weight).to_numpy(dtype=np.float64) != 0, labs["size"].to_numpy()),
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
    return {code: title.text for code, title in found.items() if title is not None}


def area_under_roc(positive: np.ndarray, score: np.ndarray) -> float | None:
    """AUROC of a score, or `None` where all are positive or none is."""
    return float(roc_auc_score(positive, score)) if len(set(positive.tolist())) == 2 else None


def _number(value: float | None) -> str:
    return "not defined: one class" if value is None else f"{value:.3f}"


def _model_lines(samples: pd.DataFrame, held_out: int) -> list[str]:
    test = samples[samples["sample"] >= held_out]
    area = area_under_roc(test["label"].to_numpy(), test["probability"].to_numpy())
    return [
        "Model",
        f"  StageNet on {len(samples):,} samples, of which {samples['label'].mean():.1%} died",
        f"  AUROC on {len(test):,} held-out samples: {_number(area)}",
    ]


def _code_lines(codes: pd.DataFrame, titles: dict[str, str], planted: Planted | None) -> list[str]:
    if codes.empty:
        return ["Codes", f"  none is carried by {MIN_SAMPLES} samples or more: nothing to rank"]
    first = f"the first {min(TOP, len(codes))} of {len(codes)}"
    lines = [f"Codes, by mean attribution in logits ({first} that {MIN_SAMPLES} samples or more carry)"]
    lines += _code_table(codes.head(TOP), titles, planted)
    if not titles:
        lines.append("  (no titles: d_icd_diagnoses and d_icd_procedures were not found)")
    return lines


def _code_table(codes: pd.DataFrame, titles: dict[str, str], planted: Planted | None) -> list[str]:
    """One line per code; the index of `codes` is its rank, counted from 0."""
    lines = [f"  rank  code       mean  samples  {_mark_heading(planted)}title"]
    for rank, row in codes.iterrows():
        numbers = f"{row['code']:8} {row['mean']:+6.3f}  {row['samples']:7,d}"
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
        numbers = f"{row['size']:8.4f}  {row['mean']:+8.4f}"
        lines.append(f"  {rank + 1:4d}  {row['code']:12}  {numbers}  {mark}".rstrip())
    return lines


def _planted_lines(
    codes: pd.DataFrame,
    titles: dict[str, str],
    planted: Planted,
    areas: tuple[float | None, ...],
    of_all: tuple[float | None, ...],
) -> list[str]:
    names = ("risk codes above codes without effect", "protective codes below those", "planted labs above the others")
    lines = ["What the deaths follow from, and how it ranks"]
    for name, area, everyone in zip(names, areas, of_all, strict=True):
        lines.append(f"  {name + ':':40} AUROC {_number(area)}  (no sample left out: {_number(everyone)})")
    lines += _code_table(codes[codes["code"].map(planted.weight) != 0], titles, planted)
    pairs = ", ".join(f"{one} × {other} {weight:+.1f}" for (one, other), weight in planted.interactions.items())
    return [*lines, f"  interactions: {pairs}"]


def _misscaled(samples: pd.DataFrame) -> np.ndarray:
    columns = ("output", "baseline_output", "convergence_delta")
    return misscaled(*(samples[name].to_numpy() for name in columns))


def _change(samples: pd.DataFrame) -> np.ndarray:
    return (samples["output"] - samples["baseline_output"]).to_numpy(dtype=np.float64)


def _completeness_lines(samples: pd.DataFrame, rules: str) -> list[str]:
    delta = samples["convergence_delta"].to_numpy(dtype=np.float64)
    complete = np.abs(delta) <= TOLERANCE * np.abs(_change(samples))
    share = f"  {complete.mean():.1%} of samples are complete to {TOLERANCE:.0%}; "
    if rules == "complete":
        return ["Completeness", f'{share}rules="complete" scales nothing']
    return [
        "Completeness",
        f'{share}rules="{rules}" then scales each until it is',
        f"  {_misscaled(samples).mean():.1%} were scaled by a negative factor or by more than {LARGEST_FACTOR:g}; "
        "the ranks leave them out",
    ]


def _speed_lines(speed: Speed) -> list[str]:
    return [
        f"Speed ({speed.where})",
        f"  {speed.ours:,.0f} samples/s; PyHealth's DeepLift {speed.theirs:,.0f} samples/s on the same "
        f"{speed.samples:,} samples ({speed.ours / speed.theirs:.1f} times)",
    ]


def _file_lines(folder: Path, shown_at: Path) -> list[str]:
    rows = {name: pq.read_metadata(folder / name).num_rows for name in ("samples.parquet", "attributions.parquet")}
    lines = [f"  {shown_at / name}  ({count:,} rows)" for name, count in rows.items()]
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
