"""Pairs on a terminal."""

import io

import cohort_folders as cohorts
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from deeplift_fast.report import summarise
from deeplift_fast.report.show import show


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    found, rows = cohorts.draw(samples=60, patients=30)
    rows["code"] = rows["code"].replace("0040", "secret\x1b[1mcode")
    out = cohorts.write(tmp_path_factory.mktemp("pairs") / "out", found, rows)
    return summarise(cohorts.add_pairs(out, cohorts.pairs(rows)))


def shown(summary, width=200, **options):
    text = io.StringIO()
    show(summary, Console(file=text, width=width), **options)
    return text.getvalue()


@pytest.mark.parametrize(
    ("sort", "column", "said"),
    [
        ("mean_abs", "mean_abs", "mean |interaction|"),
        ("mean", "mean", "mean interaction"),
        ("count", "samples", "samples"),
    ],
)
def test_the_strongest_pairs_are_shown_with_titles(summary, sort, column, said):
    text = shown(summary, sort=sort, top=3, min_samples=5)
    part = text.split("Pairs of codes that act together: ")[1].split("Codes, label")[0]
    heading, _, names, *lines = part.splitlines()
    assert heading == f"the first 3 by {said}"
    assert names.startswith("first code  second code")
    assert names.split()[-3:] == ["mean", "|i|", "positive"]
    top = summary.top_pairs("overall", "all", 3, sort, 5)
    assert top[column].is_monotonic_decreasing
    rows = [line for line in lines if line and not line.startswith(" ")]
    for line, row in zip(rows, top.itertuples(), strict=True):
        assert f"{row.samples}" in line
        assert f"{row.mean:+.3g}" in line
        ends = "too few patients" if np.isnan(row.low) else f"{row.low:+.3g} … {row.high:+.3g}"
        assert ends in line
    assert "Type 2 diabetes mellitus without complications + Essential (primary) hypertension" in shown(summary)


def test_lines_fit_and_names_from_data_are_escaped(summary):
    text = shown(summary, width=80, min_samples=1)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert r"secret\x1b[1mcode" in text


def test_groups_whose_pairs_few_samples_have_say_so(summary):
    text = shown(summary, min_samples=55)
    assert "Pairs of codes that act together: no two are among the strongest of 55 samples or more" in text
    assert "Pairs of codes that act together, label = 1: no two" in text


def test_without_interactions_nothing_is_said(tmp_path):
    text = shown(summarise(cohorts.write(tmp_path / "out", *cohorts.draw(samples=30))))
    assert "together" not in text
