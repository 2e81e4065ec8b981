"""The route for GPUs surveys each feature once, and raises the errors of the other route."""

import pytest
import torch
from fused_cases import STAGENET, batch_of, dataset, make
from pyhealth.models import StageNet

from deeplift_fast import DeepLift
from deeplift_fast.core.questions import NOW, Later
from deeplift_fast.pyhealth.features import read_features


@pytest.fixture
def interpreter(monkeypatch):
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.plan.static_on_cpu", True)
    data = dataset(STAGENET)
    return DeepLift(make(StageNet, data, torch.float32), baseline="unk"), batch_of(data, torch.float32)


@pytest.mark.parametrize(
    ("key", "part", "number", "message"),
    [
        ("labs", 0, float("nan"), "feature 'labs' holds 1 value"),
        ("labs", 1, float("inf"), "feature 'labs' holds 1 value"),
        ("codes", 0, float("nan"), "feature 'codes' holds 1 value"),
        ("codes", 1, 99, r"feature 'codes' holds token indices from 0 to 99"),
        ("codes", 1, -1, r"feature 'codes' holds token indices from -1 to"),
    ],
)
def test_bad_numbers_are_named(interpreter, key, part, number, message):
    interpreter, batch = interpreter
    batch[key][part].reshape(-1)[0] = number
    with pytest.raises(ValueError, match=message):
        interpreter.attribute(**batch)


def test_what_a_survey_finds_is_what_the_other_route_finds(interpreter):
    interpreter, batch = interpreter
    batch["labs"][1][0, 1:] = batch["labs"][0][0, 1:] = 0
    found, other = (read_features(interpreter.model, batch, True, questions) for questions in (Later(), NOW))
    for key, feature in found.items():
        assert feature.survey is not None
        assert other[key].survey is None
        assert torch.equal(feature.real(), other[key].real())
        assert torch.equal(feature.filled, other[key].filled)
        first = feature.at(slice(0, 2))
        assert torch.equal(first.real(), other[key].at(slice(0, 2)).real())
        assert torch.equal(first.survey.ends, feature.survey.real[:2].sum(1).clamp(min=1))


def test_a_batch_with_a_mask_is_not_surveyed(interpreter):
    interpreter, batch = interpreter
    batch["labs"] = (*batch["labs"], torch.ones(batch["labs"][0].shape, dtype=torch.bool))
    found = read_features(interpreter.model, batch, True, Later())
    assert found["labs"].survey is None
    assert found["codes"].survey is not None
