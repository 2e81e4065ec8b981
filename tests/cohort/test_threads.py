"""Threads while a cohort is attributed: by the model's size, and as before afterwards."""

import pytest
import torch
from torch import nn

from deeplift_fast.cohort.threads import HEAVY, threads_for


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("model", "threads"),
    [
        (nn.Linear(HEAVY, 1, bias=False), 4),
        (nn.Linear(HEAVY - 1, 1, bias=False), 3),
        (nn.Sequential(nn.Embedding(HEAVY, 1), nn.Linear(1, 1)), 3),
    ],
)
def test_small_models_leave_a_core(four_threads, model, threads):
    with threads_for(model):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 4


def test_as_before_after_an_error(four_threads):
    with pytest.raises(RuntimeError, match="broken"), threads_for(nn.Linear(1, 1)):
        raise RuntimeError("broken")
    assert torch.get_num_threads() == 4


def test_one_thread_stays(four_threads):
    torch.set_num_threads(1)
    with threads_for(nn.Linear(1, 1)):
        assert torch.get_num_threads() == 1
