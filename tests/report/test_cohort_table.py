"""`summary.parquet`: kept, made anew where it must be, and never needed."""

import json
import shutil
import stat

import cohort_folders as cohorts
import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from deeplift_fast.errors import CohortWarning
from deeplift_fast.report import cohort_table as module
from deeplift_fast.report import summarise
from deeplift_fast.report.cohort_table import NAME, SCHEMA, cohort_table, keep, titled
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.summary import summary_of
from deeplift_fast.report.titles import Titles


@pytest.fixture(scope="module")
def drawn():
    return cohorts.draw()


@pytest.fixture
def out(tmp_path, drawn):
    folder = cohorts.write(tmp_path / "out", *drawn)
    (folder / "manifest.json").chmod(0o600)
    return folder


@pytest.fixture
def passes(monkeypatch):
    """The folders whose parts were read."""
    read = []

    def reading(folder, **options):
        read.append(folder.out)
        return summary_of(folder, **options)

    monkeypatch.setattr(module, "summary_of", reading)
    return read


def same(one, other):
    pd.testing.assert_frame_equal(one.table, other.table)
    pd.testing.assert_frame_equal(one.outputs, other.outputs)
    assert (one.samples, one.patients, one.source) == (other.samples, other.patients, other.source)
    assert str(one.completeness) == str(other.completeness)


def test_the_parts_are_read_once(out, passes):
    first = cohort_table(CohortFolder(out))
    assert stat.S_IMODE((out / NAME).stat().st_mode) == 0o600
    same(cohort_table(CohortFolder(out)), first)
    assert len(passes) == 1
    same(first, titled(summarise(out).cohort, None))


def test_the_file_is_a_table_for_others_too(out):
    cohort_table(CohortFolder(out))
    stored = pq.read_table(out / NAME, page_checksum_verification=True)
    assert stored.schema.equals(SCHEMA)
    about = {key.decode(): text.decode() for key, text in stored.schema.metadata.items()}
    assert (about["deeplift_fast.rules"], about["deeplift_fast.baseline"]) == ("rescale", "unk")
    assert json.loads(about["deeplift_fast.totals"])["completeness"]["samples"] == 60


def test_another_state_of_the_cohort(tmp_path, drawn, passes):
    out, more = (cohorts.write(tmp_path / str(n), *drawn, parts=range(n)) for n in (2, 3))
    cohort_table(CohortFolder(out))
    for path in more.rglob("*.*"):
        (out / path.relative_to(more)).write_bytes(path.read_bytes())
    assert cohort_table(CohortFolder(out)).samples == 60
    assert len(passes) == 2
    same(cohort_table(CohortFolder(out)), cohort_table(CohortFolder(more)))


def test_every_damage_is_seen(out, passes):
    first = cohort_table(CohortFolder(out))
    whole = (out / NAME).read_bytes()
    places = [*range(0, len(whole), len(whole) // 60), len(whole) - 3]
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        (out / NAME).write_bytes(content)
        same(cohort_table(CohortFolder(out)), first)
    for content in (b"", b"PAR1", whole[:-9], whole[: len(whole) // 2]):
        (out / NAME).write_bytes(content)
        same(cohort_table(CohortFolder(out)), first)
        assert (out / NAME).read_bytes() == whole


def test_another_table_is_no_summary(out):
    cohort_table(CohortFolder(out))
    shutil.copy(out / "samples/part-000000.parquet", out / NAME)
    assert cohort_table(CohortFolder(out)).samples == 60


def test_other_numbers_are_seen(out):
    first = cohort_table(CohortFolder(out))
    stored = pq.read_table(out / NAME)
    changed = stored.set_column(7, "mean", [np.zeros(len(stored))])
    pq.write_table(changed.replace_schema_metadata(stored.schema.metadata), out / NAME)
    same(cohort_table(CohortFolder(out)), first)


def test_a_folder_that_cannot_be_written(out, monkeypatch):
    def refused(self, name, *about):
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr("deeplift_fast.cohort.local_store.created", refused)
    with pytest.warns(CohortWarning, match=r"summary\.parquet could not be kept in .*Permission denied.*each time"):
        found = cohort_table(CohortFolder(out))
    assert found.samples == 60
    assert not (out / NAME).exists()


def test_a_link_in_its_place_is_not_followed(out, tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (out / NAME).symlink_to(tmp_path / "elsewhere")
    cohort_table(CohortFolder(out))
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_it_is_shared_where_the_cohort_is(out):
    (out / "manifest.json").chmod(0o644)
    cohort_table(CohortFolder(out))
    assert stat.S_IMODE((out / NAME).stat().st_mode) & 0o044


def test_a_url(out, passes):
    files = fsspec.filesystem("memory")
    files.put(str(out), "/cohort-with-summary", recursive=True)
    try:
        url = "memory://cohort-with-summary"
        same(cohort_table(CohortFolder(url)), cohort_table(CohortFolder(url)))
        assert passes == [url]
        same(cohort_table(CohortFolder(url)), cohort_table(CohortFolder(out)))
    finally:
        files.rm("/cohort-with-summary", recursive=True)


def test_nothing_is_done_yet(tmp_path, drawn, passes):
    folder = CohortFolder(cohorts.write(tmp_path / "out", *drawn, parts=[]))
    same(cohort_table(folder), cohort_table(folder))
    assert len(passes) == 1
    assert cohort_table(folder).table.empty


def test_what_is_there_is_not_written_again(out):
    keep(summarise(out).cohort, str(out), {})
    before = (out / NAME).stat()
    keep(summarise(out).cohort, str(out), {})
    after = (out / NAME).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_descriptions(tmp_path, out):
    (tmp_path / "hosp").mkdir()
    (tmp_path / "hosp/d_icd_diagnoses.csv").write_text("icd_code,icd_version,long_title\nI10,10,Hypertension\n")
    table = cohort_table(CohortFolder(out), Titles(tmp_path)).table.set_index("code")
    assert table.loc["I10", ["title", "ambiguous"]].tolist() == ["Hypertension", False]
    assert table.loc["0040", "title"] is None
    assert table.columns.tolist()[-5:] == ["title", "ambiguous", "unit", "ref_low", "ref_high"]
