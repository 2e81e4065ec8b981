"""Cohorts with the table `interactions`: written, continued, refused and checked like the others."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from cohort_cases import SECRETS, cohort, contents, manifest, raw, run, table
from pyhealth.models import LogisticRegression

from deeplift_fast import DeepLift
from deeplift_fast.cohort import INTERACTIONS, CohortError, attributing
from deeplift_fast.report import summarise
from deeplift_fast.report.folder import CohortFolder

TOP = 3
PAIR = ["first_feature", "first_code", "second_feature", "second_code"]


def asked(model, data, out, **options):
    return run(model, data, out, **{"rules": "complete", "interactions": TOP, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished cohort with interactions: data, model, folder."""
    data, model = cohort("Transformer", count=12)
    out = tmp_path_factory.mktemp("interactions") / "out"
    asked(model, data, out)
    return data, model, out


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole[2], tmp_path / "out")
    return whole[0], whole[1], tmp_path / "out"


def test_rows_are_those_of_samples_asked_one_by_one(whole):
    from pyhealth.datasets import get_dataloader

    data, model, out = whole
    found = pq.read_table(out / "interactions")
    assert found.schema.equals(INTERACTIONS.with_metadata(found.schema.metadata))
    found = found.to_pandas()
    assert found["sample"].is_monotonic_increasing
    keys = list(zip(*(found[name].astype(str) for name in PAIR), strict=True))
    assert all(key[:2] < key[2:] for key in keys)  # a and b are in order as features too
    samples = table(out, "samples").to_pandas()
    interpreter, by_sample = DeepLift(model, rules="complete"), dict(iter(found.groupby("sample")))
    for number, batch in enumerate(get_dataloader(data, 1)):
        expected = interpreter.interactions(TOP, **batch).to_dataframe()
        mine = by_sample[number]
        assert len(mine) == len(expected) == 3
        assert set(mine["patient_id"]) == {samples["patient_id"][number]}
        assert set(mine["visit_id"]) == {samples["visit_id"][number]}
        for row in mine.itertuples():
            (one,) = [each for each in expected.itertuples() if names(each) == names(row)]
            same = (one.first_feature, one.first_code) == (row.first_feature, row.first_code)
            first, second = ("first", "second") if same else ("second", "first")
            assert row.interaction == pytest.approx(one.interaction, rel=1e-4, abs=1e-5)
            assert row.first_contribution == pytest.approx(getattr(one, f"{first}_contribution"), rel=1e-4, abs=1e-5)
            assert row.second_contribution == pytest.approx(getattr(one, f"{second}_contribution"), rel=1e-4, abs=1e-5)
            for mine_is, its in (("first", first), ("second", second)):
                moved = getattr(one, f"output_without_{its}")
                assert getattr(row, f"output_without_{mine_is}") == pytest.approx(moved, rel=1e-4, abs=1e-5)


def names(row):
    return {(row.first_feature, row.first_code), (row.second_feature, row.second_code)}


def test_contributions_are_sums_of_the_rows_of_attributions(whole):
    found, rows = (pd.read_parquet(whole[2] / name) for name in ("interactions", "attributions"))
    sums = rows.astype({"feature": str, "code": str}).groupby(["sample", "feature", "code"])["attribution"].sum()
    for row in found.itertuples():
        assert row.first_contribution == pytest.approx(sums[row.sample, row.first_feature, row.first_code], abs=1e-5)


def test_without_the_option_nothing_changes(whole, tmp_path):
    data, model, out = whole
    run(model, data, tmp_path / "out", rules="complete")
    assert not (tmp_path / "out" / "interactions").exists()
    for name in ("samples", "attributions"):
        assert table(tmp_path / "out", name).equals(table(out, name))
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert "interactions" not in text
    assert not CohortFolder(tmp_path / "out").has_interactions


