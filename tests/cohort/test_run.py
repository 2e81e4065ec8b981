"""A cohort from end to end: rows, order, sources, failures, folders."""

import contextlib
import json
import os
import resource
import stat

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from batch_tables import batch_tables
from cohort_cases import SECRETS, cohort, contents, manifest, raw, run, spoiled, table
from pyhealth.datasets import get_dataloader

from deeplift_fast import DeepLift
from deeplift_fast.cohort import ATTRIBUTIONS, SAMPLES, CohortError, attribute_cohort
from deeplift_fast.pyhealth.features import read_features


def one_by_one(model, data, rules="rescale"):
    """The tables of each sample attributed alone."""
    interpreter = DeepLift(model, rules=rules)
    tables = []
    for i, batch in enumerate(get_dataloader(data, 1)):
        found = interpreter.explain(**batch)
        logits = interpreter.own_logits(read_features(model, batch, True), batch, 1)
        each = logits.softmax(-1) if model.mode == "multiclass" else logits.sigmoid()
        probability = None if model.mode == "regression" else each[0, found.target]
        tables.append(batch_tables(model, batch, found, i, probability))
    return tuple(pa.concat_tables(each) for each in zip(*tables, strict=True))


def assert_same_rows(got, expected, numeric):
    assert got.schema.equals(expected.schema)
    for name in got.column_names:
        if name in numeric:
            np.testing.assert_allclose(got[name].to_numpy(), expected[name].to_numpy(), rtol=2e-4, atol=2e-5)
        else:
            assert got[name].to_pylist() == expected[name].to_pylist(), name


@pytest.mark.parametrize("kind", ["MLP", "StageNet", "Transformer", "RNN, GRU", "MLP, nested"])
@pytest.mark.parametrize("budget", [None, 17])
def test_rows_are_those_of_samples_attributed_one_by_one(kind, budget, tmp_path):
    data, model = cohort(kind)
    done = run(model, data, tmp_path, budget=budget)
    samples, attributions = one_by_one(model, data)
    assert (done.samples, done.failures, done.parts) == (23, 0, 5)
    # `time`, `value` and `code` are compared exactly; so is every place.
    assert_same_rows(table(tmp_path, "attributions"), attributions, {"attribution"})
    assert_same_rows(
        table(tmp_path, "samples"), samples, {"output", "baseline_output", "probability", "convergence_delta"}
    )


LABELS = {
    "binary": lambda i: i % 2,
    "multiclass": lambda i: i % 3,
    "multilabel": lambda i: [["x", "y"], ["z"], ["y"]][i % 3],
    "regression": float,
}


@pytest.mark.parametrize("mode", LABELS)
def test_samples_have_the_probability_and_the_label_of_their_target(mode, tmp_path):
    samples = [each | {"label": LABELS[mode](i)} for i, each in enumerate(raw())]
    data, model = cohort("MLP", label=mode, samples=samples)
    run(model, data, tmp_path)
    expected, _ = one_by_one(model, data)
    got = table(tmp_path, "samples")
    assert got["target"].to_pylist() == expected["target"].to_pylist()
    np.testing.assert_allclose(got["probability"].to_numpy(), expected["probability"].to_numpy(), rtol=1e-5)
    assert got["label"].to_pylist() == expected["label"].to_pylist()
    assert got["probability"].null_count == (23 if mode == "regression" else 0)


def test_a_part_holds_its_samples_in_order(tmp_path):
    data, model = cohort()
    run(model, data, tmp_path)
    for part in range(5):
        places = list(range(part * 5, min(part * 5 + 5, 23)))
        name = f"part-{part:06d}.parquet"
        assert pq.read_table(tmp_path / "samples" / name)["sample"].to_pylist() == places
        rows = pq.read_table(tmp_path / "attributions" / name).to_pandas()
        assert sorted(set(rows["sample"])) == places
        order = rows.assign(feature=rows["feature"].map({"a": 0, "b": 1}).astype(int))
        order = order[["sample", "feature", "step", "slot"]]
        assert order.equals(order.sort_values(list(order), kind="stable").reset_index(drop=True))


