"""Integers among a user's arguments."""

import numpy as np
import pytest
import torch

from deeplift_fast.support.integers import as_int


@pytest.mark.parametrize("given", [8, np.int64(8), np.uint8(8), np.array(8), torch.tensor(8)], ids=repr)
def test_integers_become_plain(given):
    assert as_int(given) == 8
    assert type(as_int(given)) is int


@pytest.mark.parametrize(
    "given", [True, np.True_, np.array(True), torch.tensor(True), 8.0, np.float64(8), "8", None, [8]], ids=repr
)
def test_anything_else_is_none(given):
    assert as_int(given) is None
