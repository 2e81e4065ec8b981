"""Autocast, memory and batches on another device."""

import pytest
import torch
from fused_cases import SEQUENCE, batch_of, dataset, make
from pyhealth.models import MLP, Transformer

from deeplift_fast import DeepLift
from deeplift_fast.pyhealth.fused import buffers


def test_under_autocast_the_generic_route_is_taken():
    data = dataset(SEQUENCE)
    model, batch = make(MLP, data, torch.float32, embedding_dim=8), batch_of(data, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, generic = (DeepLift(model, rules="complete", fuse=fuse).explain(**batch) for fuse in (True, False))
    assert all(row.rule != "fused" for row in found.report)
    for key, value in found.contributions.items():
        assert torch.equal(value, generic.contributions[key])


def test_a_batch_on_another_device():
    data = dataset(SEQUENCE)
    model, batch = make(Transformer, data, embedding_dim=8), batch_of(data)
    with pytest.raises(ValueError, match="'a': value is on meta, which holds no numbers"):
        DeepLift(model).attribute(**{**batch, "a": batch["a"].to("meta")})


def test_other_devices_memory_is_left_to_pytorch():
    buffers.clear()
    buffers.give(buffers.take((4, 4), torch.float32, torch.device("meta")))
    assert not buffers._free
