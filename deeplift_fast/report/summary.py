"""A cohort's summary: its completeness, the codes and values that moved the output, and the pairs that act together."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deeplift_fast.report.bootstrap import REPLICATES
from deeplift_fast.report.cells import CellReader
from deeplift_fast.report.completeness import COLUMNS, Completeness, Totals, cancellation, quantiles
from deeplift_fast.report.consistent import consistently
from deeplift_fast.report.distribution import CohortTable, Population
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.formats import cut
from deeplift_fast.report.grouping import EVERYONE, MOST_GROUPS, UNLISTED, ByLabel, Cut
from deeplift_fast.report.members import Assigner
from deeplift_fast.report.pairs import PAIR, PairMeans
from deeplift_fast.report.per_sample import QUANTILES, PerSample
from deeplift_fast.report.points import PointTables
from deeplift_fast.report.statistics import Statistics
from deeplift_fast.report.titles import Titles

SPECIAL = ("<pad>", "<unk>")
"""Tokens that are not codes."""

DESCRIBED = {
    "description": "text",
    "ambiguous": "ambiguous",
    "unit": "unit",
    "mixed": "mixed",
    "ref_low": "low",
    "ref_high": "high",
}
"""Columns of the table that describe codes and dimensions, and the attributes of `Title` that they hold."""


@dataclass(frozen=True, eq=False)  # == of data frames is no bool
class Summary:
    """The summary of a cohort's tables.

    Attributes:
        out: the cohort's folder.
        rules: its rule set.
        baseline: the reference of its contributions, as the manifest names it.
        about: the facts about the run (`deeplift_fast.cohort.about`).
        prediction_difference: the difference between the model's own output and the explained output, as
            `deeplift_fast.cohort.differences` describes it; `None` if they were not compared.
        completeness: totals over samples.
        table: one row per grouping, group, feature and code or dimension. With several targets, each group has one
            target, and the grouping "target" replaces "overall". The columns are
            `deeplift_fast.report.statistics.COLUMNS`, then `DESCRIBED`: `description` (text or null), `ambiguous`
            (bool: several dictionary entries match), `unit` (text or null), `mixed` (bool: values come in other units
            too), and `ref_low` and `ref_high`, the ends of the reference range (null if unknown).
        cohort: the contributions per sample, code by code: what `summary.parquet` keeps.
        by_group: the same by grouping and group too, with the columns `grouping` and `group`, and without quantiles.
        points: at most 400 samples of each target, feature and code: the columns `contribution` (the sample's sum) and
            `value` (its newest measured value, or NaN), chosen by a hash of the sample's number.
        pairs: one row per grouping, group and pair of codes, of a cohort with the table `interactions`; otherwise
            `None`. The columns are `deeplift_fast.report.pairs.COLUMNS` without `target`, then `first_description`
            (text or null), `first_ambiguous` (bool), `second_description` and `second_ambiguous`. Groups are those of
            `table`.
        described: whether the titles are those of a MIMIC-IV release, and not of this package.
        notes: notes for the reader, one sentence each.
    """

    out: str
    rules: str
    baseline: str
    about: dict[str, Any]
    prediction_difference: dict[str, Any] | None
    completeness: Completeness
    table: pd.DataFrame
    cohort: CohortTable
    by_group: pd.DataFrame
    points: PointTables
    pairs: pd.DataFrame | None
    described: bool
    notes: tuple[str, ...]

    def top(self, kind: str, grouping: str, group: str, count: int, sort: str, min_samples: int) -> pd.DataFrame:
        """The first rows of a group.

        Args:
            kind: `"code"` or `"value"`.
            grouping: as in the table.
            group: as in the table.
            count: number of rows.
            sort: column to sort by, the largest first: `"mean_abs"`, `"mean"` or `"count"`.
            min_samples: smallest number of samples in a row; a mean of fewer is noise, and nearly one patient's data.

        Example:
            >>> from deeplift_fast.report import summarise
            >>> rows = summarise("mortality").top("code", "overall", "all", count=3, sort="mean_abs", min_samples=1)
            >>> len(rows)
            3
        """
        rows = self.table[(self.table["kind"] == kind) & (self.table["grouping"] == grouping)]
        rows = rows[(rows["group"] == group) & (rows["samples"] >= min_samples) & ~rows["code"].isin(SPECIAL)]
        return rows.sort_values([sort, "feature", "code"], ascending=[False, True, True]).head(count)

    def top_pairs(self, grouping: str, group: str, count: int, sort: str, min_samples: int) -> pd.DataFrame:
        """The first pairs of a group; arguments as for :meth:`top`, and no rows for a cohort without interactions.

        Example:
            >>> from deeplift_fast.report import summarise
            >>> rows = summarise("mortality").top_pairs("overall", "all", count=5, sort="mean_abs", min_samples=1)
            >>> len(rows)  # the cohort has no table of interactions
            0
        """
        if self.pairs is None:
            return pd.DataFrame()
        rows = self.pairs[(self.pairs["grouping"] == grouping) & (self.pairs["group"] == group)]
        rows = rows[~rows["first_code"].isin(SPECIAL) & ~rows["second_code"].isin(SPECIAL)]
        by = {"count": "samples"}.get(sort, sort)
        return rows[rows["samples"] >= min_samples].sort_values(by, ascending=False, kind="stable").head(count)


def summarise(
    out: str | Path,
    by: Sequence[Cut] = (),
    mimic_root: str | Path | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Summary:
    """Summarises a finished or a running cohort.

    Each finished part is read once, and its checksums are verified. Memory holds one part's files, its samples, a batch
    of its attributions, and sums for each group and code (see `deeplift_fast.report.statistics`). Temporary files hold
    24 bytes of each sample, 8 bytes of each sample and code, and 8 bytes of each grouping, patient and code. The table
    `interactions`, if there is one, is read at least twice (see `deeplift_fast.report.pairs`).

    Args:
        out: the cohort's folder, a path or an fsspec URL.
        by: groupings beside "overall" and "label", such as from `deeplift_fast.report.grouping.read_grouping`.
        mimic_root: folder of a MIMIC-IV release whose dictionaries describe the codes; `None` for those of the package.
        replicates: replicates of the bootstrap over patients.
        seed: seed of the bootstrap.

    Raises:
        SummaryError: if the folder has no manifest, a part is missing or damaged, no dictionary is found, or a run
            replaces parts faster than they are read.

    Example:
        >>> from deeplift_fast.report import summarise
        >>> summary = summarise("mortality")
        >>> summary.completeness.samples
        12
    """
    titles = Titles.of(mimic_root)
    return consistently(out, lambda folder: summary_of(folder, by, titles, replicates, seed))


def summary_of(
    folder: CohortFolder,
    by: Sequence[Cut] = (),
    titles: Titles | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    with_pairs: bool = True,
) -> Summary:
    """The summary of the parts that a folder named when it was opened.

    Args:
        folder: the cohort.
        by: as for :func:`summarise`, and so are `replicates` and `seed`.
        titles: describes codes; `None` for no descriptions.
        with_pairs: whether to read the table `interactions`, if there is one.

    Raises:
        SummaryError: if a part is missing or damaged, or a run has replaced it since.
    """
    totals, labels, reader = Totals(folder), ByLabel(), CellReader()
    groupings: list[Cut] = [EVERYONE, labels, *by]
    assigner, statistics = Assigner(groupings), Statistics(replicates, seed)
    columns = sorted(assigner.columns().union(COLUMNS))
    with (
        tempfile.TemporaryFile() as deltas,
        tempfile.TemporaryFile() as ratios,
        PerSample(replicates, seed) as per_sample,
        Population() as population,
        PairMeans(folder if with_pairs and folder.has_interactions else None, replicates, seed) as pair_means,
    ):
        for part in folder.parts:
            samples = folder.samples(part, columns).sort_by("sample")
            members = assigner.assign(samples)
            cells = reader.read(folder, part, members.number)
            statistics.add(members, cells)
            per_sample.add(members, reader.by_code(cells, len(samples)))
            population.add(members, samples)
            pair_means.add(part, members)
            deltas.write(totals.add(samples))
            ratios.write(cancellation(samples, np.bincount(cells.sample, cells.abs, len(samples))))
        found = totals.found(*quantiles(deltas, 0.5), *quantiles(ratios, 0.5, 0.9))
        table = _ordered(statistics.table(assigner, reader), groupings)
        by_group = _ordered(per_sample.table(assigner, reader), groupings)
        points = per_sample.points(assigner, reader)
        patients, outputs = population.patients(), population.outputs(assigner)
        pairs = pair_means.table(assigner)
    targets = len(assigner.targets)
    if targets > MOST_GROUPS:
        table, by_group, outputs = table[:0], by_group[:0], outputs[:0]
    of_all = by_group[by_group["grouping"] == EVERYONE.name].drop(columns=["grouping", "group"])
    cohort = CohortTable(of_all.reset_index(drop=True), patients, outputs, found, folder.source)
    several = table["target"].nunique() > 1
    notes = _grouping_notes(labels, by, table) + _target_notes(targets)
    notes += [f"no value of {cut(name)} was measured, so it has no means of measured values" for name in _gaps(reader)]
    table = _by_target(table) if several else table.drop(columns="target")
    pairs = pairs if pairs is None else _finished(pairs[:0] if targets > MOST_GROUPS else pairs, groupings, several)
    notes += pair_means.notes() + _describe(table, titles)
    return Summary(
        out=folder.out,
        rules=folder.rules,
        baseline=folder.baseline,
        about=folder.about,
        prediction_difference=folder.prediction_difference,
        completeness=found,
        table=table,
        cohort=cohort,
        by_group=by_group.drop(columns=list(QUANTILES)),
        points=points,
        pairs=pairs if pairs is None else _pair_titles(pairs, titles),
        described=titles is not None and not titles.is_packaged,
        notes=tuple(notes),
    )


def _ordered(
    table: pd.DataFrame, groupings: Sequence[Cut], by: Sequence[str] = ("kind", "mean_abs", "feature", "code")
) -> pd.DataFrame:
    """Sorts rows by grouping, group and target, then by these columns, of which `mean_abs` has the largest first."""
    shown = ((g.name, group) for g in groupings for group in (g.ordered if isinstance(g, ByLabel) else g.groups))
    place = {key: number for number, key in enumerate(shown)}
    known = [key in place for key in zip(table["grouping"], table["group"], strict=True)]
    table = table[np.array(known, bool)]
    rank = [place[key] for key in zip(table["grouping"], table["group"], strict=True)]
    columns = ["rank", "target", *by]
    keys = table.assign(rank=rank).sort_values(columns, ascending=[name != "mean_abs" for name in columns])
    return keys.drop(columns="rank").reset_index(drop=True)


def _finished(pairs: pd.DataFrame, groupings: Sequence[Cut], several: bool) -> pd.DataFrame:
    """The table of pairs in the order of groups, which are divided by target if there are several."""
    ordered = _ordered(pairs, groupings, ("mean_abs", *PAIR))
    return _by_target(ordered) if several else ordered.drop(columns="target")


def _by_target(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the target to each group's name; groups of all samples get the target as their name."""
    targets = table["target"].astype(str)
    everyone = table["grouping"] == EVERYONE.name
    group = table["group"].where(everyone, table["group"] + ", target = " + targets).where(~everyone, targets)
    return table.assign(grouping=table["grouping"].where(~everyone, "target"), group=group).drop(columns="target")


def _gaps(reader: CellReader) -> list[str]:
    """The features of values that were never measured."""
    return [name for name, found in reader.features.items() if found and not found.known]


def _grouping_notes(labels: ByLabel, by: Sequence[Cut], table: pd.DataFrame) -> list[str]:
    """Notes on too many labels, and on files of groups that name no sample of the table."""
    notes = [f"labels take more than {MOST_GROUPS} values, so nothing is shown by label"] if labels.too_many else []
    groups = {grouping.name: set(table.loc[table["grouping"] == grouping.name, "group"]) for grouping in by}
    unmatched = [grouping for grouping in by if groups[grouping.name] == {UNLISTED}]
    return notes + [f"no sample's {' or '.join(each.columns)} is in the file of {each.name}" for each in unmatched]


def _target_notes(targets: int) -> list[str]:
    """Notes on samples that explain different logits."""
    if targets > MOST_GROUPS:
        return [
            f"targets take more than {MOST_GROUPS} values, and attributions to different logits cannot be averaged: "
            "explain one class, with --target"
        ]
    if targets > 1:
        return [f"samples explain {targets} different targets; each has its own averages"]
    return []


def _pair_titles(pairs: pd.DataFrame, titles: Titles | None) -> pd.DataFrame:
    """The table of pairs with the descriptions of both codes, and whether they are ambiguous."""
    for name in ("first", "second"):
        keys = list(zip(pairs[f"{name}_feature"], pairs[f"{name}_code"], strict=True))
        found = {key: None if titles is None else titles.find(*key) for key in dict.fromkeys(keys)}
        each = [found[key] for key in keys]
        texts = [None if title is None else title.text for title in each]
        pairs[f"{name}_description"] = pd.Series(texts, dtype=object, index=pairs.index)
        pairs[f"{name}_ambiguous"] = np.array([title is not None and title.ambiguous for title in each], bool)
    return pairs


def _describe(table: pd.DataFrame, titles: Titles | None) -> list[str]:
    """Adds `DESCRIBED` to the table; returns notes on missing and ambiguous descriptions."""
    codes = table[["feature", "code", "kind"]].drop_duplicates()
    keys = zip(codes["feature"], codes["code"], strict=True)
    found = {key: None if titles is None else titles.find(*key) for key in keys}
    rows = [found[key] for key in zip(table["feature"], table["code"], strict=True)]
    for name, attribute in DESCRIBED.items():
        known = [None if title is None else getattr(title, attribute) for title in rows]
        kind = {"ambiguous": bool, "mixed": bool, "ref_low": float, "ref_high": float}.get(name, object)
        table[name] = pd.Series(known, dtype=object, index=table.index).astype(kind)
    if titles is None:
        return []
    where = ""
    if titles.is_packaged:
        where = " in this package (--mimic-root reads the dictionaries of a MIMIC-IV release)"
    tokens = codes[(codes["kind"] == "code") & ~codes["code"].isin(SPECIAL)]
    of_tokens = [found[key] for key in zip(tokens["feature"], tokens["code"], strict=True)]
    missing = sum(title is None for title in of_tokens)
    several = sum(title is not None and title.ambiguous for title in of_tokens)
    notes = [f"{missing:,} of {len(of_tokens):,} codes have no description{where}"]
    if several:
        notes.append(f"{several:,} code(s) fit several dictionary entries, all shown, marked (?)")
    return notes
