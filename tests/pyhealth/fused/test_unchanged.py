"""A call after the first compares a model with copies of its attributes, and misses no change."""

import pytest
import torch
from fused_cases import SEQUENCE, batch_of, dataset, make
from pyhealth.models import MLP
from torch import nn

from deeplift_fast import DeepLift
from deeplift_fast.pyhealth.fused.plan import plan_for


@pytest.fixture
def model():
    """An MLP after its first call."""
    data = dataset(SEQUENCE)
    model = make(MLP, data, embedding_dim=8, hidden_dim=6)
    DeepLift(model, baseline="unk").attribute(**batch_of(data))
    assert plan_for(model).seen(model)
    return model


def nothing(*args):
    """A hook."""


CHANGES = {
    "forward hook": lambda model: model.mlp["a"][0].register_forward_hook(nothing),
    "hook before forward": lambda model: model.mlp["a"][0].register_forward_pre_hook(nothing),
    "backward hook": lambda model: model.fc.register_full_backward_hook(nothing),
    "hook before backward": lambda model: model.fc.register_full_backward_pre_hook(nothing),
    "hook of the model itself": lambda model: model.register_forward_hook(nothing),
    "hook of all modules": lambda model: nn.modules.module.register_module_forward_hook(nothing),
    "module": lambda model: setattr(model, "fc", nn.Linear(12, 3).double()),
    "module in a chain": lambda model: model.mlp["a"].__setitem__(1, nn.Tanh()),
    "further module": lambda model: model.mlp["a"].append(nn.ReLU()),
    "training": lambda model: model.mlp["a"][0].train(),
    "training of the model itself": lambda model: setattr(model, "training", True),
    "method": lambda model: setattr(model.fc, "forward", nothing),
    "method of the model itself": lambda model: setattr(model, "forward", nothing),
    "option": lambda model: setattr(model.embedding_model.embedding_layers["a"], "max_norm", 1.0),
    "weight that is no parameter": lambda model: model.fc.__dict__.update(weight=torch.ones(3, 12)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(model, change):
    handle = CHANGES[change](model)
    try:
        assert not plan_for(model).seen(model)
    finally:
        if hasattr(handle, "remove"):
            handle.remove()


def test_a_changed_class_is_noticed(model, monkeypatch):
    monkeypatch.setattr(nn.Linear, "forward", nothing)
    assert not plan_for(model).seen(model)


def test_another_array_is_a_change(model):
    """Its comparison has many results."""
    model.fc.scale = torch.ones(2)
    DeepLift(model, baseline="unk").attribute(**batch_of(dataset(SEQUENCE)))
    assert plan_for(model).seen(model)
    model.fc.scale = torch.ones(2)
    assert not plan_for(model).seen(model)


def test_another_parameter_of_equal_numbers_is_packed_anew(model):
    batch = batch_of(dataset(SEQUENCE))
    fused = plan_for(model)._fused
    model.fc.weight = nn.Parameter(model.fc.weight.detach().clone())
    DeepLift(model, baseline="unk").attribute(**batch)
    assert plan_for(model)._fused is not fused
    assert plan_for(model).seen(model)
