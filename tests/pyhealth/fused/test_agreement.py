"""Fused layers against the generic route, operation by operation, which is their oracle."""

import pytest
import torch
from fused_cases import (
    MODELS,
    NESTED,
    SEQUENCE,
    STAGENET,
    batch_of,
    both_routes,
    chosen,
    dataset,
    distance,
    distances,
    make,
    patients,
)
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer


@pytest.fixture(autouse=True, params=["ragged", "static"])
def route(request, monkeypatch):
    """Real steps as rows, as on the CPU, and all steps as rows, as on a GPU."""
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.plan.static_on_cpu", request.param == "static")
    return request.param


TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def explained_by_pyhealth(name):
    kind, schema, _ = MODELS[name]
    return kind is not RNN and "nested" not in name and "row" not in schema


def rounding(found, rules):
    """What a few roundings of the outputs make of contributions that are scaled to their difference.

    The factor divides by the sum of the contributions as they were before: where that is small, rounding grows.
    """
    if rules == "complete":
        return 0.0
    outputs = found.output.abs() + found.baseline_output.abs()
    change = found.output - found.baseline_output
    smaller = torch.minimum(change.abs(), (change + found.convergence_delta).abs())
    return 4 * torch.finfo(outputs.dtype).eps * outputs / smaller


RUNS = [(name, rules, steps) for name in MODELS for rules in ("rescale", "complete") for steps in (1, 3)]
RUNS += [(name, "pyhealth", 1) for name in MODELS if explained_by_pyhealth(name)]


