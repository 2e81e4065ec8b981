"""Fused layers serve the code that they were written for, and say so where they step aside."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from fused_cases import MODELS, NESTED, SEQUENCE, STAGENET, batch_of, both_routes, chosen, dataset, distance, make
from pyhealth.models import MLP, RNN, StageNet, Transformer
from torch import nn

from deeplift_fast import DeepLift, FusionWarning, TrainingModeWarning, register_rule, unregister_rule


@pytest.fixture
def stagenet():
    data = dataset(STAGENET)
    return make(StageNet, data, embedding_dim=8, chunk_size=6), batch_of(data)


def stepped_aside(model, batch, match, rules="rescale", **options):
    """The generic route's numbers, with a warning."""
    interpreter = DeepLift(model, rules=rules)
    with pytest.warns(FusionWarning, match=match):
        found = interpreter.explain(**options, **batch)
    assert all(row.rule != "fused" for row in found.report)
    expected = DeepLift(model, rules=rules, fuse=False).explain(**options, **batch)
    for key, value in found.contributions.items():
        assert torch.equal(value, expected.contributions[key])
    with warnings.catch_warnings():
        warnings.simplefilter("error", FusionWarning)  # once per interpreter
        interpreter.attribute(**options, **batch)


def test_forward_hooks(stagenet):
    model, batch = stagenet
    handle = model.stagenet["labs"].tanh.register_forward_hook(lambda module, args, output: output * 0.5)
    stepped_aside(model, batch, "has hooks")
    handle.remove()
    fused, generic = both_routes(model, batch, "rescale")
    assert distance(fused, generic) < 1e-9


def test_weights_that_are_not_contiguous(stagenet):
    model, batch = stagenet
    DeepLift(model).attribute(**batch)
    table, bias = model.embedding_model.embedding_layers["codes"].weight, model.stagenet["labs"].kernel.bias
    for weight in (table, bias):
        kept = weight.data
        weight.data = torch.stack([kept, kept], -1)[..., 0]
        stepped_aside(model, batch, "not contiguous in memory")
        weight.data = kept
    fused, generic = both_routes(model, batch, "rescale")
    assert distance(fused, generic) < 1e-9


def test_a_subclass():
    class Mine(StageNet):
        def forward_from_embedding(self, **kwargs):
            found = super().forward_from_embedding(**kwargs)
            return {**found, "logit": found["logit"] * 2}

    data = dataset(STAGENET)
    stepped_aside(make(Mine, data, embedding_dim=8, chunk_size=6), batch_of(data), "not PyHealth's own class")


def test_a_replaced_module(stagenet):
    model, batch = stagenet
    model.stagenet["labs"].tanh = nn.Softsign()
    stepped_aside(model, batch, "a Softsign")


def test_a_known_module_in_the_place_of_another_after_the_check(stagenet):
    model, batch = stagenet
    DeepLift(model).attribute(**batch)
    model.stagenet["labs"].tanh = nn.Sigmoid()
    stepped_aside(model, batch, "has a Sigmoid as its tanh")


@pytest.mark.parametrize("part", [nn.Softmax(-1), nn.Sequential(nn.Linear(6, 6), nn.Tanh())], ids=["softmax", "chain"])
def test_layers_whose_forward_pass_alone_is_known(part):
    """Run as they stand they give the model's logits, and yet they are no elementwise functions."""
    data = dataset(SEQUENCE)
    model = make(MLP, data, embedding_dim=8, hidden_dim=6)
    model.mlp["a"][1] = part.to(torch.float64)
    stepped_aside(model, batch_of(data), "other parts than linear layers", rules="complete")


def test_another_activation_in_a_transformer():
    data = dataset(SEQUENCE)
    model = make(Transformer, data, embedding_dim=8)
    model.transformer["a"].transformer[0].feed_forward.activation = nn.ReLU()
    stepped_aside(model, batch_of(data), "has a ReLU as its activation")


