"""A cohort's summary: how complete it is, and which codes and values moved the output."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from deeplift_fast.report.bootstrap import REPLICATES
from deeplift_fast.report.cancellation import Kept, ratios
from deeplift_fast.report.completeness import COLUMNS, Completeness, completeness
from deeplift_fast.report.errors import SummaryError
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouping import EVERYONE, MOST_GROUPS, UNLISTED, ByLabel, Cut, Grouping
from deeplift_fast.report.statistics import Statistics
from deeplift_fast.report.titles import Titles

SPECIAL = ("<pad>", "<unk>")
"""Tokens that stand for no code."""

TRIES = 5
"""Times that a cohort is read where a run writes anew what was read."""

PAUSE = 0.3
"""Seconds after which a run's manifest should name what it had written."""


@dataclass(frozen=True)
class Summary:
    """What a cohort's tables say.

    Attributes:
        out: the cohort's folder.
        rules: its rule set.
        baseline: what its contributions are relative to, as the manifest names it.
        completeness: totals over samples.
        table: one row per grouping, group, feature and code or dimension; where samples have several targets, each
            group holds one of them, and the grouping "target" stands for "overall". The columns are
            `deeplift_fast.report.statistics.COLUMNS`, then `description` (text or null) and `ambiguous` (bool: several
            dictionary entries fit).
        described: whether dictionaries were given.
        notes: what the reader should know, one sentence each.
    """

    out: str
    rules: str
    baseline: str
    completeness: Completeness
    table: pd.DataFrame
    described: bool
    notes: tuple[str, ...]

    def top(self, kind: str, grouping: str, group: str, count: int, sort: str, min_samples: int) -> pd.DataFrame:
        """The first rows of a group.

        Args:
            kind: `"code"` or `"value"`.
            grouping: as in the table.
            group: as in the table.
            count: how many rows.
            sort: column to sort by, the largest first: `"mean_abs"`, `"mean"` or `"count"`.
            min_samples: what fewer samples carry is left out: its mean is noise, and nearly one patient's data.
        """
        rows = self.table[(self.table["kind"] == kind) & (self.table["grouping"] == grouping)]
        rows = rows[(rows["group"] == group) & (rows["samples"] >= min_samples) & ~rows["code"].isin(SPECIAL)]
        return rows.sort_values([sort, "feature", "code"], ascending=[False, True, True]).head(count)


