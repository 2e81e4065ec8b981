"""rules="pyhealth" gives PyHealth 2.1's numbers."""

import pytest
import torch
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift

from deeplift_fast import DeepLift

MODELS = ["StageNet", "StageAttentionNet", "Transformer", "Transformer, 2 layers", "MLP"]
FURTHER_FEATURES = [
    ("StageNet", ("sequence", "nested_sequence_floats")),
    ("StageNet", ("timeseries", "stagenet_untimed")),
    ("StageAttentionNet", ("sequence", "timeseries")),
    ("StageAttentionNet", ("stagenet_untimed", "nested_sequence")),
    ("Transformer", ("stagenet", "stagenet_nested", "stagenet_tensor")),
    ("Transformer, 2 layers", ("nested_sequence_floats",)),
    ("MLP", ("stagenet", "tensor_with_zeros")),
]
pytestmark = pytest.mark.filterwarnings("ignore:Feature .* does not have time intervals", "ignore:.*before rescaling")


def both(made, given, use_embeddings=True, **options):
    theirs = PyHealthDeepLift(made, use_embeddings=use_embeddings).attribute(**options, **given)
    ours = DeepLift(made, use_embeddings=use_embeddings, rules="pyhealth").attribute(**options, **given)
    return ours, theirs


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_to_1e_4_in_float32_on_nine_patients_of_ten(cases, name, seed, scale):
    data = cases.dataset(*cases.MIXED[name], patients=64, seed=seed)
    error = cases.relative_error(*both(cases.model(name, data, seed, scale), cases.batch(data)))
    assert (error < 1e-4).double().mean() >= 0.9


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "kinds"), [(name, None) for name in MODELS] + FURTHER_FEATURES)
def test_to_1e_9_in_float64_on_every_patient(cases, name, kinds):
    data = cases.dataset(*(kinds or cases.MIXED[name]), patients=64)
    error = cases.relative_error(*both(cases.model(name, data, scale=1.5), cases.batch(data)))
    assert error.max() < 1e-9


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("label", ["multiclass", "multilabel"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", [None, 0, 2])
def test_for_any_class(cases, name, label, target):
    data = cases.dataset(*cases.MIXED[name], patients=16, label=label)
    error = cases.relative_error(*both(cases.model(name, data), cases.batch(data), target_class_idx=target))
    assert error.max() < 1e-9


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("target", [0, 1])
def test_a_single_logit_stands_for_both_classes(cases, target):
    data = cases.dataset("sequence", "tensor")
    made, given = cases.model("MLP", data), cases.batch(data)
    ours, theirs = both(made, given, target_class_idx=target)
    assert cases.relative_error(ours, theirs).max() < 1e-9
    assert torch.equal(cases.flat(ours), cases.flat(DeepLift(made, rules="pyhealth").attribute(**given)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", MODELS)
def test_with_a_users_baseline(cases, name):
    data = cases.dataset(*cases.MIXED[name], patients=16)
    made, given = cases.model(name, data), cases.batch(data)
    baseline = {key: value.roll(1, dims=0) for key, value in cases.values(made, given).items()}
    assert cases.relative_error(*both(made, given, baseline=baseline)).max() < 1e-9


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("MLP", ("tensor", "multi_hot")),
        ("MLP", ("tensor_with_zeros",)),
        ("StageNet", ("stagenet_tensor", "timeseries")),
        ("StageAttentionNet", ("stagenet_tensor",)),
        ("Transformer", ("timeseries", "nested_sequence_floats")),
    ],
)
def test_of_raw_values_without_embeddings(cases, name, kinds):
    data = cases.dataset(*kinds, patients=16)
    error = cases.relative_error(*both(cases.model(name, data), cases.batch(data), use_embeddings=False))
    assert error.max() < 1e-9


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "leaky_relu", "elu"])
@pytest.mark.parametrize("layers", [1, 2])
def test_of_every_mlp(cases, activation, layers):
    data = cases.dataset("sequence", "tensor", patients=16)
    made = cases.model("MLP", data, scale=2.0, n_layers=layers, activation=activation)
    assert cases.relative_error(*both(made, cases.batch(data))).max() < 1e-9


@pytest.mark.usefixtures("float64")
def test_padding_gets_what_pyhealth_gives_it(cases):
    """Its baseline is UNK and 0.01 everywhere, also where nothing is."""
    data = cases.dataset("sequence")
    made, given = cases.model("MLP", data), cases.batch(data)
    ours, theirs = both(made, given)
    padding = given["sequence"] == 0
    assert (theirs["sequence"][padding] != 0).any()
    torch.testing.assert_close(ours["sequence"][padding], theirs["sequence"][padding], rtol=1e-9, atol=1e-12)
