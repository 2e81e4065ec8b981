"""Which models need no protection, and that the shortcut for them changes no result."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as nn_module
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from deeplift_fast import attribute, register_rule, unregister_rule
from deeplift_fast.captum import DeepLift
from deeplift_fast.core import stateless
from deeplift_fast.core.stateless import is_stateless

FLAT, LINE, PLANE, SPACE = (2, 6), (2, 2, 6), (2, 2, 4, 4), (2, 2, 4, 4, 4)
LAYERS = [
    *((layer, FLAT) for layer in (
        nn.Sequential(nn.Linear(6, 3)), nn.Identity(), nn.Flatten(), nn.Unflatten(1, (2, 3)), nn.Linear(6, 3),
        nn.LayerNorm(6), nn.RMSNorm(6), nn.GroupNorm(2, 6), nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.ELU(),
        nn.CELU(), nn.SELU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Sigmoid(), nn.Tanh(), nn.LogSigmoid(), nn.Softplus(),
        nn.Softsign(), nn.Softmax(1), nn.LogSoftmax(1), nn.Hardtanh(), nn.Hardsigmoid(), nn.Hardswish(), nn.Dropout(),
    )),
    *((layer, LINE) for layer in (
        nn.Conv1d(2, 2, 3), nn.ConvTranspose1d(2, 2, 3), nn.BatchNorm1d(2), nn.Dropout1d(), nn.MaxPool1d(2),
        nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(2), nn.AdaptiveMaxPool1d(2),
    )),
    *((layer, PLANE) for layer in (
        nn.Conv2d(2, 2, 3), nn.ConvTranspose2d(2, 2, 3), nn.BatchNorm2d(2), nn.Dropout2d(), nn.MaxPool2d(2),
        nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2),
    )),
    *((layer, SPACE) for layer in (
        nn.Conv3d(2, 2, 3), nn.ConvTranspose3d(2, 2, 3), nn.BatchNorm3d(2), nn.Dropout3d(), nn.MaxPool3d(2),
        nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(2), nn.AdaptiveMaxPool3d(2),
    )),
]  # fmt: skip
NAMES = [type(layer).__name__ for layer, _ in LAYERS]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(5, 3)).eval()


def total(output):
    return output.flatten(1).sum(1)


def states(model):
    words = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    held = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = [dict(module.__dict__) for module in model.modules()]
    return held, attributes, torch.get_rng_state(), random.getstate(), words["key"].copy(), words["pos"]


def same(a, b):
    if isinstance(a, torch.Tensor | np.ndarray):
        return bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    return all(map(same, a, b)) if isinstance(a, list | tuple) else a is b or a == b


def test_the_list_is_complete():
    assert {type(layer) for layer, _ in LAYERS} == set(stateless._CODE)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=NAMES)
def test_layer_in_evaluation_leaves_everything_as_it_is(layer, shape):
    layer.eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert is_stateless(layer)
    before = states(layer)
    layer(x)
    assert same(before, states(layer))


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=NAMES)
def test_layer_that_varies_in_training_needs_protection_there(layer, shape):
    layer.train()
    before = states(layer)
    layer(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    unchanged = same(before, states(layer))
    layer.load_state_dict(before[0])
    assert is_stateless(layer) == unchanged
    layer.eval()


@pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
def test_shortcut_changes_no_result(rules, monkeypatch):
    model, x = net(), torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    found = attribute(model, x, target=1, rules=rules)
    monkeypatch.setattr("deeplift_fast.core.attribution.is_stateless", lambda *_: False)
    other = attribute(model, x, target=1, rules=rules)
    assert torch.equal(found.contributions, other.contributions)
    assert torch.equal(found.convergence_delta, other.convergence_delta)
    assert repr(found.report.rows) == repr(other.report.rows)  # NaN equals itself there


def test_no_state_is_saved_for_a_stateless_model(monkeypatch):
    monkeypatch.setattr("deeplift_fast.core.isolation.RandomState", lambda devices: pytest.fail("saved"))
    model = net()
    attribute(model, torch.ones(1, 6), target=0)
    attribute(model, torch.ones(1, 6), target=0, modules=[model])
    DeepLift(model).attribute(torch.ones(1, 6), target=0)


def subclass(model):
    class Mine(nn.Linear):
        pass

    model.append(Mine(3, 3))


def own_forward(model):
    model[0].forward = lambda x: x[:, :5]


def tensor_attribute(model):
    model[1].seen = torch.zeros(1)


def tensor_in_place_of_a_parameter(model):
    weight = model[0].weight.detach()
    del model[0].weight
    model[0].weight = weight


def subclass_of_parameter(model):
    class Mine(nn.Parameter):
        pass

    model[0].weight = Mine(model[0].weight.detach())


def parameter_of_inference_mode(model):
    with torch.inference_mode():
        model[0].bias = nn.Parameter(torch.zeros(5))


def parametrization(model):
    parametrize.register_parametrization(model[0], "weight", nn.Identity())


def own_module(model):
    model.append(type("Own", (nn.Module,), {"forward": lambda self, x: x})())


CHANGES = {
    "subclass": subclass,
    "forward": own_forward,
    "tensor": tensor_attribute,
    "tensor as weight": tensor_in_place_of_a_parameter,
    "parameter subclass": subclass_of_parameter,
    "inference": parameter_of_inference_mode,
    "parametrization": parametrization,
    "own module": own_module,
    "forward hook": lambda model: model[3].register_forward_hook(lambda *_: None),
    "forward pre-hook": lambda model: model.register_forward_pre_hook(lambda *_: None),
    "backward hook": lambda model: model[0].register_full_backward_hook(lambda *_: None),
    "backward pre-hook": lambda model: model[0].register_full_backward_pre_hook(lambda *_: None),
    "compile": lambda model: model.compile(),
    "training": lambda model: model.train(),
    "random": lambda model: model.append(nn.RReLU()),
    "statistics": lambda model: model.append(nn.BatchNorm1d(3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_model_needs_protection(change):
    model = net()
    assert is_stateless(model)
    CHANGES[change](model)
    assert not is_stateless(model)


def test_callable_or_method_needs_protection():
    assert not is_stateless(torch.relu)
    assert not is_stateless(net().forward)
    assert not is_stateless(None)
    assert not is_stateless(torch.jit.trace(net(), torch.ones(1, 6)))


CODE = [
    (nn.Linear, "forward"),
    (nn.Linear, "__call__"),
    (nn.Module, "__call__"),
    (nn.Module, "_call_impl"),
    (nn.Module, "__getattr__"),
    (nn.Sequential, "__iter__"),
    (nn.Conv1d, "_conv_forward"),
    (nn.functional, "linear"),
    (nn.functional, "conv1d"),
    (torch, "sigmoid"),
]


@pytest.mark.parametrize(("owner", "name"), CODE, ids=[f"{owner.__name__}.{name}" for owner, name in CODE])
def test_replaced_code_needs_protection(owner, name, monkeypatch):
    model, own = net().append(nn.Conv1d(1, 1, 1)).append(nn.Sigmoid()), getattr(owner, name)
    assert is_stateless(model)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: own(*args, **kwargs))
    assert not is_stateless(model)


class Drawing(torch.Tensor):
    drawn: list[float] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is nn.functional.linear:
            cls.drawn.append(float(torch.rand(1)))
        return super().__torch_function__(func, types, args, kwargs or {})


def test_tensors_with_code_of_their_own_see_one_state_in_both_streams():
    model, x, x0 = net()[:1], torch.ones(2, 6).as_subclass(Drawing), torch.zeros(2, 6).as_subclass(Drawing)
    attribute(model, x, x0, target=0)
    assert len(Drawing.drawn) >= 2
    assert len(set(Drawing.drawn)) == 1
    assert not is_stateless(model, [torch.ones(1), x])


class Watching(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Dispatching(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "state", [Watching, Dispatching, lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.device("cpu")]
)
def test_code_of_the_user_around_the_call_needs_protection(state):
    with state():
        assert not is_stateless(net())
    assert is_stateless(net())


def test_global_hook_needs_protection():
    handle = nn_module.register_module_forward_hook(lambda *_: None)
    assert not is_stateless(net())
    handle.remove()
    assert is_stateless(net())


def drawing(output):
    torch.rand(1)
    random.random()
    return total(output)


def test_target_that_draws_is_protected():
    model = net()
    before = states(model)
    attribute(model, torch.ones(2, 6), target=drawing)
    assert same(before, states(model))


def test_registered_function_that_draws_is_protected():
    @register_rule(torch.nn.functional.mish)
    def mish(x, inplace=False):
        torch.rand(1)
        return x * torch.tanh(torch.nn.functional.softplus(x))

    model = nn.Sequential(nn.Linear(6, 2), nn.Mish()).eval()
    before = states(model)
    try:
        attribute(model, torch.ones(2, 6), target=0, rules="complete")
    finally:
        unregister_rule(torch.nn.functional.mish)
    assert same(before, states(model))


def test_module_that_holds_itself_ends_in_its_own_error():
    model = net()
    model.insert(0, model)
    with pytest.raises(RecursionError):
        attribute(model, torch.ones(1, 6), target=0)
