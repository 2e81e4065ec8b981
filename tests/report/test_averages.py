"""Averages are over what is there: measured values, and attributions to one target."""

from types import SimpleNamespace

import cohort_folders as cohorts
import numpy as np
import pytest
import torch
from cohort_cases import cohort, run, table
from pyhealth.datasets import create_sample_dataset
from pyhealth.models import MLP, RNN
from rich.console import Console

from deeplift_fast.core.attribution import Attribution
from deeplift_fast.report import summarise
from deeplift_fast.report.show import show


def of(summary, **fields):
    rows = summary.table
    for name, value in fields.items():
        rows = rows[rows[name] == value]
    return rows


def attributed(out):
    rows = table(out, "attributions").to_pandas()
    return rows.merge(table(out, "samples").to_pandas()[["sample", "target", "label"]], on="sample")


LABS = [[140.0, 0.0], [0.0, 4.0], [138.0, 0.0], [0.0, 0.0], [139.0, 3.0]]
"""Sodium and potassium; 0 where nothing was measured."""


def labs(count=12):
    samples = [
        {"patient_id": f"p{i}", "labs": [LABS[(i + k) % 5] for k in range(3)] + [[1.0 + i, 2.0]], "label": i % 2}
        for i in range(count)
    ]
    schema = {"labs": "nested_sequence_floats"}
    data = create_sample_dataset(samples, schema, {"label": "binary"}, dataset_name="labs", in_memory=True)
    torch.manual_seed(0)
    return data, RNN(data, embedding_dim=8, hidden_dim=6).eval()


NAMES = {"labs": ["Sodium", "Potassium"]}


def test_a_labs_mean_is_over_measured_steps(tmp_path):
    data, model = labs()
    run(model, data, tmp_path, rules="complete", dimensions=NAMES)
    rows = attributed(tmp_path)
    values = torch.cat([data[i]["labs"] for i in range(12)])
    found = of(summarise(tmp_path), grouping="overall").set_index("code")
    for place, name in enumerate(NAMES["labs"]):
        mine = rows[(rows["code"] == name) & rows["value"].notna()]
        assert found.loc[name, "count"] == len(mine) == int((values[:, place] != 0).sum())
        assert found.loc[name, "mean"] == pytest.approx(mine["attribution"].astype(float).mean(), rel=1e-5)
        assert found.loc[name, "count"] < (rows["code"] == name).sum()


def test_what_the_samples_say_was_measured_counts(tmp_path):
    """A zero that was measured counts, and a gap that was filled does not."""
    data, model = labs()
    samples = []
    for i in range(12):
        said = torch.zeros(4, 2, dtype=torch.bool)
        said[0] = torch.tensor([True, i % 2 == 0])
        samples.append(dict(data[i]) | {"labs_measured": said})
    run(model, samples, tmp_path, rules="complete", dimensions=NAMES)
    found = of(summarise(tmp_path), grouping="overall").set_index("code")
    assert found["count"].to_dict() == {"Sodium": 12, "Potassium": 6}
    rows = attributed(tmp_path)
    mine = rows[(rows["code"] == "Potassium") & (rows["step"] == 0) & (rows["sample"] % 2 == 0)]
    assert found.loc["Potassium", "mean"] == pytest.approx(mine["attribution"].astype(float).mean(), rel=1e-5)
    assert mine["value"].tolist() == [data[i]["labs"][0, 1].item() for i in range(0, 12, 2)]


def test_zeros_of_a_tensor_feature_were_measured(tmp_path):
    samples = [{"patient_id": f"p{i}", "row": [float(i % 3), 1.0], "label": i % 2} for i in range(12)]
    data = create_sample_dataset(samples, {"row": "tensor"}, {"label": "binary"}, dataset_name="rows", in_memory=True)
    torch.manual_seed(0)
    run(MLP(data, embedding_dim=8, hidden_dim=6), data, tmp_path, rules="complete")
    assert of(summarise(tmp_path), grouping="overall")["count"].tolist() == [12, 12]


def test_a_dimension_that_was_never_measured_has_no_row(tmp_path):
    found, rows = cohorts.draw()
    rows.loc[rows["code"] == "Potassium", "value"] = None
    summary = summarise(cohorts.write(tmp_path / "out", found, rows))
    assert "Potassium" not in set(summary.table["code"])
    assert "Sodium" in set(summary.table["code"])


def test_how_many_were_measured_is_printed(tmp_path):
    data, model = labs()
    run(model, data, tmp_path, rules="complete", dimensions=NAMES)
    found = of(summarise(tmp_path), grouping="overall").set_index("code")
    console = Console(width=200)
    with console.capture() as captured:
        show(summarise(tmp_path), console, min_samples=1)
    head, line = (
        next(line for line in captured.get().splitlines() if word in line) for word in (" count ", "Potassium")
    )
    end = head.index(" count ") + len(" count")
    assert line[:end].split()[-1] == str(found.loc["Potassium", "count"])
    assert "a value counts where it was measured" in captured.get()


