"""How many kernels StageNet launches on CUDA: counted by running its launchers on a GPU that holds no numbers."""

import contextlib
import warnings

import fake_gpu
import pytest
import torch
from fused_cases import batch_of, dataset, make, patients
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from pyhealth.models import StageNet

from deeplift_fast.ops.triton import recurrent, recurrent_backward, stage_window, stage_window_backward

LAUNCHERS = {
    "recurrent": (recurrent, "forward_kernel"),
    "recurrent_backward": (recurrent_backward, "stagenet_backward_kernel"),
    "stage_window": (stage_window, "_kernel"),
    "stage_window_backward": (stage_window_backward, "_kernel"),
}


class Kernel:
    """Stands for a Triton kernel, and counts its launches."""

    def __init__(self, calls):
        self.calls = calls

    def __getitem__(self, grid):
        return lambda *args, **options: self.calls.append("kernel")


def counted(schema, rules, monkeypatch, steps=20):
    """The launches of a batch's contributions, and how many steps its features have in all."""
    fake_gpu.prepare(monkeypatch)
    counting = fake_gpu.Launches("cuda")
    for name, (module, kernel) in LAUNCHERS.items():
        monkeypatch.setattr(module, kernel, Kernel(counting.calls))
        monkeypatch.setattr(f"deeplift_fast.ops._{name}", getattr(module, name))
    monkeypatch.setattr("torch.cuda.device_of", lambda tensor: contextlib.nullcontext())
    from deeplift_fast.fused import outcome

    original = outcome.run

    def run(*args):
        counting.calls.clear()
        with counting:
            return original(*args)

    monkeypatch.setattr(outcome, "run", run)
    data = dataset(schema, patients(5, longest=steps))
    model, batch = make(StageNet, data, torch.float32, embedding_dim=16, chunk_size=6), batch_of(data, torch.float32)
    fake_gpu.explained(model, batch, rules, counting=contextlib.nullcontext())
    return len(counting.calls), sum(batch[key][1].shape[1] for key in schema)


@pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
@pytest.mark.parametrize("schema", [{"labs": "stagenet_tensor"}, {"codes": "stagenet"}])
def test_four_launches_a_step_and_forty(schema, rules, monkeypatch):
    launches, steps = counted(schema, rules, monkeypatch)
    assert 4 * steps < launches <= 4 * steps + 40


@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_each_feature_more_costs_as_much_again(rules, monkeypatch):
    launches, steps = counted({"codes": "stagenet", "labs": "stagenet_tensor"}, rules, monkeypatch)
    assert launches <= 4 * steps + 71


def test_each_step_more_costs_four(monkeypatch):
    found = [counted({"labs": "stagenet_tensor"}, "complete", monkeypatch, steps) for steps in (10, 25)]
    assert found[1][0] - found[0][0] == 4 * 15


def test_pyhealth_launches_many_times_as_many(monkeypatch):
    schema = {"codes": "stagenet", "labs": "stagenet_tensor"}
    launches, _ = counted(schema, "rescale", monkeypatch)
    data = dataset(schema, patients(5, longest=20))
    model, batch = make(StageNet, data, torch.float32, embedding_dim=16, chunk_size=6), batch_of(data, torch.float32)
    theirs = fake_gpu.Launches("cpu")
    with warnings.catch_warnings(), theirs:
        warnings.simplefilter("ignore")
        PyHealthDeepLift(model).attribute(**batch)
    assert len(theirs.calls) > 20 * launches