def test_files_open_in_pandas_and_polars_with_the_types_documented(tmp_path):
    data, model = cohort("StageNet")
    run(model, data, tmp_path)
    for name, schema in (("attributions", ATTRIBUTIONS), ("samples", SAMPLES)):
        file = pq.ParquetFile(tmp_path / name / "part-000000.parquet")
        assert file.schema_arrow.equals(schema)
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        frame = pd.read_parquet(tmp_path / name)
        assert len(frame) == pl.read_parquet(tmp_path / name / "*.parquet").height == len(table(tmp_path, name))
        assert isinstance(frame["patient_id"].dtype, pd.CategoricalDtype)


@pytest.mark.parametrize(
    "source", ["dataset", "disk", "disk, read ahead", "loader", "shuffled", "batches", "generator"]
)
def test_every_kind_of_source_gives_its_samples(source, tmp_path):
    data, model = cohort(in_memory="disk" not in source)
    options = {"read_ahead": 2} if "ahead" in source else {}
    given = {
        "loader": lambda: get_dataloader(data, 4),
        "shuffled": lambda: get_dataloader(data, 4, shuffle=True, seed=3),
        "batches": lambda: list(get_dataloader(data, 4)),
        "generator": lambda: iter(get_dataloader(data, 4)),
    }.get(source, lambda: data)
    done = run(model, given(), tmp_path / "out", **options)
    assert (done.samples, done.parts) == (23, 5)
    names = [name for batch in given() for name in batch["visit_id"]] if source == "shuffled" else None
    expected = names or [f"secret-visit-{i}" for i in range(23)]
    assert table(tmp_path / "out", "samples")["visit_id"].to_pylist() == expected
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*")}
    if source != "shuffled":
        run(model, cohort()[0], tmp_path / "plain")
        rows = table(tmp_path / "out", "attributions").drop(["attribution"])
        assert rows.equals(table(tmp_path / "plain", "attributions").drop(["attribution"]))
    run(model, given(), tmp_path / "out", **options)  # goes on with nothing left to do
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*")}


def test_reading_ahead_gives_the_same_bytes(tmp_path):
    data, model = cohort(count=60, in_memory=False)
    data[0]  # opens a file, which reading processes must not share
    for processes in (0, 1, 3):
        run(model, data, tmp_path / str(processes), read_ahead=processes)
    assert contents(tmp_path / "0") == contents(tmp_path / "1") == contents(tmp_path / "3")


def test_a_subset_and_a_list_of_samples_are_datasets_too(tmp_path):
    data, model = cohort(in_memory=False)
    few = data.subset([3, 4, 9, 20])
    run(model, few, tmp_path / "subset", part_samples=2, read_ahead=1)
    run(model, [data[i] for i in (3, 4, 9, 20)], tmp_path / "list", part_samples=2)
    for out in ("subset", "list"):
        found = table(tmp_path / out, "samples")
        assert found["visit_id"].to_pylist() == [f"secret-visit-{i}" for i in (3, 4, 9, 20)]
        assert found["sample"].to_pylist() == [0, 1, 2, 3]


def test_a_lower_limit_leaves_what_is_there_and_counts_it(tmp_path, capfd):
    data, model = cohort()
    run(model, data, tmp_path, limit=12)
    done = run(model, data, tmp_path, limit=7, progress="lines")
    assert (done.samples, manifest(tmp_path)["total"], manifest(tmp_path)["limit"]) == (12, 12, 7)
    shown = capfd.readouterr().err
    assert "12 of 12 samples" in shown
    assert "of 7" not in shown


