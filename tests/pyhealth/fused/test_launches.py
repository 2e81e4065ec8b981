"""How many kernels StageNet launches on CUDA: counted by running its launchers on a GPU that holds no numbers."""

import contextlib
import importlib
import warnings

import fake_gpu
import pytest
import torch
from fused_cases import THREE, batch_of, dataset, make, patients, with_vitals
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from pyhealth.models import StageNet

from deeplift_fast import ops
from deeplift_fast.ops.specs import stem_of
from deeplift_fast.ops.triton import (
    convergence,
    gated_sum,
    recurrent,
    secant,
    stage_window,
)

LAUNCHERS = {
    "convergence": (convergence, "_convergence_kernel"),
    "gated_sum": (gated_sum, "_gate_kernel"),
    "secant": (secant, "_secant_kernel"),
    "lockstep": (recurrent, "forward_kernel"),
    "lockstep_backward": (recurrent, "backward_kernel"),
    "recurrent": (recurrent, "forward_kernel"),
    "recurrent_backward": (recurrent, "backward_kernel"),
    "stage_window": (stage_window, "_kernel"),
    "stage_window_backward": (stage_window, "_backward_kernel"),
}


class Kernel:
    """Stands for a Triton kernel, and counts its launches."""

    def __init__(self, calls):
        self.calls = calls

    def __getitem__(self, grid):
        return lambda *args, **options: self.calls.append("kernel")


def counted(schema, rules, monkeypatch, steps=20, vitals=9):
    """A whole call's launches, those of its fused part, and how many steps each feature has."""
    fake_gpu.prepare(monkeypatch)
    counting = fake_gpu.Launches("cuda")
    for name, (module, kernel) in LAUNCHERS.items():
        monkeypatch.setattr(module, kernel, Kernel(counting.calls))
        launcher = importlib.import_module(f"deeplift_fast.ops.triton.{stem_of(name)}")
        for where in (ops, ops.unchecked):
            monkeypatch.setattr(where, name, getattr(launcher, name))
    monkeypatch.setattr("torch.cuda.device_of", lambda tensor: contextlib.nullcontext())
    from deeplift_fast.pyhealth.fused import run as running

    original, part = running.run, []

    def run(*args):
        before = len(counting.calls)
        found = original(*args)
        part.append(len(counting.calls) - before)
        return found

    monkeypatch.setattr(running, "run", run)
    data = dataset(schema, with_vitals(patients(5, longest=steps), vitals))
    model, batch = make(StageNet, data, torch.float32, embedding_dim=16, chunk_size=6), batch_of(data, torch.float32)
    fake_gpu.explained(model, batch, rules, counting=_from_here(counting))
    return len(counting.calls), part[-1], [batch[key][1].shape[1] for key in schema]


@contextlib.contextmanager
def _from_here(counting):
    """Without the kernels of the first call, which count themselves."""
    counting.calls.clear()
    with counting:
        yield


STEP = 2  # launches of a step of all features together: one in each direction
LABS, CODES = {"labs": "stagenet_tensor"}, {"codes": "stagenet"}


# The front end, its checks and the baseline, the watch over the weights, the sums and the read-back come on top of the
# fused part.
@pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
@pytest.mark.parametrize(("schema", "around", "whole"), [(LABS, 27, 37), (CODES, 26, 36)])
def test_two_launches_a_step_and_about_forty_for_a_whole_call(schema, around, whole, rules, monkeypatch):
    launches, part, (steps,) = counted(schema, rules, monkeypatch)
    assert STEP * steps < part <= STEP * steps + around
    assert launches <= STEP * steps + whole


@pytest.mark.parametrize(("rules", "around"), [("rescale", 42), ("complete", 40), ("pyhealth", 46)])
def test_two_features_take_their_steps_together(rules, around, monkeypatch):
    launches, part, steps = counted(CODES | LABS, rules, monkeypatch)
    assert steps == [4, 20]
    assert STEP * 20 < part <= STEP * 20 + 32
    assert launches <= STEP * 20 + around


@pytest.mark.parametrize(("rules", "around"), [("rescale", 49), ("complete", 46), ("pyhealth", 55)])
def test_a_third_feature_costs_less_than_ten(rules, around, monkeypatch):
    launches, _, steps = counted(THREE, rules, monkeypatch)
    assert sorted(steps) == [4, 9, 20]
    assert launches <= STEP * 20 + around


@pytest.mark.parametrize(("schema", "vitals"), [(LABS, 9), (CODES | LABS, 9), (THREE, 9), (THREE, 2)])
def test_each_step_more_of_the_longest_feature_costs_two(schema, vitals, monkeypatch):
    found = [counted(schema, "complete", monkeypatch, steps, vitals)[:2] for steps in (10, 25)]
    assert [more - less for less, more in zip(*found, strict=True)] == [STEP * 15, STEP * 15]


def test_steps_of_a_shorter_feature_cost_nothing(monkeypatch):
    found = [counted(THREE, "complete", monkeypatch, vitals=vitals)[:2] for vitals in (3, 15)]
    assert found[0] == found[1]


def test_the_watch_over_the_weights_takes_three(monkeypatch):
    watched = counted(CODES | LABS, "complete", monkeypatch)[0]
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.watched.Watched.watch", lambda self, questions: None)
    assert watched - counted(CODES | LABS, "complete", monkeypatch)[0] == 3


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
