"""What others may have put into an output folder: links, pipes, devices, and names in the manifest."""

import json
import os
import stat

import pytest
from cohort_cases import contents, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deeplift_fast.cohort import CohortError
from deeplift_fast.cohort.manifest import load
from deeplift_fast.cohort.manifest_content import MOST_PARTS
from deeplift_fast.cohort.store import LocalStore
from deeplift_fast.report import SummaryError, summarise
from deeplift_fast.report.folder import CohortFolder

FILES = (
    ".lock",
    "manifest.json",
    "failures.parquet",
    "samples/part-000001.parquet",
    "attributions/part-000001.parquet",
)
READ_BY_SUMMARY = FILES[1:]


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("the user's own")
    path.chmod(0o640)
    return path


def plant(path, what, victim):
    if path.is_dir():
        path.rename(path.with_name(f"{path.name}-moved"))
    path.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"link": victim, "device": "/dev/zero", "link to nothing": "nowhere"}[what])


@pytest.mark.parametrize("what", ["link", "pipe", "device", "link to nothing"])
@pytest.mark.parametrize("name", FILES)
def test_nothing_planted_is_read_or_written_through(copied, victim, name, what):
    data, model, out = copied
    plant(out / name, what, victim)
    with pytest.raises(CohortError, match=rf"where {name} cannot be (read|written) \(it is (a link|no regular file)"):
        run(model, data, out)
    assert victim.read_text() == "the user's own"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o640
    assert not (out / "nowhere").exists()


@pytest.mark.parametrize("what", ["link", "pipe", "device", "link to nothing"])
@pytest.mark.parametrize("name", READ_BY_SUMMARY)
def test_a_summary_reads_nothing_planted(copied, victim, name, what):
    plant(copied[2] / name, what, victim)
    with pytest.raises(SummaryError, match=rf"where {name} cannot be read \(it is (a link|no regular file)"):
        summarise(copied[2])


@pytest.mark.parametrize("folder", ["samples", "attributions"])
def test_folders_in_the_output_are_no_links(copied, tmp_path, folder):
    data, model, out = copied
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "part-000077.parquet").write_text("another cohort's")
    (out / folder).rename(out / "moved")
    (out / folder).symlink_to(elsewhere)
    for options in ({}, {"force": True}):
        with pytest.raises(
            CohortError, match=rf"where {folder} cannot be written \(it is a link, which is not followed"
        ):
            run(model, data, out, **options)
    with pytest.raises(SummaryError, match="it is a link"):
        summarise(out)
    assert [path.name for path in elsewhere.iterdir()] == ["part-000077.parquet"]


def test_the_output_itself_may_be_a_link_of_the_users(whole, tmp_path):
    data, model, out = whole
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    run(model, data, tmp_path / "out")
    assert contents(tmp_path / "disk") == contents(out)


def test_a_lock_that_is_a_second_name_of_a_file_is_not_written_to(copied, victim):
    data, model, out = copied
    (out / ".lock").unlink(missing_ok=True)
    os.link(victim, out / ".lock")
    with pytest.raises(CohortError, match=r"where \.lock cannot be written \(it has a second name, a hard link"):
        run(model, data, out)
    assert victim.read_text() == "the user's own"


def test_modes_of_what_was_there_are_not_taken_over(copied):
    data, model, out = copied
    for path in out.rglob("*"):
        if path.is_file():
            path.chmod(0o666)
    run(model, data, out, force=True)
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()} == {0o600}


def changed(out, change):
    found = json.loads((out / "manifest.json").read_text())
    change(found)
    (out / "manifest.json").write_text(json.dumps(found))


def renamed(old, new):
    def change(found):
        found["parts"][new] = found["parts"].pop(old)

    return change


def with_file(name):
    def change(found):
        found["parts"]["1"]["files"][name] = {"bytes": 4, "sha256": "0" * 64}

    return change


def with_field(name, value, part="1"):
    def change(found):
        (found if part is None else found["parts"][part])[name] = value

    return change


