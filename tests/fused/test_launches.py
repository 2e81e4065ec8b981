"""How many kernels StageNet launches on CUDA: counted by running its launchers on a GPU that holds no numbers."""

import contextlib
import warnings

import fake_gpu
import pytest
import torch
from fused_cases import batch_of, dataset, make, patients
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from pyhealth.models import StageNet

from deeplift_fast.ops.triton import (
    convergence,
    gated_sum,
    recurrent,
    recurrent_backward,
    secant,
    stage_window,
    stage_window_backward,
)

LAUNCHERS = {
    "convergence": (convergence, "_convergence_kernel"),
    "gated_sum": (gated_sum, "_gate_kernel"),
    "secant": (secant, "_secant_kernel"),
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
    """A whole call's launches, those of its fused part, and how many steps its features have in all."""
    fake_gpu.prepare(monkeypatch)
    counting = fake_gpu.Launches("cuda")
    for name, (module, kernel) in LAUNCHERS.items():
        monkeypatch.setattr(module, kernel, Kernel(counting.calls))
        monkeypatch.setattr(f"deeplift_fast.ops._{name}", getattr(module, name))
    monkeypatch.setattr("torch.cuda.device_of", lambda tensor: contextlib.nullcontext())
    from deeplift_fast.fused import outcome

    original, part = outcome.run, []

    def run(*args):
        before = len(counting.calls)
        found = original(*args)
        part.append(len(counting.calls) - before)
        return found

    monkeypatch.setattr(outcome, "run", run)
    data = dataset(schema, patients(5, longest=steps))
    model, batch = make(StageNet, data, torch.float32, embedding_dim=16, chunk_size=6), batch_of(data, torch.float32)
    fake_gpu.explained(model, batch, rules, counting=_from_here(counting))
    return len(counting.calls), part[-1], sum(batch[key][1].shape[1] for key in schema)


@contextlib.contextmanager
def _from_here(counting):
    """Without the kernels of the first call, which count themselves."""
    counting.calls.clear()
    with counting:
        yield


LABS, CODES = {"labs": "stagenet_tensor"}, {"codes": "stagenet"}


@pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
@pytest.mark.parametrize(("schema", "around"), [(LABS, 26), (CODES, 28)])
def test_four_launches_a_step_and_forty_for_a_whole_call(schema, around, rules, monkeypatch):
    """With the front end, its checks and the baseline before, and the sums and the read-back after."""
    launches, part, steps = counted(schema, rules, monkeypatch)
    assert 4 * steps < part <= 4 * steps + around
    assert launches <= 4 * steps + 37


@pytest.mark.parametrize(("rules", "around"), [("rescale", 67), ("complete", 65), ("pyhealth", 66)])
def test_a_feature_more_costs_thirty(rules, around, monkeypatch):
    launches, part, steps = counted(CODES | LABS, rules, monkeypatch)
    assert 4 * steps < part <= 4 * steps + 51
    assert launches <= 4 * steps + around


def test_each_step_more_costs_four(monkeypatch):
    found = [counted(LABS, "complete", monkeypatch, steps) for steps in (10, 25)]
    assert [more - less for less, more in zip(*found, strict=True)] == [4 * 15, 4 * 15, 15]


def test_pyhealth_launches_many_times_as_many(monkeypatch):
    schema = CODES | LABS
    launches, _, _ = counted(schema, "rescale", monkeypatch)
    data = dataset(schema, patients(5, longest=20))
    model, batch = make(StageNet, data, torch.float32, embedding_dim=16, chunk_size=6), batch_of(data, torch.float32)
    theirs = fake_gpu.Launches("cpu")
    with warnings.catch_warnings(), theirs:
        warnings.simplefilter("ignore")
        PyHealthDeepLift(model).attribute(**batch)
    assert len(theirs.calls) > 20 * launches
