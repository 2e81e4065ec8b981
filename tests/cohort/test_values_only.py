"""Cohorts of models without token features: no text is there for any row's code."""

import pytest
import torch
from cohort_cases import run, table
from fused_cases import patients
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.models import MLP, RNN, StageNet, Transformer

from deeplift_fast.cohort import CohortError
from deeplift_fast.report import summarise

CASES = {
    "MLP, tensor": (MLP, {"row": "tensor"}, {"hidden_dim": 6}),
    "RNN, floats": (RNN, {"floats": "nested_sequence_floats"}, {"hidden_dim": 6}),
    "Transformer, timeseries": (Transformer, {"series": "timeseries"}, {"heads": 1}),
    "RNN, timeseries": (RNN, {"series": "timeseries"}, {"hidden_dim": 6}),
    "StageNet, stagenet_tensor": (StageNet, {"labs": "stagenet_tensor"}, {"chunk_size": 6, "conv_size": 4}),
}


def made(kind, count=12):
    from datetime import datetime, timedelta

    model_class, schema, sizes = CASES[kind]
    samples = []
    for i, each in enumerate(patients(count)):
        steps = each["labs"][1]
        times = [datetime(2024, 1, 1) + timedelta(hours=k) for k in range(len(steps))]
        every = each | {"floats": steps, "series": (times, steps)}
        samples.append({"patient_id": f"p{i}", **{key: every[key] for key in schema}, "label": i % 2})
    data = create_sample_dataset(samples, schema, {"label": "binary"}, dataset_name="values", in_memory=True)
    torch.manual_seed(0)
    return data, model_class(data, embedding_dim=8, **sizes).eval(), next(iter(schema))


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("as_batches", [False, True])
def test_their_tables_are_written_without_codes(kind, as_batches, tmp_path):
    data, model, key = made(kind)
    done = run(model, list(get_dataloader(data, 5)) if as_batches else data, tmp_path, rules="complete")
    assert (done.samples, done.failures) == (12, 0)
    rows = table(tmp_path, "attributions")
    assert set(rows["feature"].to_pylist()) == {key}
    assert rows["code"].null_count == len(rows) > 0
    found = summarise(tmp_path).table
    assert set(found["code"]) == {f"dimension {slot}" for slot in set(rows["slot"].to_pylist())}
    assert set(found["kind"]) == {"value"}


def test_names_can_be_given(tmp_path):
    data, model, _ = made("StageNet, stagenet_tensor")
    run(model, data, tmp_path, dimensions={"labs": ["Na", "K", "Cl"]})
    assert set(table(tmp_path, "attributions")["code"].to_pylist()) == {"Na", "K", "Cl"}


def test_a_part_without_any_sample_left_has_empty_tables(tmp_path):
    data, model, _ = made("MLP, tensor")
    samples = [dict(data[i]) for i in range(12)]
    for each in samples[5:10]:
        each["row"] = each["row"] * float("nan")
    done = run(model, samples, tmp_path)
    assert (done.samples, done.failures, done.parts) == (7, 5, 3)


def test_they_have_no_interactions(tmp_path):
    data, model, _ = made("MLP, tensor", count=4)
    with pytest.raises(CohortError, match="which are between codes, and the model's features hold values"):
        run(model, data, tmp_path / "out", rules="complete", interactions=8)
    assert not (tmp_path / "out").exists()