def test_attention_with_biases_after_the_check():
    data = dataset(SEQUENCE)
    model, batch = make(Transformer, data, embedding_dim=8), batch_of(data)
    DeepLift(model).attribute(**batch)
    model.transformer["a"].transformer[0].attention.output_linear = nn.Linear(8, 8).double()
    stepped_aside(model, batch, "has biases")


def test_a_layer_of_the_same_kind_after_the_check():
    """It is packed anew."""
    data = dataset(SEQUENCE)
    model, batch = make(RNN, data, embedding_dim=8, hidden_dim=6), batch_of(data)
    DeepLift(model).attribute(**batch)
    model.rnn["a"].rnn = nn.LSTM(8, 6, batch_first=True).double().eval()
    fused, generic = both_routes(model, batch, "complete")
    assert distance(fused, generic) < 1e-9


def test_linear_layers_without_biases(stagenet):
    model, batch = stagenet
    model.fc = nn.Linear(36, 3, bias=False).double()
    model.stagenet["labs"].kernel = nn.Linear(9, 78, bias=False).double()
    fused, generic = both_routes(model, batch, "complete")
    assert distance(fused, generic) < 1e-9


def test_an_instance_with_its_own_method(stagenet):
    model, batch = stagenet
    layer = model.stagenet["labs"]
    layer.cumax = lambda x, mode="l2r": torch.softmax(x, -1)
    stepped_aside(model, batch, "has its own cumax")


def test_a_class_that_was_changed(stagenet, monkeypatch):
    model, batch = stagenet
    kind = type(model.stagenet["labs"])
    original = kind.cumax
    monkeypatch.setattr(kind, "cumax", lambda self, x, mode="l2r": original(self, x, mode) * 0.9)
    stepped_aside(model, batch, "was changed")


def test_another_forward_pass_is_found_by_running_it(stagenet, monkeypatch):
    """The self-check: whatever differs, the logits tell."""
    model, batch = stagenet
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.recognise.difference", lambda module, known, changed: None)
    monkeypatch.setattr(model.stagenet["labs"], "cumax", lambda x, mode="l2r": torch.softmax(x, -1))
    stepped_aside(model, batch, "other logits")


def test_parametrised_weights(stagenet):
    model, batch = stagenet
    nn.utils.parametrizations.weight_norm(model.stagenet["labs"].kernel)
    stepped_aside(model, batch, "is a ParametrizedLinear")


def test_registered_rules(stagenet):
    model, batch = stagenet
    register_rule(torch.nn.functional.layer_norm, "quadrature")
    try:
        stepped_aside(model, batch, "rules are registered", rules="complete")
    finally:
        unregister_rule(torch.nn.functional.layer_norm)


def test_other_tokens_are_real_by_the_mask_beside_nested_ones():
    """The real tokens are those of the input, whatever a baseline holds or an embedding is."""
    data = dataset(NESTED)
    model, batch = make(MLP, data, embedding_dim=8, hidden_dim=6), batch_of(data)
    baseline = {"visits": (batch["visits"] != 0).long(), "a": torch.zeros_like(batch["a"])}
    baseline["a"][:, 0] = 2
    assert distance(*both_routes(model, batch, "complete", baseline=baseline)) < 1e-9
    with torch.no_grad():
        model.embedding_model.embedding_layers["a"].weight[batch["a"][1, 0]] = 0
    assert distance(*both_routes(model, batch, "complete", baseline=baseline)) < 1e-9


def test_half_precision_weights(stagenet):
    model, batch = stagenet
    model.stagenet["labs"].nn_scale.to(torch.float32)
    with pytest.warns(FusionWarning, match="float32"), pytest.raises(RuntimeError):
        DeepLift(model).attribute(**batch)


def test_fuse_false_says_nothing(stagenet):
    model, batch = stagenet
    model.stagenet["labs"].tanh = nn.Softsign()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FusionWarning)
        DeepLift(model, fuse=False).attribute(**batch)


