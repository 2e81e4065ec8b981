"""Constants on a GPU are kept up to a number of bytes."""

import fake_gpu
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from deeplift_fast.core import constants

GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def _gpu(monkeypatch):
    fake_gpu.prepare(monkeypatch)
    constants.clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
    constants.clear()


def test_a_constant_is_made_once():
    first = constants.ramp(4, 2, GPU)
    assert constants.ramp(4, 2, GPU) is first
    assert constants.ramp(4, 2, GPU, first=1) is not first
    assert constants.ramps(4, (0, 8), GPU) is constants.ramps(4, (0, 8), GPU)


def test_the_one_used_least_recently_makes_room(monkeypatch):
    monkeypatch.setattr(constants, "LIMIT", 3 * 80)
    one, two, three = (constants.ramp(10, step, GPU) for step in (1, 2, 3))
    assert constants.ramp(10, 1, GPU) is one
    constants.ramp(10, 4, GPU)
    assert constants.ramp(10, 1, GPU) is one
    assert constants.ramp(10, 3, GPU) is three
    assert constants.ramp(10, 2, GPU) is not two


def test_a_constant_above_the_limit_is_not_kept(monkeypatch):
    monkeypatch.setattr(constants, "LIMIT", 100)
    kept = constants.ramp(10, 1, GPU)
    assert constants.ramp(20, 1, GPU) is not constants.ramp(20, 1, GPU)
    assert constants.ramp(10, 1, GPU) is kept


def test_each_stream_has_its_own(monkeypatch):
    first = constants.ramp(4, 1, GPU)
    monkeypatch.setattr(fake_gpu._Stream, "cuda_stream", 7)
    assert constants.ramp(4, 1, GPU) is not first