def test_targets_of_three_classes_are_not_averaged_together(tmp_path):
    data, model = cohort("MLP", count=40, label="multiclass", samples=three_classes(40))
    run(model, data, tmp_path, part_samples=9)
    rows = attributed(tmp_path)
    assert rows["target"].nunique() > 1
    summary = summarise(tmp_path)
    assert set(summary.table["grouping"]) == {"target", "label"}
    seen = 0
    for target, mine in rows.groupby("target"):
        check(of(summary, grouping="target", group=str(target)), mine)
        for label, few in mine.groupby("label"):
            check(of(summary, grouping="label", group=f"{label:g}, target = {target}"), few)
            seen += len(few)
    assert seen == len(rows)
    assert of(summary, grouping="target")["count"].sum() == len(rows)
    assert any("different targets" in note for note in summary.notes)


def check(found, rows):
    keys = ["feature", "code"]
    means = rows.astype(dict.fromkeys(keys, str)).groupby(keys)["attribution"].agg(["mean", "size"]).sort_index()
    table = found.astype(dict.fromkeys(keys, str)).set_index(keys).sort_index()
    assert table.index.tolist() == means.index.tolist()
    assert table["mean"].tolist() == pytest.approx(means["mean"].tolist(), rel=1e-4, abs=1e-7)
    assert table["count"].tolist() == means["size"].tolist()


def three_classes(count):
    from cohort_cases import raw

    return [each | {"label": ["home", "ward", "icu"][i % 3]} for i, each in enumerate(raw(count, {"a": 0, "b": 0}))]


def test_one_target_needs_no_groups(tmp_path):
    data, model = cohort("MLP", count=20, label="multiclass", samples=three_classes(20))
    run(model, data, tmp_path, target_class_idx=2)
    assert set(summarise(tmp_path).table["grouping"]) == {"overall", "label"}


def test_groups_of_a_column_are_cut_by_target(tmp_path):
    from deeplift_fast.report.grouping import UNLISTED, read_grouping

    found, rows = cohorts.draw()
    found["target"] = found["sample"] % 3
    (tmp_path / "f.csv").write_text("visit_id,ward\nvisit-4,A\nvisit-5,A\n")
    out = cohorts.write(tmp_path / "out", found, rows)
    summary = summarise(out, by=[read_grouping(f"{tmp_path}/f.csv:ward")])
    groups = set(of(summary, grouping="ward")["group"])
    assert groups == {"A, target = 1", "A, target = 2", *(f"{UNLISTED}, target = {n}" for n in range(3))}
    assert [note for note in summary.notes if "no sample's" in note] == []


def test_too_many_targets_are_said_and_not_averaged(tmp_path):
    found, rows = cohorts.draw(samples=80)
    found["target"] = found["sample"]
    summary = summarise(cohorts.write(tmp_path / "out", found, rows))
    assert summary.table.empty
    assert any("targets take more than 50 values" in note for note in summary.notes)


AREAS = ["north", "south", "east", "west"]


def test_rows_of_a_multi_hot_feature_name_their_category(tmp_path):
    samples = [{"patient_id": f"p{i}", "area": [AREAS[i % 4], AREAS[i % 3]], "label": i % 2} for i in range(12)]
    schema = {"area": "multi_hot"}
    data = create_sample_dataset(samples, schema, {"label": "binary"}, dataset_name="areas", in_memory=True)
    torch.manual_seed(0)
    model = MLP(data, embedding_dim=8, hidden_dim=6)
    run(model, data, tmp_path / "out", rules="complete")
    rows = table(tmp_path / "out", "attributions")
    assert set(zip(rows["sample"].to_pylist(), rows["code"].to_pylist(), strict=True)) == {
        (i, code) for i, each in enumerate(samples) for code in each["area"]
    }
    found = of(summarise(tmp_path / "out"), grouping="overall")
    assert set(found["code"]) == set(AREAS)
    assert np.isfinite(found["mean"]).all()
    names = ["E", "N", "S", "W"]  # a user's own names stand in their place
    run(model, data, tmp_path / "named", rules="complete", dimensions={"area": names})
    assert set(table(tmp_path / "named", "attributions")["code"].to_pylist()) == set(names)


def test_rows_of_nested_multi_hot_features_name_their_category():
    from batch_tables import batch_tables
    from pyhealth.processors import NestedMultiHotProcessor

    processor = NestedMultiHotProcessor()
    visits = [["north", "west"], ["south"]]
    processor.fit([{"area": visits}], "area")
    value = processor.process(visits)[None]
    model = torch.nn.Linear(1, 1)
    model.feature_keys, model.dataset = ["area"], SimpleNamespace(input_processors={"area": processor})
    model.label_keys = ["label"]
    zero = torch.zeros(1)
    found = Attribution({"area": torch.ones_like(value)}, zero, zero, zero, zero.long())
    rows = batch_tables(model, {"area": value}, found)[1].to_pylist()
    assert {(row["step"], row["code"]) for row in rows if row["value"]} == {(0, "north"), (0, "west"), (1, "south")}