def nested(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found


WRONG = {
    "outside": with_file("../victim"),
    "absolute": with_file("/dev/zero"),
    "NUL": with_file("samples/part-000001.parquet\0"),
    "another part's": with_file("samples/part-000002.parquet"),
    "dots": with_file("samples/../samples/part-000001.parquet"),
    "another folder": with_file("other/part-000001.parquet"),
    "escapes": with_file("\x1b[2J\u202e"),
    "key 02": renamed("2", "02"),
    "key 10^11": renamed("2", str(10**11)),
    "key -1": renamed("2", "-1"),
    "key +2": renamed("2", "+2"),
    "key ٢": renamed("2", "٢"),
    "key empty": renamed("2", ""),
    "key just too large": renamed("2", str(MOST_PARTS)),
    "nested": with_field("identity", {"a": nested(100)}, None),
    "bool": with_field("rows", True),
    "negative": with_field("samples", -1),
    "huge": with_field("end", 10**30),
    "seconds": with_field("seconds", float("inf")),
    "not its own samples": with_field("begin", 0),
    "more samples than a part has": with_field("end", 11),
    "unknown": with_field("more", 1),
    "total": with_field("total", "many", None),
    "finished": with_field("finished", 1, None),
    "files": with_field("files", []),
    "file": with_field("files", {"samples/part-000001.parquet": {"bytes": 1, "sha256": "../x"}}),
    "bytes": with_field("files", {"samples/part-000001.parquet": {"bytes": -1, "sha256": "0" * 64}}),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_manifest_that_says_something_impossible_is_named(copied, victim, what):
    data, model, out = copied
    changed(out, WRONG[what])
    before = {path: path.read_bytes() for path in out.rglob("part-*")}
    with pytest.raises(CohortError, match=r"manifest\.json in .* cannot be read \(.*start over with force") as caught:
        run(model, data, out)
    assert str(caught.value).isprintable()
    assert {path: path.read_bytes() for path in out.rglob("part-*")} == before


@pytest.mark.parametrize("place", ['"parts": {', '"outputs": ', '"bytes": '])
def test_a_name_that_stands_twice_hides_nothing(copied, place):
    data, model, out = copied
    path = out / "manifest.json"
    twice = {
        '"parts": {': '"parts": {"1": {}, ',
        '"outputs": ': '"outputs": null, "outputs": ',
        '"bytes": ': '"bytes": 1, "bytes": ',
    }
    text = json.dumps(json.loads(path.read_text()))
    assert place in text
    path.write_text(text.replace(place, twice[place], 1))
    with pytest.raises(CohortError, match=r"manifest\.json in .* cannot be read \(a name stands twice"):
        run(model, data, out)
    with pytest.raises(SummaryError, match="a name stands twice"):
        summarise(out)


@pytest.mark.parametrize("what", ["outside", "absolute", "NUL", "another part's", "escapes", "key 02", "key 10^11",
                                  "key -1", "nested", "files", "bytes"])  # fmt: skip
def test_a_summary_names_such_a_manifest_too(copied, what):
    changed(copied[2], WRONG[what])
    with pytest.raises(SummaryError, match=r"manifest\.json cannot be read as a cohort's manifest \(.*\)") as caught:
        summarise(copied[2])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, '{"device": "cpu", "parts": ' + "[" * 900]
)
def test_deep_and_long_content_is_no_manifest(copied, content):
    data, model, out = copied
    (out / "manifest.json").write_text(content)
    with pytest.raises(CohortError, match=r"manifest\.json in .* cannot be read"):
        run(model, data, out)
    with pytest.raises(SummaryError, match=r"manifest\.json cannot be read"):
        summarise(out)


@pytest.mark.parametrize("name", READ_BY_SUMMARY[:2])
def test_what_is_too_large_is_not_read(copied, name):
    data, model, out = copied
    os.truncate(out / name, 1 << 40)  # of a terabyte, none of it on the disk
    with pytest.raises(CohortError, match=rf"{name} has 1,099,511,627,776 bytes; accepted: at most"):
        run(model, data, out)


@pytest.mark.parametrize("files", [{}, "one"])
def test_a_part_without_its_files_is_no_part(whole, copied, files):
    data, model, out = copied

    def fewer(found):
        part = found["parts"]["1"]
        part["files"] = dict(list(part["files"].items())[:1]) if files else {}

    changed(out, fewer)
    with pytest.raises(SummaryError, match=r"part-000001\.parquet is missing.*does not name it"):
        summarise(out)
    run(model, data, out)
    assert contents(out) == contents(whole[2])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(key=st.text(max_size=12) | st.integers().map(str), name=st.text(max_size=40), field=JSON, data=st.data())
def test_whatever_a_manifest_says_only_its_own_files_are_named(copied, key, name, field, data):
    """Any key, any file name and any value of a field: an error that names the manifest, or parts with their files."""
    out = copied[2]
    sound = json.loads((out / "manifest.json").read_text())
    part = sound["parts"].pop("1")
    which = data.draw(st.sampled_from(["key", "name", "field", "top"]))
    if which == "name":
        part["files"][name] = {"bytes": 4, "sha256": "0" * 64}
    elif which == "field":
        part[data.draw(st.sampled_from(sorted(part)))] = field
    elif which == "top":
        sound[data.draw(st.sampled_from(sorted(sound)))] = field
    if isinstance(sound["parts"], dict):
        sound["parts"][key if which == "key" else "1"] = part
    store = LocalStore(out.parent / "drawn")
    store.make()
    store.write("manifest.json", json.dumps(sound).encode())
    folder = read(lambda: CohortFolder(store.folder), SummaryError)
    assert all(0 <= number < MOST_PARTS for number in (folder.parts if folder else ()))
    manifest = read(lambda: load(store), CohortError)
    for number, each in manifest.parts.items() if manifest else ():
        assert 0 <= number < MOST_PARTS
        assert set(each.files) <= {f"{folder}/part-{number:06d}.parquet" for folder in ("attributions", "samples")}


def read(call, kind):
    """What a call gives, or nothing where its error names the manifest."""
    try:
        return call()
    except kind as error:
        if "manifest.json" not in str(error):
            raise AssertionError("the manifest is not named") from error
        return None