def test_an_iterator_goes_on_only_when_it_is_made_anew(tmp_path):
    data, model = cohort()

    def batches():
        yield from get_dataloader(data, 5)

    begun = batches()
    run(model, begun, tmp_path, limit=10)
    with pytest.raises(CohortError, match=r"dataset\.content: (.|\n)*begins where it was left: make it anew"):
        run(model, begun, tmp_path)
    assert run(model, batches(), tmp_path).samples == 23
    used = batches()
    list(used)
    with pytest.raises(CohortError, match="dataset is a generator with no batches left"):
        run(model, used, tmp_path / "new")


def test_a_limit_stops_early_and_can_be_lifted(tmp_path):
    data, model = cohort()
    assert run(model, data, tmp_path / "a", limit=7).samples == 7
    assert manifest(tmp_path / "a")["total"] == 7
    assert run(model, data, tmp_path / "a").samples == 23
    run(model, data, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert run(model, iter(get_dataloader(data, 4)), tmp_path / "c", limit=7).samples == 7
    assert run(model, iter(get_dataloader(data, 4)), tmp_path / "c", limit=12).samples == 12
    assert table(tmp_path / "c", "samples")["sample"].to_pylist() == list(range(12))


@pytest.mark.parametrize("steps", [{"a": 3}, {"row": 0.5, "a": 2}, {"row": [1.0, 2.0, 3.0, 4.0]}])
def test_a_baseline_stands_at_every_real_position(steps, tmp_path):
    data, model = cohort("Transformer, one row")
    baseline = {key: torch.tensor(value) if isinstance(value, list) else value for key, value in steps.items()}
    run(model, data, tmp_path, baseline=baseline)
    batch = next(iter(get_dataloader(data, 1)))
    full = {"a": torch.full_like(batch["a"], 1), "row": torch.full_like(batch["row"], 0.01)}
    full |= {key: torch.as_tensor(value).expand(full[key].shape) for key, value in baseline.items()}
    found = DeepLift(model).explain({key: value.to(full[key]) for key, value in full.items()}, **batch)
    assert table(tmp_path, "samples")["baseline_output"][0].as_py() == pytest.approx(
        found.baseline_output.item(), rel=1e-4
    )
    with pytest.raises(CohortError, match=r"identity|baseline: "):
        run(model, data, tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"part_samples": 0}, "part_samples is 0; accepted: an int of 1 or more"),
        ({"budget": -1}, "budget is -1"),
        ({"memory": "2 GB"}, "memory is '2 GB'"),
        ({"limit": True}, "limit is True"),
        ({"read_ahead": -1}, "read_ahead is -1; accepted: an int of 0 or more"),
        ({"progress": "loud"}, "progress is 'loud'; accepted: 'auto', 'bar', 'lines', 'json', 'none'"),
        ({"baseline": {"c": 1}}, r"baseline has the key\(s\) \['c'\]"),
        ({"baseline": torch.zeros(3)}, "baseline is a Tensor"),
        ({"baseline": {"a": 0.5}}, "baseline of feature 'a' is 0.5; accepted: a token index"),
        ({"dimensions": {"c": []}}, r"dimensions has the key\(s\) \['c'\]"),
        ({"target_class_idx": 7}, "target_class_idx is 7"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(options, said, tmp_path):
    data, model = cohort(count=4)
    with pytest.raises(ValueError, match=said):
        run(model, data, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


class Streamed(torch.utils.data.IterableDataset):
    """Samples one by one, with no index."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        yield from (self.data[i] for i in range(len(self.data)))


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("source", ["no batch size", "iterable dataset", "generator"])
def test_samples_may_come_one_by_one(source, ids, tmp_path):
    data, model = cohort()
    data = [{key: value for key, value in data[i].items() if ids or not key.endswith("_id")} for i in range(23)]
    given = {
        "no batch size": lambda: torch.utils.data.DataLoader(data, batch_size=None),
        "iterable dataset": lambda: Streamed(data),
        "generator": lambda: iter(Streamed(data)),
    }[source]
    run(model, given(), tmp_path / "one", limit=12)
    done = run(model, given(), tmp_path / "one")
    assert (done.samples, done.parts) == (23, 5)
    run(model, data, tmp_path / "list", budget=done.budget)
    for name in ("samples", "attributions"):
        assert table(tmp_path / "one", name).equals(table(tmp_path / "list", name))
    with pytest.raises(CohortError, match="yields a list among samples"):
        run(model, iter([data[0], [1]]), tmp_path / "odd")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (7, "7"),
        (np.int64(7), "7"),
        (torch.tensor(7), "7"),
        ("患者 é 😀", "患者 é 😀"),
        ("a\udc80", "a\\udc80"),
        ("a\0b", "a\0b"),
    ],
)
def test_identifiers_of_any_kind_are_texts(given, written, tmp_path):
    data, model = cohort(count=4)
    run(model, [dict(data[i]) | {"patient_id": given, "visit_id": "v" * 100_000} for i in range(4)], tmp_path)
    for name in ("samples", "attributions"):
        assert set(table(tmp_path, name)["patient_id"].to_pylist()) == {written}
    assert set(table(tmp_path, "samples")["visit_id"].to_pylist()) == {"v" * 100_000}


@pytest.mark.parametrize("fuse", [True, False])
def test_a_sample_without_a_label_has_none(fuse, tmp_path):
    data, model = cohort()
    samples = [dict(data[i]) for i in range(23)]
    del samples[4]["label"]
    samples[5]["label"] = None
    samples[9]["label"] = torch.tensor([float("nan")])
    attribute_cohort(DeepLift(model, fuse=fuse), samples, tmp_path, progress="none")
    assert table(tmp_path, "failures").num_rows == 0
    labels = table(tmp_path, "samples")["label"].to_pylist()
    assert [i for i in range(23) if labels[i] is None] == [4, 5, 9]


@pytest.mark.parametrize("out", ["", None, 3])
def test_an_output_that_is_no_place_is_refused(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, model = cohort(count=4)
    with pytest.raises(CohortError, match=r"out is .*; accepted: a folder, or a URL"):
        run(model, data, out)
    assert not list(tmp_path.iterdir())


def test_what_is_no_dataset_is_refused(tmp_path):
    _, model = cohort(count=4)
    for given in (3, "samples", {"a": 1}):
        with pytest.raises(CohortError, match="dataset is a"):
            run(model, given, tmp_path)
    with pytest.raises(CohortError, match="the dataset yields a list"):
        run(model, iter([[1, 2]]), tmp_path)
    with pytest.raises(CohortError, match="interpreter is a MLP"):
        attribute_cohort(model, [], tmp_path)


@pytest.mark.parametrize(("shared", "mode"), [(False, 0o077), (True, 0o022)])
def test_what_is_written_is_for_its_owner_alone_unless_shared(shared, mode, tmp_path):
    data, model = cohort(count=4)
    before = os.umask(0o022)
    try:
        run(model, data, tmp_path / "new" / "out", shared=shared)
    finally:
        os.umask(before)
    for path in (tmp_path / "new", *(tmp_path / "new").rglob("*")):
        granted = stat.S_IMODE(path.stat().st_mode)
        assert granted & mode == 0, path
        assert not shared or granted & 0o044 == 0o044, path


@pytest.mark.parametrize("progress", ["lines", "json", "bar"])
def test_no_identifier_is_ever_shown(progress, tmp_path, capfd, caplog, recwarn):
    samples, model, _ = spoiled()
    run(model, samples, tmp_path, progress=progress)
    shown = "".join(capfd.readouterr()) + caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert "23" in shown
    assert not any(secret in shown for secret in SECRETS)
    assert not any(secret in (tmp_path / "manifest.json").read_text() for secret in SECRETS)


def test_a_model_stays_as_it_was_and_random_numbers_too(tmp_path):
    data, model = cohort(in_memory=False)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    run(model, data, tmp_path, read_ahead=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@contextlib.contextmanager
def largest_file(size):
    """No file may grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_what_is_there_and_says_how_to_go_on(tmp_path, capfd):
    data, model = cohort("StageNet", 60, longest=30)
    run(model, data, tmp_path / "whole", part_samples=20)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "whole" / "attributions").iterdir())]
    kept = sizes.index(max(sizes))
    with largest_file(max(sizes) - 1), pytest.raises(CohortError) as caught:
        run(model, data, tmp_path / "full", part_samples=20)
    assert f"{kept * 20} of 60 samples in {kept} part(s) are kept: free space" in str(caught.value)
    assert not any(secret in str(caught.value) + "".join(capfd.readouterr()) for secret in SECRETS)
    assert not list((tmp_path / "full").rglob(".tmp-*"))
    assert sorted(map(int, manifest(tmp_path / "full")["parts"])) == list(range(kept))
    run(model, data, tmp_path / "full", part_samples=20)
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


