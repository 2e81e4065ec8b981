"""The route for GPUs waits for no number, and makes what it needs on the tensors' device."""

import fake_gpu
import pytest
import torch
from fused_cases import MODELS, batch_of, dataset, make
from pyhealth.models import RNN


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
    found = fake_gpu.explained(
        make(kind, data, torch.float32, **sizes), batch_of(data, torch.float32), rules, device, steps
    )
    assert {row.rule for row in found.report} == {"fused"}
    assert {tensor.device for tensor in found.contributions.values()} == {torch.device(device)}
    assert len(read_back) == 2  # before the model checks itself, and before results