def summarise(
    out: str | Path,
    by: Sequence[Grouping] = (),
    mimic_root: str | Path | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Summary:
    """Summarises a finished or a running cohort.

    Reads each finished part once and verifies its checksums: memory holds one part's files as they are, its samples,
    some rows of its attributions, and sums for each group and code (see `deeplift_fast.report.statistics`). Of more
    than a million samples two numbers each go to temporary files.

    Args:
        out: the cohort's folder, a path or an fsspec URL.
        by: groupings beside "overall" and "label", as `deeplift_fast.report.grouping.read_grouping` makes them.
        mimic_root: folder of a MIMIC-IV release whose dictionaries describe the codes.
        replicates: replicates of the bootstrap over patients.
        seed: seed of the bootstrap.

    Raises:
        SummaryError: if the folder is no cohort's, a part is missing or damaged, or no dictionary is found; if a run
            goes on writing anew what was read.
    """
    titles = Titles(Path(mimic_root)) if mimic_root is not None else None
    for _ in range(TRIES):
        folder = CohortFolder(out)
        try:
            found = _summarised(folder, by, titles, replicates, seed)
        except SummaryError:
            time.sleep(PAUSE)  # the manifest follows a part that is written anew
            if folder.is_current():
                raise
            continue
        if folder.is_current():
            return found
    raise SummaryError(f"{out} is being written anew, faster than it is read; try again when the run is further on")


def _summarised(
    folder: CohortFolder, by: Sequence[Grouping], titles: Titles | None, replicates: int, seed: int
) -> Summary:
    """The summary of a folder, of which parts may change meanwhile."""
    totals, labels = completeness(folder), ByLabel()
    groupings: list[Cut] = [EVERYONE, labels, *by]
    statistics = Statistics(groupings, replicates, seed)
    columns = sorted(statistics.columns().union(COLUMNS))
    with Kept() as deltas, Kept() as cancellations:
        for part in folder.parts:
            samples = folder.samples(part, columns).sort_by("sample")
            deltas.add(totals.add(samples))
            cancellations.add(ratios(samples, statistics.add(folder, part, samples)))
        found = totals.found(*deltas.quantiles(0.5), *cancellations.quantiles(0.5, 0.9))
    table = _ordered(statistics.table(), groupings)
    several = table["target"].nunique() > 1
    if statistics.targets > MOST_GROUPS:
        table = table[:0]
    unmet = _unmet(by, table)
    table = _by_target(table) if several else table.drop(columns="target")
    notes = [f"labels take more than {MOST_GROUPS} values, so nothing is shown by label"] if labels.too_many else []
    notes += [f"no sample's {' or '.join(grouping.keys)} is in the file of {grouping.name}" for grouping in unmet]
    notes += _target_notes(statistics.targets)
    notes += _checksum_notes(folder)
    if titles is not None:
        notes += _describe(table, titles)
    else:
        table["description"], table["ambiguous"] = None, False
    return Summary(folder.out, folder.rules, folder.baseline, found, table, titles is not None, tuple(notes))


def _ordered(table: pd.DataFrame, groupings: Sequence[Cut]) -> pd.DataFrame:
    """Rows by grouping, group and target, and within these the largest mean |attribution| first."""
    shown = ((g.name, group) for g in groupings for group in (g.ordered if isinstance(g, ByLabel) else g.groups))
    place = {key: number for number, key in enumerate(shown)}
    known = [key in place for key in zip(table["grouping"], table["group"], strict=True)]
    table = table[np.array(known, bool)]
    rank = [place[key] for key in zip(table["grouping"], table["group"], strict=True)]
    keys = table.assign(rank=rank).sort_values(
        ["rank", "target", "kind", "mean_abs", "feature", "code"], ascending=[True, True, True, False, True, True]
    )
    return keys.drop(columns="rank").reset_index(drop=True)


def _by_target(table: pd.DataFrame) -> pd.DataFrame:
    """Groups that hold one target each: those of everyone are named by the target alone."""
    targets = table["target"].astype(str)
    everyone = table["grouping"] == EVERYONE.name
    group = table["group"].where(everyone, table["group"] + ", target = " + targets).where(~everyone, targets)
    return table.assign(grouping=table["grouping"].where(~everyone, "target"), group=group).drop(columns="target")


def _target_notes(targets: int) -> list[str]:
    """What to say of samples that explain different logits."""
    if targets > MOST_GROUPS:
        return [
            f"targets take more than {MOST_GROUPS} values, and attributions to different logits cannot be averaged: "
            "explain one class, with --target"
        ]
    if targets > 1:
        return [f"samples explain {targets} different targets; each has averages of its own"]
    return []


def _checksum_notes(folder: CohortFolder) -> list[str]:
    """What to say of parts that could not be verified."""
    if not folder.unverified:
        return []
    return [
        f"manifest.json has no checksums of {folder.unverified:,} of {len(folder.parts):,} part(s), as an earlier "
        "version wrote it: whether they are as they were written is not known"
    ]


def _unmet(by: Sequence[Grouping], table: pd.DataFrame) -> list[Grouping]:
    """The groupings whose file lists none of the samples."""
    groups = {grouping.name: set(table.loc[table["grouping"] == grouping.name, "group"]) for grouping in by}
    return [grouping for grouping in by if groups[grouping.name] == {UNLISTED}]


def _describe(table: pd.DataFrame, titles: Titles) -> list[str]:
    """Adds `description` and `ambiguous` to the table; returns what to say of codes without one."""
    codes = table[["feature", "code", "kind"]].drop_duplicates()
    found = {(f, c): titles.find(f, c) for f, c in zip(codes["feature"], codes["code"], strict=True)}
    rows = [found[key] for key in zip(table["feature"], table["code"], strict=True)]
    table["description"] = pd.Series([None if t is None else t.text for t in rows], dtype=object, index=table.index)
    table["ambiguous"] = [t is not None and t.ambiguous for t in rows]
    tokens = codes[(codes["kind"] == "code") & ~codes["code"].isin(SPECIAL)]
    of_tokens = [found[key] for key in zip(tokens["feature"], tokens["code"], strict=True)]
    missing = sum(title is None for title in of_tokens)
    several = sum(title is not None and title.ambiguous for title in of_tokens)
    return [
        f"{missing:,} of {len(of_tokens):,} codes have no description",
        f"{several:,} fit several dictionary entries, all shown, marked (?)",
    ]