@pytest.mark.parametrize("kind", [StageNet, MLP])
def test_changed_weights_are_seen(kind):
    data = dataset(STAGENET if kind is StageNet else SEQUENCE)
    model = make(kind, data, embedding_dim=8, **({"chunk_size": 6} if kind is StageNet else {"hidden_dim": 6}))
    batch, interpreter = batch_of(data), DeepLift(model, rules="complete")
    before = interpreter.attribute(**batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    fused, generic = both_routes(model, batch, "complete")
    assert distance(fused, generic) < 1e-9
    after = interpreter.attribute(**batch)
    key = next(iter(before))
    assert not torch.allclose(before[key], after[key])
    assert torch.equal(after[key], fused.contributions[key])
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    fused, generic = both_routes(model, batch, "complete")
    assert distance(fused, generic) < 1e-9


@pytest.mark.parametrize("name", ["StageNet", "StageAttentionNet", "Transformer", "MLP", "RNN, GRU", "RNN, LSTM"])
def test_weights_changed_where_pytorch_keeps_no_count(name):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    model, batch = make(kind, data, **sizes), batch_of(data)
    DeepLift(model, rules="complete").attribute(**batch)
    for parameter in model.parameters():
        parameter.data.mul_(1.3)  # no new version
    fused, generic = both_routes(model, batch, "complete")
    assert distance(fused, generic) < 1e-9
    for parameter in model.parameters():
        parameter.data[:1] = 0.7
    fused, generic = both_routes(model, batch, "complete")
    assert distance(fused, generic) < 1e-9


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("name", ["StageNet", "StageAttentionNet"])
def test_each_weight_alone_changed_where_pytorch_keeps_no_count(name, count):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    model, batch = make(kind, data, **sizes), chosen(batch_of(data), slice(0, count))
    DeepLift(model, rules="complete").attribute(**batch)
    for parameter in model.parameters():
        parameter.data.mul_(1.3)
        fused, generic = both_routes(model, batch, "complete")
        assert distance(fused, generic) < 1e-9


@pytest.mark.parametrize("name", ["StageNet", "StageAttentionNet", "Transformer", "MLP", "RNN, GRU"])
def test_a_model_is_freed_with_its_last_user(name):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    model = make(kind, data, **sizes)
    DeepLift(model).attribute(**batch_of(data))
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None


def test_the_model_is_checked_once(stagenet, monkeypatch):
    model, batch = stagenet
    DeepLift(model).attribute(**batch)

    def fails(*args, **kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr("deeplift_fast.pyhealth.fused.plan.Plan._check", fails)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FusionWarning)
        DeepLift(model, rules="complete").attribute(**batch)
        DeepLift(model).attribute(**batch)


def test_training_mode(stagenet):
    model, batch = stagenet
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # or no two calls would agree
    interpreter = DeepLift(model)
    model.train()
    with pytest.warns(TrainingModeWarning), pytest.warns(FusionWarning, match="in training mode"):
        found = interpreter.explain(**batch)
    assert all(row.rule != "fused" for row in found.report)


def test_autocast():
    data = dataset(SEQUENCE)
    model, batch = make(MLP, data, torch.float32, embedding_dim=8, hidden_dim=6), batch_of(data, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        stepped_aside(model, batch, "under autocast", "complete")


def test_a_compiled_model(stagenet):
    model, batch = stagenet
    stepped_aside(torch.compile(model, backend="eager"), batch, "OptimizedModule is not PyHealth's own class")


@pytest.mark.parametrize("name", ["StageNet", "MLP", "RNN, GRU"])
def test_weights_that_are_no_parameters(name):
    """Nobody counts their changes."""
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    model, batch = make(kind, data, **sizes), batch_of(data)
    DeepLift(model).attribute(**batch)
    layer, weight = {
        "StageNet": lambda: (model.stagenet["labs"].kernel, "weight"),
        "MLP": lambda: (model.mlp["a"][0], "bias"),
        "RNN, GRU": lambda: (model.rnn["a"].rnn, "weight_hh_l0"),
    }[name]()
    values = getattr(layer, weight).detach().clone()
    delattr(layer, weight)
    setattr(layer, weight, values.mul_(1.3))
    stepped_aside(model, batch, "no parameter")
