"""What an output folder may hold that no run left there."""

import json
import shutil

import cohort_folders
import pyarrow.parquet as pq
import pytest
from cohort_cases import contents, manifest, run, spoiled

from deeplift_fast.cohort import CohortError
from deeplift_fast.cohort.about import about_of

FILES = ("manifest.json", "failures.parquet", "samples/part-000001.parquet", "attributions/part-000001.parquet")


NUMBERS = dict.fromkeys(("begin", "end", "samples", "failures", "rows", "budget", "seconds"), 1)
ABOUT = about_of(cohort_folders.identity())
SOUND = {"identity": {}, "about": ABOUT, "device": "cpu", "budget": 1, "parts": {}}
CONTENTS = {
    "empty": "",
    "cut short": "{",
    "a list": "[]",
    "nothing about the run": json.dumps({name: SOUND[name] for name in SOUND.keys() - {"about"}}),
    "about": json.dumps(SOUND | {"about": 3}),
    "run": json.dumps(SOUND | {"run": "not an id"}),
    "parts": json.dumps(SOUND | {"parts": 3}),
    "identity": json.dumps(SOUND | {"identity": 3}),
    "budget": json.dumps(SOUND | {"budget": "x"}),
    "part": json.dumps(SOUND | {"parts": {"0": NUMBERS | {"files": 3}}}),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_manifest_that_cannot_be_read_is_refused(copied, content):
    data, model, out = copied
    (out / "manifest.json").write_text(CONTENTS[content])
    with pytest.raises(CohortError, match=r"manifest\.json in .* cannot be read"):
        run(model, data, out)
    assert run(model, data, out, force=True).samples == 23


def test_parts_of_nobody_knows_whom_are_not_removed(copied):
    data, model, out = copied
    (out / "manifest.json").unlink()
    with pytest.raises(CohortError, match=r"holds attributions/part-000000\.parquet but no manifest"):
        run(model, data, out)
    assert len(list(out.rglob("part-*"))) == 10


def test_an_output_that_cannot_be_made_is_refused(whole, tmp_path):
    data, model, _ = whole
    (tmp_path / "file").write_text("")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "samples").write_text("")
    for out in ("file/out", "file", "half"):
        with pytest.raises(CohortError, match="cannot be made"):
            run(model, data, tmp_path / out)
    (tmp_path / "closed" / ".lock").mkdir(parents=True)  # as root may write anywhere, what no one can open
    with pytest.raises(CohortError, match=r"closed, where \.lock cannot be written \(Is a directory\); choose one"):
        run(model, data, tmp_path / "closed")


@pytest.mark.parametrize("out", ["", "file://", "a\0b", 3, None])
def test_what_is_no_folder_is_refused(whole, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CohortError, match=r"out is .*; accepted: a folder, or a URL"):
        run(whole[1], whole[0], out)
    assert not list(tmp_path.iterdir())


def test_a_url_of_a_file_is_a_folder(whole, tmp_path):
    run(whole[1], whole[0], f"file://{tmp_path}/out")
    assert contents(tmp_path / "out") == contents(whole[2])


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file_is_refused_and_nothing_is_touched(whole, copied, name):
    data, model, out = copied
    (out / name).unlink()
    (out / name).mkdir()
    (out / name / "notes.txt").write_text("the user's own")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(CohortError, match=rf"where {name} cannot be read \(Is a directory\); put that right and run"):
        run(model, data, out)
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(CohortError, match=rf"where {name} cannot be \w+ \(Is a directory\); put that right and run"):
        run(model, data, out, force=True)
    (out / name / "notes.txt").unlink()
    (out / name).rmdir()
    run(model, data, out, force=True)
    assert contents(out) == contents(whole[2])


def lose(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)


def lose_a_row(path):
    pq.write_table(pq.read_table(path).slice(1), path)


@pytest.mark.parametrize("harm", [lose, cut, flip, lose_a_row])
def test_failures_that_were_harmed_are_found_again(tmp_path, harm):
    samples, model, _ = spoiled()
    run(model, samples, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    harm(tmp_path / "out" / "failures.parquet")
    run(model, samples, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert manifest(tmp_path / "out")["finished"]
