"""What a batch becomes before the model sees it."""

import numpy as np
import pytest
import torch

from deeplift_fast.cohort.attributing import ALIGNMENT, to_device


def laid_at(offset, count=24):
    """A tensor in NumPy's memory, so many bytes beyond an aligned address."""
    memory = np.zeros(4 * count + 2 * ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT + offset
    values = memory[begin : begin + 4 * count].view(np.float32)
    values[:] = np.arange(count)
    return torch.from_numpy(values).reshape(4, -1)


@pytest.mark.parametrize("offset", [0, 4, 16, 32])
def test_what_is_not_aligned_is_copied(offset):
    given = {"a": laid_at(offset), "b": (None, laid_at(offset)), "patient_id": ["p"]}
    assert given["a"].data_ptr() % ALIGNMENT == offset
    moved = to_device(given, torch.device("cpu"))
    for before, after in ((given["a"], moved["a"]), (given["b"][1], moved["b"][1])):
        assert after.data_ptr() % ALIGNMENT == 0
        assert (after.data_ptr() == before.data_ptr()) == (offset == 0)
        assert torch.equal(before, after)
    assert moved["patient_id"] == ["p"]
    assert moved["b"][0] is None
