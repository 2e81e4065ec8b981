"""The route for GPUs waits for no number, and makes what it needs on the tensors' device."""

import fake_gpu
import pytest
import torch
from fused_cases import MODELS, STAGENET, batch_of, dataset, make
from pyhealth.models import RNN, StageNet

from deeplift_fast.pyhealth.fitted_baselines import FittedBaseline, FittedEmbedding, FittedValues


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
@pytest.mark.parametrize(("rules", "steps"), [("rescale", 1), ("complete", 1), ("complete", 2), ("pyhealth", 1)])
@pytest.mark.parametrize("name", MODELS)
def test_no_number_is_waited_for(name, rules, steps, device, monkeypatch):
    kind, schema, sizes = MODELS[name]
    if rules == "pyhealth" and (kind is RNN or "nested" in name or "row" in schema):
        pytest.skip("PyHealth's class does not take it")
    if "elu" in name:
        pytest.skip("its derivative is autograd's, which needs a true GPU")
    if device == "cuda:1" and (rules, steps) != ("complete", 1):
        pytest.skip("seen on the other device")
    read_back = fake_gpu.prepare(monkeypatch)
    data = dataset(schema)
    waits = fake_gpu.Waits() if (rules, steps, device) == ("complete", 1, "cuda:0") else None
    model, batch = make(kind, data, torch.float32, **sizes), batch_of(data, torch.float32)
    found = fake_gpu.explained(model, batch, rules, device, steps, waits)
    if waits is not None:
        assert waits.calls == ["to the CPU"]
        assert len(read_back) == 3  # one for the second call
        del read_back[2]
    assert {row.rule for row in found.report} == {"fused"}
    assert {tensor.device for tensor in found.contributions.values()} == {torch.device(device)}
    assert len(read_back) == 2  # before the model checks itself, and before results


FITTED = FittedBaseline(
    "mean",
    (
        ("codes", FittedEmbedding("codes", (0.5,) * 8)),
        ("labs", FittedValues("labs", "mean", (0.5, None, 1.0), (1.0, None, 1.0), (3, 0, 3))),
    ),
    6,
    6,
)


@pytest.mark.parametrize(
    "baseline",
    [
        "removed",
        {"labs": 0.5, "codes": 2},
        {"labs": torch.ones(3), "codes": torch.ones(8)},
        FITTED,
        ["unk", "removed", FITTED],
    ],
    ids=["removed", "numbers", "one step", "fitted", "several"],
)
def test_a_call_waits_once_whatever_the_baseline(baseline, monkeypatch):
    fake_gpu.prepare(monkeypatch)
    data, waits = dataset(STAGENET), fake_gpu.Waits()
    model = make(StageNet, data, torch.float32, embedding_dim=8, chunk_size=6)
    fake_gpu.explained(model, batch_of(data, torch.float32), "complete", counting=waits, baseline=baseline)
    assert waits.calls == ["to the CPU"]


def test_flags_and_masks_from_the_cpu_are_not_waited_for(monkeypatch):
    fake_gpu.prepare(monkeypatch)
    data, waits = dataset(STAGENET), fake_gpu.Waits()
    batch = batch_of(data, torch.float32)
    batch["labs_measured"] = [None, *[torch.ones(batch["labs"][1].shape[1], 3, dtype=torch.bool).numpy()] * 5]
    model = make(StageNet, data, torch.float32, embedding_dim=8, chunk_size=6)
    mask = torch.ones(batch["labs"][1].shape, dtype=torch.bool)
    fake_gpu.explained(model, batch, "complete", counting=waits, baseline=FITTED, at_baseline={"labs": mask})
    assert waits.calls == ["to the CPU"]