@pytest.mark.parametrize(("name", "rules", "steps"), RUNS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_same_numbers(name, dtype, rules, steps):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    fused, generic = both_routes(make(kind, data, dtype, **sizes), batch_of(data, dtype), rules, steps=steps)
    if rules == "pyhealth" and dtype == torch.float32:
        # PyHealth's arithmetic jumps where a derivative nears 0, and rounding decides on which side a unit falls.
        assert distances(fused, generic).median() < TOLERANCE[dtype]
        assert distance(fused, generic) < 1e-2
    else:
        assert (distances(fused, generic) < TOLERANCE[dtype] + rounding(fused, rules)).all()
    close = {"rtol": 0, "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(fused.output, generic.output, **close)
    torch.testing.assert_close(fused.baseline_output, generic.baseline_output, **close)
    if rules != "pyhealth" or dtype == torch.float64:
        torch.testing.assert_close(fused.convergence_delta, generic.convergence_delta, **close)
    assert torch.equal(fused.target, generic.target)
    for key, found in fused.contributions.items():
        assert found.shape == generic.contributions[key].shape
        assert found.dtype == generic.contributions[key].dtype


@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.parametrize("kind", [StageNet, StageAttentionNet, Transformer, RNN])
def test_samples_of_padding_alone(kind, rules):
    data = dataset(STAGENET)
    sizes = {"chunk_size": 8} if kind in (StageNet, StageAttentionNet) else {}
    batch = batch_of(data)
    time, codes = batch["codes"][:2]
    empty = codes.clone()
    empty[2] = 0
    steps, labs = batch["labs"][:2]
    bare = labs.clone()
    bare[3] = 0
    given = {**batch, "codes": (time, empty), "labs": (steps, bare)}
    fused, generic = both_routes(make(kind, data, embedding_dim=8, **sizes), given, rules)
    assert distance(fused, generic) < 1e-9
    assert not fused.contributions["codes"][2].any()


@pytest.mark.parametrize("kind", [StageNet, StageAttentionNet])
def test_missing_visits(kind):
    data = dataset(STAGENET)
    batch = batch_of(data)
    time, codes = batch["codes"][:2]
    holes = codes.clone()
    holes[1, :2], holes[2, 0] = 0, 0
    model = make(kind, data, embedding_dim=8, chunk_size=8, conv_size=2)
    fused, generic = both_routes(model, {**batch, "codes": (time, holes)}, "complete")
    assert distance(fused, generic) < 1e-9


@pytest.mark.parametrize(
    ("kind", "sizes"), [(Transformer, {}), (Transformer, {"num_layers": 3, "heads": 4}), (RNN, {})]
)
def test_padding_in_between_and_in_front(kind, sizes):
    data = dataset(SEQUENCE)
    batch = batch_of(data)
    holes = batch["a"].clone()
    holes[1, 0], holes[2, 1] = 0, 0
    fused, generic = both_routes(make(kind, data, embedding_dim=8, **sizes), {**batch, "a": holes}, "complete")
    assert distance(fused, generic) < 1e-9


@pytest.mark.parametrize("masks", [lambda m: m.double(), lambda m: 0.25 + m.double(), lambda m: m.long() * 7])
def test_an_mlps_masks_of_other_numbers(masks):
    data = dataset(SEQUENCE)
    batch = batch_of(data)
    given = {**batch, "a": (batch["a"], masks(batch["a"] != 0))}
    fused, generic = both_routes(make(MLP, data, embedding_dim=8, hidden_dim=6), given, "complete")
    assert distance(fused, generic) < 1e-9


@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_users_baselines(rules):
    """Other tokens per sample: no two baselines are equal."""
    data = dataset(SEQUENCE)
    batch = batch_of(data)
    generator = torch.Generator().manual_seed(0)
    drawn = {key: torch.randint(1, 9, batch[key].shape, generator=generator) for key in SEQUENCE}
    baseline = {key: torch.where(batch[key] != 0, tokens, 0) for key, tokens in drawn.items()}
    for kind in (Transformer, RNN, MLP):
        sizes = {"num_layers": 2} if kind is Transformer else {}
        model = make(kind, data, embedding_dim=8, **sizes)
        fused, generic = both_routes(model, batch, rules, baseline=baseline)
        assert distance(fused, generic) < 1e-9


@pytest.mark.parametrize("rules", ["rescale", "pyhealth", "complete"])
@pytest.mark.parametrize("padding_counts", [False, True])
@pytest.mark.parametrize("repeated", [
    lambda real: torch.full(real.shape, 3),
    lambda real: real * 3,
    lambda real: real * 3 * (torch.arange(len(real)) != 1)[:, None],
    lambda real: torch.zeros_like(real, dtype=torch.int64),
])  # fmt: skip
def test_an_mlps_baselines_of_one_token(repeated, padding_counts, rules):
    data = dataset(SEQUENCE)
    batch = batch_of(data)
    model = make(MLP, data, embedding_dim=8, hidden_dim=6)
    if padding_counts:
        with torch.no_grad():
            for layer in model.embedding_model.embedding_layers.values():
                layer.weight[0] = 0.5
    masks = {key: batch[key] != 0 for key in SEQUENCE}
    given = {**batch, **{key: (batch[key], mask) for key, mask in masks.items()}}
    fused, generic = both_routes(model, given, rules, baseline={key: repeated(mask) for key, mask in masks.items()})
    assert distance(fused, generic) < 1e-9


def test_steps_beside_nested_tokens():
    """PyHealth's MLP then runs `forward`, which reads one step of values as they are, also where they are all 0."""
    data = dataset(NESTED | {"labs": "stagenet_tensor"}, patients(longest=1))
    batch = batch_of(data)
    time, labs = batch["labs"]
    given = {**batch, "labs": (time, labs.index_fill(0, torch.tensor([3]), 0))}
    fused, generic = both_routes(make(MLP, data, embedding_dim=8, hidden_dim=6), given, "complete")
    assert distance(fused, generic) < 1e-9


def token_key(data):
    """The first token feature."""
    return next(key for key, processor in data.input_processors.items() if processor.is_token())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind_of_baseline", ["unk", "embedding", "number"])
def test_same_numbers_whatever_the_baseline(name, kind_of_baseline):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    model, batch, key = make(kind, data, **sizes), batch_of(data), token_key(data)
    width = model.embedding_model.embedding_layers[key].embedding_dim
    baseline = {"unk": "unk", "embedding": {key: torch.linspace(-1, 1, width)}, "number": {key: 3}}[kind_of_baseline]
    fused, generic = both_routes(model, batch, "complete", baseline=baseline)
    assert distance(fused, generic) < TOLERANCE[torch.float64]
    torch.testing.assert_close(fused.baseline_output, generic.baseline_output)


@pytest.mark.parametrize("name", MODELS)
def test_same_numbers_for_single_tokens(name):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    batch, key = batch_of(data), token_key(data)
    value = batch[key][-1] if isinstance(batch[key], tuple) else batch[key]
    every_other = torch.arange(value.numel()).reshape(value.shape) % 2 == 0
    fused, generic = both_routes(make(kind, data, **sizes), batch, "complete", at_baseline={key: every_other})
    assert distance(fused, generic) < TOLERANCE[torch.float64]
    assert (fused.contributions[key][~every_other] == 0).all()


def test_several_baselines():
    data = dataset(STAGENET)
    batch = batch_of(data)
    model = make(StageNet, data, embedding_dim=8, chunk_size=6)
    ones = {"codes": batch["codes"][1].clamp(max=1), "labs": torch.ones_like(batch["labs"][1])}
    zeros = {"codes": torch.zeros_like(batch["codes"][1]), "labs": torch.zeros_like(batch["labs"][1])}
    fused, generic = both_routes(model, batch, "complete", baseline=[ones, zeros])
    assert distance(fused, generic) < 1e-9
    assert fused.baseline_output.shape == (2, 6)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_targets(target):
    data = dataset(STAGENET)
    model = make(StageNet, data, embedding_dim=8, chunk_size=6)
    fused, generic = both_routes(model, batch_of(data), "rescale", target_class_idx=target)
    assert distance(fused, generic) < 1e-9


def test_batches_larger_than_go_through_at_once(monkeypatch):
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.run.AT_ONCE_ON_GPU", 1)
    data = dataset(STAGENET, patients(11))
    model = make(StageNet, data, embedding_dim=8, chunk_size=6)
    whole, _ = both_routes(model, batch_of(data), "complete")
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.stagenet.FusedStageNet.at_once", 3)
    parts, generic = both_routes(model, batch_of(data), "complete")
    assert distance(parts, generic) < 1e-9
    assert distance(parts, whole) < 1e-12


def test_one_sample():
    data = dataset(STAGENET, patients(3)[1:2] * 2)
    batch = chosen(batch_of(data), slice(0, 1))
    for kind in (StageNet, StageAttentionNet):
        fused, generic = both_routes(make(kind, data, embedding_dim=8, chunk_size=8), batch, "complete")
        assert distance(fused, generic) < 1e-9


def test_without_embeddings():
    data = dataset({"labs": "stagenet_tensor"})
    model = make(StageNet, data, embedding_dim=8, chunk_size=6)
    batch = batch_of(data)
    from deeplift_fast import DeepLift

    fused, generic = (
        DeepLift(model, use_embeddings=False, rules="complete", fuse=fuse).attribute(**batch)["labs"]
        for fuse in (True, False)
    )
    torch.testing.assert_close(fused, generic, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("kind", "sizes"), [(Transformer, {"num_layers": 2}), (StageAttentionNet, {"chunk_size": 8})])
def test_a_baseline_that_is_constant_over_features(kind, sizes, dtype):
    """A layer norm's σ is √eps there: that enlarges no contribution, so that rounding stays small."""
    data = dataset(SEQUENCE if kind is Transformer else STAGENET)
    model = make(kind, data, dtype, embedding_dim=8, **sizes)
    with torch.no_grad():
        for layer in model.embedding_model.embedding_layers.values():
            if isinstance(layer, torch.nn.Embedding):
                layer.weight[1] = 0.25  # a number whose mean over the features is exact
    fused, generic = both_routes(model, batch_of(data, dtype), "complete", baseline="unk")
    assert distance(fused, generic) < TOLERANCE[dtype]
    assert fused.convergence_delta.abs().max() < 1e-5
    if kind is Transformer:
        sizes = torch.cat([each.flatten(1) for each in fused.contributions.values()], 1).abs().sum(1)
        assert (sizes < 30 * (fused.output - fused.baseline_output).abs()).all()
