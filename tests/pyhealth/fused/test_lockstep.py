"""StageNet's features in lockstep, as on a GPU, against the generic route."""

import pytest
import torch
from fused_cases import STAGENET, THREE, batch_of, both_routes, dataset, distance, make, patients, with_vitals
from pyhealth.models import StageAttentionNet, StageNet

from deeplift_fast import ops
from deeplift_fast.pyhealth.fused.lockstep import Group

SIZES = {"embedding_dim": 8, "chunk_size": 6, "levels": 2}
RUNS = [("rescale", 1), ("rescale", 2), ("complete", 1), ("complete", 3), ("pyhealth", 1)]


@pytest.fixture(autouse=True)
def groups(monkeypatch):
    """How many layers went in lockstep, and how many steps each had, of every run."""
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.plan.static_on_cpu", True)
    found, run = [], Group.run

    def recorded(self, given, *rest):
        found.append([each.mask.shape[1] for each in given])
        return run(self, given, *rest)

    monkeypatch.setattr(Group, "run", recorded)
    return found


def agree(schema, samples, rules, steps):
    data = dataset(schema, samples)
    fused, generic = both_routes(make(StageNet, data, **SIZES), batch_of(data), rules, steps=steps)
    assert distance(fused, generic) < 1e-9
    torch.testing.assert_close(fused.output, generic.output, rtol=0, atol=1e-9)
    torch.testing.assert_close(fused.baseline_output, generic.baseline_output, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("rules", "steps"), RUNS)
@pytest.mark.parametrize("longest", [14, 4, 1])
@pytest.mark.parametrize("turned", [False, True])
def test_two_features(turned, longest, rules, steps, groups):
    """Labs of more steps than codes (4), of as many, and of fewer; either feature is the first."""
    schema = dict(reversed(STAGENET.items())) if turned else STAGENET
    agree(schema, patients(longest=longest), rules, steps)
    assert groups
    assert all(sorted(each) == sorted((4, longest)) for each in groups)


@pytest.mark.parametrize(("rules", "steps"), RUNS)
@pytest.mark.parametrize("longest", [1, 4, 9, 20])
def test_three_features(longest, rules, steps, groups):
    agree(THREE, with_vitals(patients(), longest), rules, steps)
    assert groups
    assert all(each == [longest, 4, 14] for each in groups)


@pytest.mark.parametrize("sizes", [{"conv_size": 3}, {"chunk_size": 4, "levels": 3}, {"chunk_size": 12, "levels": 1}])
@pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
def test_layers_of_different_sizes_go_one_after_the_other(rules, sizes, groups):
    data = dataset(STAGENET)
    model, other = make(StageNet, data, **SIZES), make(StageNet, data, **{**SIZES, **sizes})
    model.stagenet["labs"] = other.stagenet["labs"]
    fused, generic = both_routes(model, batch_of(data), rules)
    assert distance(fused, generic) < 1e-9
    assert not groups


def test_layers_without_a_bias_go_one_after_the_other(groups):
    data = dataset(STAGENET)
    model = make(StageNet, data, **SIZES)
    for layer in model.stagenet.values():
        layer.nn_conv.bias = None
    fused, generic = both_routes(model, batch_of(data), "complete")
    assert distance(fused, generic) < 1e-9
    assert not groups


def test_attention_goes_one_after_the_other(groups):
    data = dataset(STAGENET)
    model = make(StageAttentionNet, data, **SIZES | {"chunk_size": 8})
    fused, generic = both_routes(model, batch_of(data), "complete")
    assert distance(fused, generic) < 1e-9
    assert not groups


def test_one_feature_is_a_group_of_its_own(groups):
    agree({"labs": "stagenet_tensor"}, patients(longest=14), "complete", 1)
    assert groups
    assert all(each == [14] for each in groups)


@pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
def test_nothing_past_a_samples_end_reaches_a_result(rules, monkeypatch):
    """On CUDA such rows have any content."""
    original, poisoned = ops.lockstep, []

    def lockstep(projected, where, steps, order, lengths, column_of, weight, bias, k, *rest):
        found = original(projected, where, steps, order, lengths, column_of, weight, bias, k, *rest)
        for layer, (count, column) in enumerate(zip(steps, column_of, strict=True)):
            own, first = lengths[:, column][order[:, column].argsort()], layer * steps[0] * len(where)
            past = (torch.arange(count)[:, None] >= own).flatten().nonzero().squeeze(1)
            poisoned.append(len(past))
            for each in (*found, k):
                each[first + past] = torch.nan
        return found

    monkeypatch.setattr(ops, "lockstep", lockstep)
    agree(THREE, with_vitals(patients(), 9), rules, 1)
    assert sum(poisoned) > 0


def test_changed_weights_are_packed_anew(groups):
    data = dataset(STAGENET)
    model, batch = make(StageNet, data, **SIZES), batch_of(data)
    both_routes(model, batch, "complete")
    with torch.no_grad():
        for layer in model.stagenet.values():
            for weight in layer.parameters():
                weight.mul_(0.7)
    before = len(groups)
    fused, generic = both_routes(model, batch, "complete")
    assert distance(fused, generic) < 1e-9
    assert len(groups) > before


@pytest.mark.parametrize("conv_size", [1, 3])
def test_a_convolution_changed_where_pytorch_keeps_no_count(conv_size, groups):
    data = dataset(STAGENET)
    model, batch = make(StageNet, data, **SIZES, conv_size=conv_size), batch_of(data)
    both_routes(model, batch, "complete")
    for part in (model.stagenet["labs"].nn_conv.weight, model.stagenet["codes"].nn_conv.bias):
        part.data.neg_()
        fused, generic = both_routes(model, batch, "complete")
        assert distance(fused, generic) < 1e-9
    assert groups


def test_batches_whose_longest_feature_changes(groups):
    """The order of the layers in memory follows."""
    data, turned = dataset(STAGENET, patients(longest=9)), dataset(STAGENET, patients(longest=2))
    model = make(StageNet, data, **SIZES)
    for each in (data, turned, data):
        batch = batch_of(each)
        batch["codes"] = (batch["codes"][0], batch["codes"][1].clamp(max=5))
        fused, generic = both_routes(model, batch, "complete")
        assert distance(fused, generic) < 1e-9
    assert [4, 9] in groups
    assert [4, 2] in groups