def test_the_manifest_counts_them(whole):
    found = manifest(whole[2])
    assert found["identity"]["interactions"] == TOP
    for number, part in found["parts"].items():
        name = f"interactions/part-{int(number):06d}.parquet"
        assert part["interactions"] == pq.read_metadata(whole[2] / name).num_rows == 3 * part["samples"]
        assert name in part["files"]


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(whole, tmp_path, monkeypatch):
    data, model, out = whole
    done, part = [], attributing.Attributor.part

    def stopping(self, stretch, budget):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(stretch.part)
        return part(self, stretch, budget)

    monkeypatch.setattr(attributing.Attributor, "part", stopping)
    with pytest.raises(KeyboardInterrupt):
        asked(model, data, tmp_path / "out")
    monkeypatch.undo()
    asked(model, data, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(out)


@pytest.mark.parametrize("harm", ["lost", "cut"])
def test_a_file_that_was_harmed_is_written_again(whole, copied, harm):
    data, model, out = copied
    path = out / "interactions/part-000002.parquet"
    content = path.read_bytes()
    path.unlink() if harm == "lost" else path.write_bytes(content[:-9])
    asked(model, data, out)
    assert path.read_bytes() == content
    assert contents(out) == contents(whole[2])


@pytest.mark.parametrize(("now", "said"), [
    (4, r"interactions: 3 there, 4 now(.|\n)*\n--interactions 3 goes on with it \(in Python: interactions=3\)"),
    (None, r"interactions: 3 there, null now(.|\n)*\n--interactions 3 goes on with it"),
])  # fmt: skip
def test_another_number_is_refused(copied, now, said):
    data, model, out = copied
    before = contents(out)
    with pytest.raises(CohortError, match=said):
        asked(model, data, out, interactions=now)
    assert contents(out) == before


def test_a_folder_without_them_is_not_continued_with_them(whole, tmp_path):
    data, model, _ = whole
    run(model, data, tmp_path / "out", rules="complete", limit=5)
    with pytest.raises(CohortError, match=r"null there, 3 now(.|\n)*\nleaving out --interactions goes on with it"):
        asked(model, data, tmp_path / "out", limit=5)


def test_force_starts_over_without_them(copied):
    data, model, out = copied
    run(model, data, out, rules="complete", force=True)
    assert not list((out / "interactions").iterdir())
    assert not CohortFolder(out).has_interactions


def test_a_url(whole, tmp_path):
    import fsspec

    data, model, out = whole
    asked(model, data, f"memory://{tmp_path.name}")
    files = fsspec.filesystem("memory")
    for path in (out / "interactions").iterdir():
        assert files.cat(f"/{tmp_path.name}/interactions/{path.name}") == path.read_bytes()


def test_every_pair_of_few_codes_has_a_row_and_repeats_are_one_code(tmp_path):
    samples = raw(6)
    for each in samples[:5]:
        each["a"], each["b"] = ["A7"], ["c1"]
    samples[1] |= {"a": ["A7", "A7"], "b": ["c1", "c1"]}
    data, model = cohort("Transformer", samples=samples)
    asked(model, data, tmp_path / "out", interactions=64)
    found = pd.read_parquet(tmp_path / "out" / "interactions").astype(dict.fromkeys(PAIR, str))
    few = found[found["sample"] < 5]
    assert few["sample"].tolist() == [0, 1, 2, 3, 4]  # one code in each of two features
    assert set(few[PAIR].itertuples(index=False, name=None)) == {("a", "A7", "b", "c1")}
    codes = sum(len(set(samples[5][key])) for key in ("a", "b"))
    assert len(found) - len(few) == codes * (codes - 1) // 2


def test_samples_of_one_code_have_no_rows(tmp_path):
    samples = [each | {"codes": ([0.0, 5.0], [["A7"], ["A7"]])} for each in raw(6, {"codes": 0, "labs": 0})]
    data, model = cohort("StageNet", samples=samples)
    asked(model, data, tmp_path / "out")
    assert [part["interactions"] for part in manifest(tmp_path / "out")["parts"].values()] == [0, 0]
    assert pq.read_table(tmp_path / "out" / "interactions").num_rows == 0
    assert table(tmp_path / "out", "samples").num_rows == 6
    assert summarise(tmp_path / "out").pairs.empty


@pytest.mark.parametrize("fault", ["not finite", "raises"])
def test_a_sample_whose_interactions_fail_is_a_failure(whole, tmp_path, monkeypatch, fault):
    data, model, out = whole
    real = DeepLift.interactions
    odd = torch.as_tensor(data[7]["a"]).tolist()

    def failing(self, *given, **batch):
        found = real(self, *given, **batch)
        rows = [n for n, each in enumerate(batch["a"]) if each[: len(odd)].tolist() == odd]
        if rows and fault == "raises":
            raise ValueError(f"of {SECRETS[0]}")
        values = found.values.clone()
        values[rows] = torch.inf
        return replace(found, values=values)

    monkeypatch.setattr(DeepLift, "interactions", failing)
    done = asked(model, data, tmp_path / "out")
    assert (done.samples, done.failures) == (11, 1)
    (failure,) = table(tmp_path / "out", "failures").to_pylist()
    assert failure["sample"] == 7
    said = "the interpreter raised ValueError" if fault == "raises" else "not finite without one of the strongest codes"
    assert said in failure["reason"]
    assert SECRETS[0] not in failure["reason"]
    for name in ("samples", "attributions", "interactions"):
        found, expected = (table(each, name).to_pandas() for each in (tmp_path / "out", out))
        expected = expected[expected["sample"] != 7].reset_index(drop=True)
        numbers = expected.select_dtypes("number").columns
        np.testing.assert_allclose(found[numbers], expected[numbers], rtol=1e-4, atol=1e-5)


def rows_asked(monkeypatch):
    """A list that gets the `rows_at_once` of every later call."""
    rows, real = [], DeepLift.interactions

    def watching(self, *given, rows_at_once, **batch):
        rows.append(rows_at_once)
        return real(self, *given, rows_at_once=rows_at_once, **batch)

    monkeypatch.setattr(DeepLift, "interactions", watching)
    return rows


def test_codes_of_an_additive_model_do_not_act_together(tmp_path, monkeypatch):
    """It has no fused layers: like all such models, it always has the whole batch."""
    data, _ = cohort("Transformer", count=12)
    rows = rows_asked(monkeypatch)
    asked(LogisticRegression(data, embedding_dim=8), data, tmp_path / "out")
    found = pd.read_parquet(tmp_path / "out" / "interactions")
    assert len(found) == 3 * 12
    assert found["interaction"].abs().max() < 1e-6 < found["first_contribution"].abs().min()
    assert set(rows) == {None}


def test_a_changed_model_has_the_whole_batch(tmp_path, monkeypatch):
    """A hook may mix the samples of a batch or draw numbers by row, so that more rows would be another model."""
    data, model = cohort("Transformer", count=12)
    rows = rows_asked(monkeypatch)
    asked(model, data, tmp_path / "plain")
    assert None not in rows
    rows.clear()
    model.fc.register_forward_hook(lambda module, args, output: output - output.mean(0))
    asked(model, data, tmp_path / "hooked")
    assert set(rows) == {None}


@pytest.mark.parametrize("loader", [False, True])
def test_where_memory_runs_out_fewer_are_attributed_at_once(whole, tmp_path, monkeypatch, loader):
    from pyhealth.datasets import get_dataloader

    data, model, out = whole
    real = DeepLift.interactions

    def small(self, *given, rows_at_once, **batch):
        if rows_at_once > 1:
            raise MemoryError
        return real(self, *given, rows_at_once=rows_at_once, **batch)

    monkeypatch.setattr(DeepLift, "interactions", small)
    done = asked(model, list(get_dataloader(data, 5)) if loader else data, tmp_path / "out", budget=200)
    assert (done.samples, done.failures) == (12, 0)
    found, expected = (table(each, "interactions").to_pandas() for each in (tmp_path / "out", out))
    np.testing.assert_allclose(found["interaction"], expected["interaction"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("budget", [40, 100_000])
def test_the_budget_bounds_what_is_attributed_at_once(whole, tmp_path, monkeypatch, budget):
    data, model, out = whole
    sizes, explained = [], DeepLift._attributed

    def watching(self, request, batch, given):
        sizes.append(batch.size * max(feature.value.shape[1] for feature in batch.features.values()))
        return explained(self, request, batch, given)

    monkeypatch.setattr(DeepLift, "_attributed", watching)
    asked(model, data, tmp_path / "out", budget=budget)
    assert max(sizes) <= budget
    found, expected = (table(each, "interactions").to_pandas() for each in (tmp_path / "out", out))
    np.testing.assert_allclose(found["interaction"], expected["interaction"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"interactions": 1}, "interactions is 1; accepted: an int of 2 or more, or None"),
        ({"interactions": 65}, "interactions is 65; accepted: an int from 2 to 64, or None"),
        ({"interactions": "8"}, "interactions is '8'"),
        ({"interactions": True}, "interactions is True"),
        ({"rules": "pyhealth"}, 'interactions is 3, and rules is "pyhealth"'),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(whole, tmp_path, given, said):
    with pytest.raises(CohortError, match=said):
        asked(whole[1], whole[0], tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


FAULTS = {
    "a count": lambda found: found["parts"]["1"].update(interactions=-1),
    "no count": lambda found: found["parts"]["1"].pop("interactions"),
    "no number asked for": lambda found: found["identity"].update(interactions="3"),
    "files nobody asked for": lambda found: (
        found["identity"].pop("interactions"),
        [part.pop("interactions") for part in found["parts"].values()],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_manifest_that_contradicts_itself_is_refused(copied, fault):
    data, model, out = copied
    found = manifest(out)
    FAULTS[fault](found)
    (out / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(CohortError, match=r"manifest\.json in .* cannot be read .*interactions"):
        asked(model, data, out)
