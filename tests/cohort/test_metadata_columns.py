"""The metadata of samples in the tables, wherever the samples come from."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from batch_tables import batch_tables
from cohort_cases import contents, run, table
from metadata_cases import SAMPLES, SPLIT, STAYS, check_rows, dataset, stagenet
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.models import MLP, Transformer

from deeplift_fast import DeepLift
from deeplift_fast.cohort.samples import stretch_of
from deeplift_fast.core.attribution import Attribution
from deeplift_fast.report import summarise


def check(out):
    """A cohort of `SAMPLES` has their metadata."""
    assert not table(out, "failures").num_rows
    check_rows(table(out, "attributions").to_pylist())
    samples = table(out, "samples").to_pylist()
    assert {row["patient_id"]: row["stays"] for row in samples} == STAYS
    assert {row["patient_id"]: row["split"] for row in samples} == SPLIT


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("part_samples", [1, 2, 5])
def test_a_datasets_metadata_reach_the_tables(in_memory, part_samples, tmp_path):
    data = dataset(in_memory=in_memory)
    options = {"read_ahead": 1} if part_samples == 1 else {}
    run(stagenet(data), data, tmp_path, part_samples=part_samples, **options)
    check(tmp_path)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("kind", ["list", "generator", "shuffled loader"])
def test_a_loaders_metadata_reach_the_tables(batch_size, kind, tmp_path):
    data = dataset()
    loader = get_dataloader(data, batch_size, shuffle=kind == "shuffled loader", seed=3)
    given = {"list": list(loader), "generator": (batch for batch in loader), "shuffled loader": loader}[kind]
    run(stagenet(data), given, tmp_path, part_samples=2)
    check(tmp_path)


def test_single_samples_metadata_reach_the_tables(tmp_path):
    data = dataset()
    run(stagenet(data), (dict(data[i]) for i in range(3)), tmp_path)
    check(tmp_path)


def test_a_resumed_run_has_the_bytes_of_one_run(tmp_path):
    data = dataset()
    run(stagenet(data), data, tmp_path / "resumed", part_samples=1, limit=1)
    run(stagenet(data), data, tmp_path / "resumed", part_samples=1)
    run(stagenet(data), data, tmp_path / "one", part_samples=1)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "one")
    check(tmp_path / "one")


def test_workers_write_the_metadata_too(tmp_path):
    pytest.importorskip("distributed")
    from distributed import Client, LocalCluster

    data = dataset(in_memory=False)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        options = {"part_samples": 1, "splits": {"validation": [1]}}
        run(stagenet(data), data, tmp_path / "cluster", client=client, **options)
    run(stagenet(data), data, tmp_path / "one", **options)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "one")
    check_rows(table(tmp_path / "cluster", "attributions").to_pylist())
    assert table(tmp_path / "cluster", "samples")["split"].to_pylist() == ["train", "validation", "test"]


def test_samples_that_say_nothing_do_not_split_a_group():
    data = dataset()
    assert len(stretch_of([data[i] for i in range(3)], 0, 0).groups) == 1


def test_a_frame_has_them():
    data = dataset()
    batch = next(iter(get_dataloader(data, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DeepLift(stagenet(data), rules="complete").explain(**batch)
    frame = found.to_dataframe()
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    check_rows(rows)
    assert found.top(3)["day"].dtype == np.float32


@pytest.mark.parametrize("sample", range(3))
def test_a_figure_is_drawn_from_the_folder(sample, tmp_path):
    plot = pytest.importorskip("deeplift_fast.plot")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    samples = [each | {"codes_measured": [True] * len(each["codes"][1])} for each in SAMPLES]
    data = dataset(samples)
    run(stagenet(data), data, tmp_path, dimensions={"labs": ["Na", "K"]})
    shown = [text.get_text() for text in plot.timeline(tmp_path, sample=sample).texts]
    assert ("days on which stays began" in shown) == (sample != 1)
    shown = [text.get_text() for text in plot.waterfall(tmp_path, sample=sample).texts]
    assert not any("not measured" in text for text in shown if text.startswith(("A", "B", "C")))
    pyplot.close("all")


def test_features_and_labels_of_such_names_win(tmp_path):
    samples = [
        {
            "patient_id": f"p{i}",
            "a": ["x", "y"][: i + 1],
            "a_days": [0.5, 1.5],  # a feature
            "a_stay": ["one"] * (i + 1),
            "a_measured": i,  # a label
            "stays": ["u", "v"],  # another feature
            "split": "train",
        }
        for i in range(2)
    ]
    schema = {"a": "sequence", "a_days": "tensor", "stays": "multi_hot"}
    data = create_sample_dataset(samples, schema, {"a_measured": "binary"}, in_memory=True)
    model = MLP(data, embedding_dim=4, hidden_dim=4).eval()
    run(model, data, tmp_path)
    rows = table(tmp_path, "attributions").to_pandas()
    assert rows["feature"].value_counts().to_dict() == {"a": 3, "a_days": 4, "stays": 4}
    assert rows["day"].isna().all()
    assert rows["measured"].isna().all()
    assert set(rows.loc[rows["feature"] == "a", "stay"]) == {"one"}
    found = table(tmp_path, "samples")
    assert found["stays"].null_count == 2
    assert found["split"].to_pylist() == ["train", "train"]


def test_steps_of_nested_values_are_those_of_the_first_axis():
    samples = [
        {
            "patient_id": "p0",
            "codes": [[["A", "B"], ["C"]], [["B"]]],
            "codes_days": [10, 20],
            "codes_stay": ["one", "two"],
            "codes_measured": [True, False],
            "label": 0,
        },
        {
            "patient_id": "p1",
            "codes": [[["C"]]],
            "codes_days": [30],
            "codes_stay": None,
            "codes_measured": None,
            "label": 1,
        },
    ]
    data = create_sample_dataset(samples, {"codes": "deep_nested_sequence"}, {"label": "binary"}, in_memory=True)
    model = MLP(data, embedding_dim=4, hidden_dim=4).eval()
    batch = collate_fn_dict_with_padding([data[0], data[1]])
    ones, halves = torch.ones(batch["codes"].shape), torch.full((2,), 0.5)
    found = Attribution({"codes": ones}, halves, halves, halves, torch.zeros(2, dtype=torch.int64))
    _, attributions = batch_tables(model, batch, found)
    rows = [(row["step"], row["code"], row["day"], row["stay"], row["measured"]) for row in attributions.to_pylist()]
    assert rows == [
        (0, "A", 10.0, "one", True),
        (0, "B", 10.0, "one", True),
        (1, "C", 10.0, "one", True),
        (2, "B", 20.0, "two", False),
        (0, "C", 30.0, None, None),
    ]


def test_a_row_of_values_is_one_step(tmp_path):
    samples = [
        {
            "patient_id": f"p{i}",
            "codes": ["a", "b"],
            "row": [1.0, 0.0, 3.0],
            "row_days": [2.5],
            "row_stay": [0],
            "row_measured": [True, True, False],
            "stays": [("only", 0.0)],
            "label": i,
        }
        for i in range(2)
    ]
    data = create_sample_dataset(samples, {"codes": "sequence", "row": "tensor"}, {"label": "binary"}, in_memory=True)
    run(Transformer(data, embedding_dim=4, heads=1).eval(), data, tmp_path)
    rows = table(tmp_path, "attributions").to_pandas()
    mine = rows[(rows["feature"] == "row") & (rows["sample"] == 1)]
    assert mine["day"].tolist() == [2.5] * 3
    assert mine["stay"].tolist() == ["only"] * 3
    assert mine["measured"].tolist() == [True, True, False]
    assert mine["value"].tolist()[:2] == [1.0, 0.0]
    assert pd.isna(mine["value"].iloc[2])


def test_a_summary_counts_measured_values_only(tmp_path):
    data = dataset()
    run(stagenet(data), data, tmp_path, dimensions={"labs": ["Na", "K"]})
    summary = summarise(tmp_path).table
    rows = table(tmp_path, "attributions").to_pandas()
    for name in ("Na", "K"):
        mine = rows[(rows["code"] == name) & (rows["measured"] != False)]  # noqa: E712 (a column of objects)
        (found,) = summary[(summary["code"] == name) & (summary["grouping"] == "overall")].to_dict("records")
        assert found["count"] == len(mine) == 4
        assert found["mean"] == pytest.approx(mine["attribution"].mean(), abs=1e-6)
