"""Memory that calls hand on to one another."""

import pytest
import torch

from deeplift_fast.fused import workspace


@pytest.fixture(autouse=True)
def _empty():
    workspace.clear()
    yield
    workspace.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_given_back_is_taken_again(dtype):
    first = workspace.take((3, 4, 5), dtype)
    assert first.shape == (3, 4, 5)
    assert first.dtype == dtype
    assert first.is_contiguous()
    address = first.data_ptr()
    workspace.give(first)
    assert workspace.take((2, 5), torch.float32).data_ptr() == address


def test_what_is_in_use_is_not_shared():
    first, second = workspace.take((64,), torch.float32), workspace.take((64,), torch.float32)
    first.fill_(1)
    second.fill_(2)
    assert bool((first == 1).all())


def test_large_buffers_go_back_to_the_system(monkeypatch):
    monkeypatch.setattr(workspace, "LARGEST", 128)
    workspace.give(workspace.take((1000,), torch.float32))
    assert not workspace._free
    workspace.give(workspace.take((8,), torch.float32))
    assert len(workspace._free) == 1


def test_no_more_than_a_few_are_kept():
    for tensor in [workspace.take((8,), torch.float32) for _ in range(9)]:
        workspace.give(tensor)
    assert len(workspace._free) == 4


def test_an_empty_tensor():
    assert workspace.take((0, 5), torch.float32).shape == (0, 5)
