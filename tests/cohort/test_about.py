"""The facts about a run: the same in the manifest and in each of its Parquet files."""

import json
import re
import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cohort_cases import cohort, contents, manifest, run, spoiled

from deeplift_fast import DeepLift
from deeplift_fast.cohort import CohortError, about, attribute_cohort
from deeplift_fast.cohort.about import begun_in, check_about
from deeplift_fast.cohort.store import LocalStore
from deeplift_fast.report import SummaryError, summarise
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.support import clock

DOCS = Path(__file__).parents[2] / "docs" / "cohorts.md"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A cohort with failures: samples, model, folder."""
    samples, model, _ = spoiled()
    out = tmp_path_factory.mktemp("facts") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: datetime(2026, 3, 1, 8, 30, 59, 999999, tzinfo=UTC))
        run(model, samples, out, "complete", baseline="removed", target_class_idx=0)
    return samples, model, out


def facts_of(path):
    found = pq.read_schema(path).metadata
    return {key.decode(): value.decode() for key, value in found.items() if not key.startswith(b"ARROW")}


def test_each_file_holds_the_facts_of_the_manifest(finished):
    out = finished[2]
    about = manifest(out)["about"]
    versions = {name: version(name) for name in ("deeplift_fast", "torch", "pyhealth", "pyarrow")}
    digest = about.pop("model_digest")
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert about == {
        "schema_version": 2,
        "rules": "complete",
        "steps": 1,
        "baseline": "removed",
        "model": "pyhealth.models.transformer.Transformer",
        "target": 0,
        "units": "logit",
        "versions": versions,
        "created": "2026-03-01T08:30:59Z",
    }
    files = sorted(out.rglob("*.parquet"))
    assert [path.name for path in files].count("failures.parquet") == 1
    assert len(files) == 11
    for path in files:
        found = facts_of(path)
        assert json.loads(found.pop("deeplift_fast.versions")) == versions
        assert found == {
            "deeplift_fast.schema_version": "2",
            "deeplift_fast.rules": "complete",
            "deeplift_fast.steps": "1",
            "deeplift_fast.baseline": "removed",
            "deeplift_fast.model": "pyhealth.models.transformer.Transformer",
            "deeplift_fast.model_digest": digest,
            "deeplift_fast.target": "0",
            "deeplift_fast.units": "logit",
            "deeplift_fast.created": "2026-03-01T08:30:59Z",
        }


def test_the_files_of_a_cohort_without_failures_hold_them_too(tmp_path):
    data, model = cohort()
    run(model, data, tmp_path)
    assert facts_of(tmp_path / "failures.parquet")["deeplift_fast.target"] == "predicted"
    assert facts_of(tmp_path / "failures.parquet") == facts_of(tmp_path / "samples" / "part-000000.parquet")


def test_another_model_has_another_digest(whole, tmp_path):
    data, _, out = whole
    other = cohort()[1]
    other.fc.bias.data += 1e-6
    run(other, data, tmp_path / "out")
    assert manifest(tmp_path / "out")["about"]["model_digest"] != manifest(out)["about"]["model_digest"]
    run(cohort()[1], data, tmp_path / "same")
    assert manifest(tmp_path / "same")["about"] == manifest(out)["about"]


def later(patch):
    patch.setattr(clock, "now", lambda: datetime(2027, 1, 1, tzinfo=UTC))
    patch.setattr(about, "version", lambda _: "99.0")


def test_a_run_that_goes_on_later_writes_the_same_bytes(finished, tmp_path, monkeypatch):
    samples, model, whole = finished
    options = {"rules": "complete", "baseline": "removed", "target_class_idx": 0}
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: datetime(2026, 3, 1, 8, 30, 59, tzinfo=UTC))
        run(model, samples, tmp_path, **options, limit=7)
    later(monkeypatch)
    run(model, samples, tmp_path, **options, limit=None)
    assert contents(tmp_path)["failures.parquet"] == contents(whole)["failures.parquet"]
    assert contents(tmp_path) == contents(whole)
    run(model, samples, tmp_path, **options, force=True)
    assert manifest(tmp_path)["about"]["created"] == "2027-01-01T00:00:00Z"
    assert manifest(tmp_path)["about"]["versions"]["pyarrow"] == "99.0"


def changed(out, change):
    found = manifest(out)
    change(found)
    (out / "manifest.json").write_text(json.dumps(found))


@pytest.mark.parametrize("fact", ["created", "rules", "model_digest", "pyarrow"])
def test_a_damaged_fact_is_named_by_a_summary_and_repaired_by_a_run(whole, copied, fact):
    data, model, out = copied

    def change(found):
        of = found["about"]["versions"] if fact == "pyarrow" else found["about"]
        of[fact] = "2026-01-31T12:00:01Z"

    changed(out, change)
    with pytest.raises(SummaryError, match=r"manifest\.json is damaged: its .* where samples/part-000000"):
        summarise(out)
    (out / "samples" / "part-000003.parquet").unlink()
    run(model, data, out)
    assert contents(out) == contents(whole[2])
    assert summarise(out).rules == "rescale"


@pytest.mark.parametrize(
    "facts",
    [None, {"created": "yesterday"}, {"versions": "3"}, {"versions": '{"pyarrow": 3}'}, {"versions": "{"}],
)
def test_the_file_of_another_program_tells_nothing(whole, tmp_path, facts):
    out = whole[2]
    name = "samples/part-000000.parquet"
    begun = begun_in(LocalStore(out), [name])
    known = manifest(out)["about"]
    assert begun == {"created": known["created"], "versions": {"pyarrow": known["versions"]["pyarrow"]}}
    table = pq.read_table(out / name)
    metadata = facts_of(out / name) | {about.PREFIX + key: value for key, value in (facts or {}).items()}
    pq.write_table(table.replace_schema_metadata(metadata if facts else None), tmp_path / "other")
    (tmp_path / "none").write_bytes(b"PAR1")
    others = LocalStore(tmp_path)
    assert begun_in(others, ["other", "none", "lost"]) is None
    shutil.copy(out / name, tmp_path / "ours")
    assert begun_in(others, ["other", "none", "lost", "ours"]) == begun


def before(found):
    """A manifest as it was before it had a schema version."""
    del found["about"], found["run"]
    found["format"] = 1


def after(found):
    found["about"] = {"schema_version": 3, "something": "new"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (before, "its schema version is 1, of an earlier version of deeplift_fast; this version has 2"),
        (after, "its schema version is 3, of a later version of deeplift_fast; this version has 2"),
    ],
)
def test_a_folder_of_another_schema_is_refused_with_the_remedy(copied, change, said):
    data, model, out = copied
    changed(out, change)
    held = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    with pytest.raises(SummaryError, match=f"{said}; run the cohort again with --force"):
        CohortFolder(out)
    with pytest.raises(CohortError, match=rf"{said}.* start over with force"):
        run(model, data, out)
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == held
    run(model, data, out, force=True)
    assert CohortFolder(out).about["schema_version"] == 2


FAULTS = {
    "about is a list": lambda about: [],
    "schema_version is ": lambda about: about | {"schema_version": True},
    "schema_version is None": lambda about: {},
    "about has no created": lambda about: {key: about[key] for key in about.keys() - {"created"}},
    'about has the unknown field "more"': lambda about: about | {"more": 1},
    r"about\.rules is": lambda about: about | {"rules": 3},
    r"about\.versions is": lambda about: about | {"versions": 3},
    r"about\.versions\.torch is": lambda about: about | {"versions": about["versions"] | {"torch": [1]}},
    r"about\.versions is .*torch": lambda about: about | {"versions": {"torch": "2"}},
    "steps is": lambda about: about | {"steps": 0},
    "target": lambda about: about | {"target": None},
    r"about\.created is": lambda about: about | {"created": "2026-01-31 12:00:00Z"},
    r"about\.created is .2026-13": lambda about: about | {"created": "2026-13-31T12:00:00Z"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(whole, fault):
    about = manifest(whole[2])["about"]
    check_about(about)
    with pytest.raises(ValueError, match=fault.replace("None", '"None"')):
        check_about(FAULTS[fault](about))


def test_a_package_that_is_not_installed_has_no_version(whole):
    """PyHealth may be there without its metadata."""
    about = manifest(whole[2])["about"]
    check_about(about | {"versions": about["versions"] | {"pyhealth": None}})


def test_each_run_has_an_id_and_the_manifest_names_the_last(tmp_path, capsys):
    data, model = cohort()
    found = []
    for limit in (7, None):
        capsys.readouterr()
        attribute_cohort(DeepLift(model, rules="complete"), data, tmp_path, progress="json", limit=limit)
        events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert {event["run"] for event in events} == {manifest(tmp_path)["run"]}
        found.append(manifest(tmp_path)["run"])
    assert found[0] != found[1]


def test_the_page_reads_them(whole, tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n([^`]*read_schema[^`]*)```", DOCS.read_text())
    shutil.copytree(whole[2], tmp_path / "mortality")
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert capsys.readouterr().out == f"rescale rules, torch {version('torch')}\n"


def test_the_page_names_each_key():
    text = DOCS.read_text()
    assert all(f"`{about.PREFIX}{name}`" in text for name in about.NAMES)
