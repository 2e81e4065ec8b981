"""Damaged tables give no numbers: an error names the file and says what to do."""

import hashlib
import json
import re
import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest
from cohort_cases import manifest, run, spoiled, table

from deeplift_fast.cohort.store import LocalStore
from deeplift_fast.report import SummaryError, folder, summarise

REMEDY = "run the cohort again with the same command"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished cohort of two parts and failures, and its summary."""
    samples, model, _ = spoiled()
    out = tmp_path_factory.mktemp("damage") / "out"
    run(model, samples, out, part_samples=12)
    return model, samples, out, summarise(out)


def flipped(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def told(out, name):
    """Whether a summary refuses, naming the file and the remedy."""
    with pytest.raises(SummaryError) as caught:
        summarise(out)
    return f"{name} is damaged" in str(caught.value) and REMEDY in str(caught.value)


def with_other_page(path, column):
    """The bytes of a file with one bit flipped in the last page of a column."""
    about = pq.ParquetFile(path).metadata.row_group(0)
    chunk = next(each for each in map(about.column, range(about.num_columns)) if each.path_in_schema == column)
    content = bytearray(path.read_bytes())
    content[(chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 2] ^= 4
    return content


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("deeplift_fast.report.consistent.PAUSE", 0.0)


@pytest.mark.parametrize("harm", ["gone", "emptied", "of fewer"])
def test_failures_that_are_not_those_of_the_manifest(finished, tmp_path, at_once, harm):
    out = tmp_path / "out"
    shutil.copytree(finished[2], out)
    path = out / "failures.parquet"
    few = pq.read_table(path).slice(0, 0 if harm == "emptied" else 2)
    path.unlink()
    if harm != "gone":
        pq.write_table(few, path)
    with pytest.raises(SummaryError, match=rf"failures\.parquet is (missing|damaged).*{REMEDY}"):
        summarise(out)


def test_what_is_damaged_is_written_anew(finished, tmp_path, at_once):
    model, samples, source, before = finished
    out = tmp_path / "out"
    shutil.copytree(source, out)
    for name in ("samples/part-000000.parquet", "attributions/part-000001.parquet"):
        flipped(out / name, 999)
    assert told(out, "samples/part-000000.parquet")
    run(model, samples, out, part_samples=12)
    assert summarise(out).table.equals(before.table)


def test_a_column_that_is_not_there_is_no_key_error(finished, tmp_path, at_once):
    """As an older or another program may have written it, checksum and all."""
    out = tmp_path / "out"
    shutil.copytree(finished[2], out)
    name = "samples/part-000001.parquet"
    pq.write_table(pq.read_table(out / name).drop_columns(["label"]), out / name)
    content = (out / name).read_bytes()
    about = manifest(finished[2])["parts"]["1"]["files"][name]
    text = (out / "manifest.json").read_text().replace(about["sha256"], hashlib.sha256(content).hexdigest())
    (out / "manifest.json").write_text(text.replace(f'"bytes": {about["bytes"]}', f'"bytes": {len(content)}'))
    assert told(out, name)


def test_each_file_is_read_and_hashed_once(finished, monkeypatch):
    opened, hashed = Counter(), []
    real = LocalStore.open

    class Counted:
        def __init__(self, file):
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *about):
            self._file.close()

        def __getattr__(self, name):
            return getattr(self._file, name)

    def opening(self, name):
        file = real(self, name)
        reading = file.read

        class Reading(Counted):
            def read(self, *about):
                opened[name] += 1
                return reading(*about)

        return Reading(file)

    def hashing(content):
        hashed.append(len(content))
        return hashlib.new("sha256", content)

    monkeypatch.setattr(LocalStore, "open", opening)
    monkeypatch.setattr(folder.hashlib, "sha256", hashing)
    summarise(finished[2])
    parts = {name: about for part in manifest(finished[2])["parts"].values() for name, about in part["files"].items()}
    assert {name: count for name, count in opened.items() if "part-" in name} == dict.fromkeys(parts, 1)
    assert sorted(hashed) == sorted(about["bytes"] for about in parts.values())


@pytest.mark.parametrize("name", ["samples", "attributions"])
def test_pages_have_checksums(finished, name):
    """So that other readers can see what is damaged too."""
    path = finished[2] / name / "part-000000.parquet"
    whole = pq.read_table(path, page_checksum_verification=True)
    assert whole.equals(table(finished[2], f"{name}/part-000000.parquet"))
    content = with_other_page(path, "sample")
    copied = path.with_name("copied")
    copied.write_bytes(content)
    try:
        with pytest.raises(OSError, match="CRC"):
            pq.read_table(copied, page_checksum_verification=True)
    finally:
        copied.unlink()


def rewritten(finished, out, change):
    """A copy of a finished cohort with another manifest."""
    shutil.copytree(finished[2], out)
    found = manifest(out)
    change(found)
    (out / "manifest.json").write_text(json.dumps(found))


def without_checksums(found):
    for about in found["parts"]["1"]["files"].values():
        del about["sha256"]


def test_a_manifest_without_checksums_is_refused(finished, tmp_path):
    rewritten(finished, tmp_path / "out", without_checksums)
    with pytest.raises(SummaryError, match="part 1: a file lacks its bytes or sha256"):
        summarise(tmp_path / "out")


def put(value, *path):
    def change(found):
        for name in path[:-1]:
            found = found[name]
        assert found[path[-1]] != value
        found[path[-1]] = value

    return change


CONTRADICTIONS = {
    "rules": (put("complete", "identity", "interpreter", "rules"), 'rules is "complete" where samples/part'),
    "baseline": (put("removed", "identity", "baseline"), 'baseline is "removed" where samples/part'),
    "part_samples": (put(13, "identity", "part_samples"), "part 1 holds the samples from 12 to 23"),
    "length": (put(31, "identity", "dataset", "length"), 'total is "23", where length, limit and parts make it 31'),
    "total": (put(22, "total"), 'total is "22", where length, limit and parts make it 23'),
    "limit": (put(7, "limit"), None),  # what is there beyond a limit stays
    "end": (put(22, "parts", "1", "end"), "part 1: its samples and failures are not those from 12 to 22"),
    "failures": (put(2, "parts", "0", "failures"), "part 0: its samples and failures are not those from 0 to 12"),
    "samples": (put(9, "parts", "0", "samples"), "part 0: its samples and failures are not those from 0 to 12"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_manifest_that_contradicts_itself_or_a_table_is_named(finished, tmp_path, at_once, what):
    change, said = CONTRADICTIONS[what]
    rewritten(finished, tmp_path / "out", change)
    if said is None:
        assert summarise(tmp_path / "out").table.equals(finished[3].table)
        return
    with pytest.raises(SummaryError, match=re.escape(said)) as caught:
        summarise(tmp_path / "out")
    assert "manifest.json" in str(caught.value)


def test_other_numbers_of_samples_and_failures_are_named(finished, tmp_path, at_once):
    """As many in all: only the table tells how many were attributed."""

    def change(found):
        found["parts"]["1"]["samples"] += 1
        found["parts"]["1"]["failures"] -= 1

    rewritten(finished, tmp_path / "out", change)
    with pytest.raises(SummaryError, match=r"(failures\.parquet|manifest\.json) is damaged"):
        summarise(tmp_path / "out")


def test_a_part_whose_numbers_do_not_fit_is_attributed_again(finished, tmp_path):
    model, samples, _, before = finished
    rewritten(finished, tmp_path / "out", put(9, "parts", "0", "samples"))
    done = run(model, samples, tmp_path / "out", part_samples=12)
    assert (done.samples, done.failures) == (17, 6)
    assert summarise(tmp_path / "out").table.equals(before.table)
