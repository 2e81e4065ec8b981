"""The device that a model is on."""

import pytest
import torch
from torch import nn

from deeplift_fast.core.devices import device_of


class Other:
    """No module, but with parameters."""

    def parameters(self):
        return iter([torch.ones(1, device="meta")])


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(2, 2, device="meta"),
        nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2, device="meta")), nn.Linear(2, 2)),
        nn.ModuleDict({"none": nn.BatchNorm1d(2, affine=False), "some": nn.Linear(2, 2, device="meta")}),
        Other(),
    ],
)
def test_is_that_of_the_first_parameter(model):
    assert device_of(model) == next(model.parameters()).device == torch.device("meta")


def test_a_model_without_parameters_has_none():
    with pytest.raises(StopIteration):
        device_of(nn.ReLU())
