"""Memory that calls hand on to one another."""

import pytest
import torch

from deeplift_fast.pyhealth.fused import buffers


@pytest.fixture(autouse=True)
def _empty():
    buffers.clear()
    yield
    buffers.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_given_back_is_taken_again(dtype):
    first = buffers.take((3, 4, 5), dtype)
    assert first.shape == (3, 4, 5)
    assert first.dtype == dtype
    assert first.is_contiguous()
    address = first.data_ptr()
    buffers.give(first)
    assert buffers.take((2, 5), torch.float32).data_ptr() == address


def test_a_slightly_larger_tensor_fits_too():
    first = buffers.take((900,), torch.float32)
    address = first.data_ptr()
    buffers.give(first)
    assert buffers.take((1000,), torch.float32).data_ptr() == address


def test_what_is_in_use_is_not_shared():
    first, second = buffers.take((64,), torch.float32), buffers.take((64,), torch.float32)
    first.fill_(1)
    second.fill_(2)
    assert bool((first == 1).all())


def test_large_buffers_go_back_to_the_system(monkeypatch):
    monkeypatch.setattr(buffers, "LARGEST", 128)
    buffers.give(buffers.take((1000,), torch.float32))
    assert not buffers._free
    buffers.give(buffers.take((31,), torch.float32))
    assert [len(each) for each in buffers._free] == [128]  # an eighth more would be too large


def test_no_more_than_a_few_are_kept():
    for tensor in [buffers.take((8,), torch.float32) for _ in range(9)]:
        buffers.give(tensor)
    assert len(buffers._free) == 4


def test_an_empty_tensor():
    assert buffers.take((0, 5), torch.float32).shape == (0, 5)
