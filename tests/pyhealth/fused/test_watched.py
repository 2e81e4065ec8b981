"""Weights that change where PyTorch keeps no count, as seen on a device: the CPU stands for it."""

import warnings

import pytest
import torch
from fused_cases import MODELS, batch_of, dataset, distance, make
from torch import nn

from deeplift_fast import ConvergenceWarning, DeepLift
from deeplift_fast.core.questions import Later
from deeplift_fast.errors import WeightsChanged
from deeplift_fast.pyhealth.fused.watched import Watched


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch):
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.watched.on_cpu", lambda weight: False)
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.plan.static_on_cpu", True)


def changed(watched):
    later = Later()
    watched.watch(later)
    try:
        later.fetch()
    except WeightsChanged:
        return True
    return False


def swap_rows(weight):
    weight[[0, 1]] = weight[[1, 0]]


def next_number(weight):
    weight[2, 1] = torch.nextafter(weight[2, 1], torch.tensor(9.0))


def flip_signs(weight):
    weight[:, 0] *= -1


def smallest(weight):
    weight[1, 1] = 1e-45


@pytest.mark.parametrize("change", [swap_rows, next_number, flip_signs, smallest])
def test_every_change_is_noticed(change):
    layer = nn.Linear(3, 4)
    layer.weight.data[1, 1] = 0
    watched = Watched([layer, None])
    assert not changed(watched)
    assert not watched.is_outdated()
    change(layer.weight.data)
    assert changed(watched)


def test_weights_that_are_not_numbers_do_not_change():
    layer = nn.Linear(3, 4)
    layer.weight.data[0] = torch.nan
    assert not changed(Watched([layer]))


@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.parametrize("name", ["StageNet", "RNN, GRU, both directions"])
def test_the_call_that_notices_has_the_new_numbers_and_warns_once(name, rules):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    batch, model = batch_of(data), make(kind, data, **sizes)
    interpreter = DeepLift(model, rules=rules, baseline=["unk", "removed"], delta_tol=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = interpreter.explain(**batch)
        for _, weight in model.named_parameters():
            weight.data.copy_(weight.data.flip(0) * 1.2)
        expected = DeepLift(model, rules=rules, baseline=["unk", "removed"], fuse=False).explain(**batch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        found = interpreter.explain(**batch)
    assert distance(found, expected) < 1e-9
    assert distance(before, expected) > 1e-2
    assert len(caught) <= 2  # one for each baseline
    fused = [row for row in found.report if row.operation != "(elsewhere)"]
    assert [(row.rule, row.count) for row in fused] == [("fused", 2 * len(schema))]


@pytest.mark.parametrize("name", ["StageNet", "StageAttentionNet"])
def test_each_packed_weight_alone_is_noticed(name):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    batch, model = batch_of(data), make(kind, data, **sizes)
    interpreter = DeepLift(model, rules="complete", baseline="removed")
    interpreter.explain(**batch)
    for weight in model.stagenet.parameters():
        weight.data.mul_(1.5)
        expected = DeepLift(model, rules="complete", baseline="removed", fuse=False).explain(**batch)
        assert distance(interpreter.explain(**batch), expected) < 1e-9


def test_weights_that_never_rest_are_an_error(monkeypatch):
    kind, schema, sizes = MODELS["StageNet"]
    data = dataset(schema)
    batch, model = batch_of(data), make(kind, data, **sizes)
    interpreter = DeepLift(model, rules="complete")
    monkeypatch.setattr(Watched, "watch", lambda self, questions: questions.ask([torch.tensor(1)], _raise))
    with pytest.raises(RuntimeError, match="the weights of StageNet changed 4 times while a batch was attributed"):
        interpreter.explain(**batch)


def _raise(found):
    raise WeightsChanged("always")
