"""`torch.set_default_device` moves nothing of this package."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._device import _device_constructors

import deeplift_fast
from deeplift_fast import attribute
from deeplift_fast.captum import DeepLift, DeepLiftShap, LayerDeepLift, NeuronDeepLift

SOURCES = sorted(Path(deeplift_fast.__file__).parent.rglob("*.py"))
FACTORIES = {function.__name__ for function in _device_constructors()} | {"Generator"}


def factory_calls(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FACTORIES:
            home = ast.unparse(node.func.value)
            if home == "torch" and "device" not in {keyword.arg for keyword in node.keywords}:
                yield ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_factory_is_called_without_a_device(path):
    assert list(factory_calls(path.read_text())) == []


def test_such_a_call_is_found():
    assert list(factory_calls("x = torch.zeros(3, dtype=d)\ny = torch.ones(2, device=x.device)")) == [
        "torch.zeros(3, dtype=d)"
    ]


@pytest.fixture
def elsewhere():
    """A default device on which nothing can be computed."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("options", [{}, {"steps": 4, "segments_at_once": 2}])
@pytest.mark.parametrize("target", [None, 1, [0, 1, 2, 1, 0]])
def test_attributions_stay_where_their_inputs_are(elsewhere, options, target):
    with torch.device("cpu"):
        model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, 3), nn.Softmax(-1))
        x, x0 = torch.randn(5, 6), torch.zeros(5, 6)
    for rules in ("rescale", "complete"):
        assert attribute(model, x, x0, target, rules=rules, **options).contributions.device.type == "cpu"
    for explainer in (DeepLift, DeepLiftShap):
        if target is not None:
            assert explainer(model).attribute(x, x0, target=target).device.type == "cpu"
    if target is not None:
        assert LayerDeepLift(model, "1", **options).attribute(x, x0, target).device.type == "cpu"
    assert NeuronDeepLift(model, "1", **options).attribute(x, 2, x0).device.type == "cpu"


def test_models_that_mix_samples(elsewhere):
    with torch.device("cpu"):
        x, weight = torch.randn(4, 6), torch.randn(6, 1)
    with pytest.warns(deeplift_fast.InterceptionWarning):
        found = attribute(lambda x: (x * x.max()).exp() @ weight, x, 0.5, 0, rules="complete")
    assert found.contributions.device.type == "cpu"
