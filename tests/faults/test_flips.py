"""One flipped bit of any file of a cohort: the right numbers, or an error that names a file and the remedy."""

import random
import shutil
from collections import Counter

import pytest
from cohort_cases import run, spoiled

from deeplift_fast.cohort import CohortError
from deeplift_fast.report import SummaryError, summarise

PARTS = [f"{folder}/part-{number:06d}.parquet" for folder in ("samples", "attributions") for number in (0, 1)]
FILES = [*PARTS, "failures.parquet", "manifest.json"]
REMEDIES = ("run the cohort again", "start over with force", "is it a cohort's?")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished cohort with failures: model, samples, folder, bytes of its parts, and what a summary says."""
    samples, model, _ = spoiled(16)
    out = tmp_path_factory.mktemp("flips") / "out"
    run(model, samples, out, part_samples=8)
    return model, samples, out, parts_of(out), told_by(summarise(out))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr("deeplift_fast.report.consistent.PAUSE", 0.0)


def flipped(source, target, name, draw):
    """A copy of a folder with one bit of a file flipped."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    content = bytearray((target / name).read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    (target / name).write_bytes(content)


def told_by(summary):
    """All numbers of a summary, as text."""
    return summary.table.to_csv(), str(summary.completeness), summary.rules, summary.baseline


def tried(call, error):
    """What a call gives, and nothing; or nothing, and what its error says."""
    try:
        return call(), ""
    except error as found:
        return None, str(found)


def parts_of(out):
    return {name: (out / name).read_bytes() for name in PARTS}


@pytest.mark.parametrize("name", FILES)
def test_a_summary_gives_the_right_numbers_or_names_a_file(finished, tmp_path, examples, figures, name):
    out, draw, ends = tmp_path / "out", random.Random(name), Counter()
    for _ in range(examples(20, 50)):
        flipped(finished[2], out, name, draw)
        found, said = tried(lambda: summarise(out), SummaryError)
        if said:
            assert any(file in said for file in FILES)
            assert any(remedy in said for remedy in REMEDIES)
            assert said.isprintable()
        else:
            assert name not in PARTS, "a checksum fits what it is not of"
            assert told_by(found) == finished[4]
        ends["refused" if said else "right_numbers"] += 1
    figures("flipped bits, then a summary", **ends, other_numbers=0)


@pytest.mark.parametrize("name", FILES)
def test_a_run_goes_on_to_the_same_tables_or_names_the_folder(finished, tmp_path, examples, figures, name):
    model, samples, source, before, _ = finished
    out, draw, ends = tmp_path / "out", random.Random(name), Counter()
    for _ in range(examples(4, 34)):
        flipped(source, out, name, draw)
        harmed = parts_of(out)
        done, said = tried(lambda: run(model, samples, out, part_samples=8), CohortError)
        if said:
            assert str(out) in said
            assert "start over with force" in said
            assert parts_of(out) == harmed, "an error is no reason to touch what is kept"
        else:
            assert (done.samples, done.failures, done.parts) == (10, 6, 2)
            assert parts_of(out) == before
            assert told_by(summarise(out)) == finished[4]
        ends["refused" if said else "right_numbers"] += 1
    figures("flipped bits, then a run", **ends, other_numbers=0, parts_lost=0)