@pytest.mark.parametrize("size", [0, 1, 100, 1500])
def test_a_limit_met_at_the_first_write_names_out(tmp_path, size):
    data, model = cohort()
    with largest_file(size), pytest.raises(CohortError) as caught:
        run(model, data, tmp_path / "out")
    assert str(caught.value).startswith(f"out is {tmp_path}/out, where nothing more can be written (File too large)")
    assert "free space there, or raise the limit, and run the same again" in str(caught.value)
    assert run(model, data, tmp_path / "out").samples == 23  # nothing holds the folder


def test_a_limit_met_at_the_first_write_of_a_later_run_keeps_what_is_there(copied):
    data, model, out = copied
    (out / "samples" / "part-000001.parquet").unlink()
    with largest_file(0), pytest.raises(CohortError, match="what was written there before is kept: free space"):
        run(model, data, out)
    assert run(model, data, out).samples == 23


@pytest.mark.parametrize("client", [3, "tcp://127.0.0.1:8786", True, object(), ["localhost"]])
def test_what_is_no_client_is_refused_before_anything_is_written(tmp_path, client):
    pytest.importorskip("distributed")
    data, model = cohort(count=4)
    kind = type(client).__name__
    with pytest.raises(CohortError, match=rf"client is a {kind}; accepted: None, or a dask\.distributed\.Client"):
        run(model, data, tmp_path / "out", client=client)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("status", "waits", "told"), [("closed", True, "is closed; make"), ("running", False, "is asyn")]
)
def test_a_client_that_is_closed_or_does_not_wait_is_refused(tmp_path, monkeypatch, status, waits, told):
    distributed = pytest.importorskip("distributed")
    client = object.__new__(distributed.Client)
    monkeypatch.setattr(distributed.Client, "asynchronous", not waits)
    client.status = status
    data, model = cohort(count=4)
    with pytest.raises(CohortError, match=f"client {told}"):
        run(model, data, tmp_path / "out", client=client)
    client.status = "closed"  # or it is told when it is collected


def test_a_disk_too_full_for_the_manifest_keeps_the_one_before(tmp_path):
    data, model = cohort()
    run(model, data, tmp_path, limit=10)
    before = manifest(tmp_path)["parts"]
    with largest_file((tmp_path / "manifest.json").stat().st_size + 10), pytest.raises(CohortError, match="are kept"):
        run(model, data, tmp_path)
    assert manifest(tmp_path)["parts"] == before
    assert run(model, data, tmp_path).samples == 23


def test_other_places_than_folders(tmp_path):
    import fsspec

    data, model = cohort()
    out = f"memory://{tmp_path.name}"
    run(model, data, out, limit=12)
    run(model, data, out)
    run(model, data, tmp_path)
    files = fsspec.filesystem("memory")
    for name, content in contents(tmp_path).items():
        if name == "manifest.json":
            about = json.loads(files.cat(f"/{tmp_path.name}/{name}"))
            assert about["finished"]
            assert about["identity"] == content["identity"]
        else:
            assert files.cat(f"/{tmp_path.name}/{name}") == content, name
    with pytest.raises(CohortError, match=r"nowhere://x.*fsspec cannot open"):
        run(model, data, "nowhere://x")
