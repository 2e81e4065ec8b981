"""`rules="complete"` on each of PyHealth's sequence models, on each kind of input that it takes."""

import contextlib
import warnings

import pytest
import torch
from metadata_cases import with_metadata
from pyhealth import models
from pyhealth.datasets import create_sample_dataset
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.models.adacare import MultimodalAdaCare
from pyhealth.models.retain import MultimodalRETAIN
from pyhealth.models.rnn import MultimodalRNN

from deeplift_fast import DeepLift

SIZES = {"embedding_dim": 8, "hidden_dim": 8}
STAGES = {"embedding_dim": 8, "chunk_size": 6, "conv_size": 4}
FLAT = ("tensor", "multi_hot")
CODES = ("sequence", "nested_sequence")
MODELS = {
    "MLP": (models.MLP, SIZES, (*CODES, *FLAT)),
    "RNN": (models.RNN, SIZES, (*CODES, "timeseries", *FLAT)),
    "RNN, LSTM": (models.RNN, {**SIZES, "rnn_type": "LSTM", "num_layers": 2, "bidirectional": True}, CODES),
    "RETAIN": (models.RETAIN, {"embedding_dim": 8}, CODES),
    "MultimodalRETAIN": (MultimodalRETAIN, {"embedding_dim": 8}, (*CODES, *FLAT)),
    "AdaCare": (models.AdaCare, SIZES, CODES),
    "MultimodalAdaCare": (MultimodalAdaCare, SIZES, (*CODES, *FLAT)),
    "TCN": (models.TCN, {"embedding_dim": 8, "num_channels": 8}, ("sequence", "timeseries")),
    "CNN": (models.CNN, SIZES, ("sequence", "timeseries", *FLAT)),
    "Deepr": (models.Deepr, SIZES, CODES),
    "ConCare": (models.ConCare, {**SIZES, "num_head": 2, "pe_hidden": 8}, (*CODES, "timeseries")),
    "GRASP": (models.GRASP, {**SIZES, "cluster_num": 2}, ("sequence", "timeseries")),
    "GRASP, GRU": (models.GRASP, {**SIZES, "cluster_num": 3, "block": "GRU"}, ("sequence",)),
    "EHRMamba": (models.EHRMamba, {"embedding_dim": 8, "num_layers": 1}, (*CODES, "timeseries", *FLAT)),
    "JambaEHR": (
        models.JambaEHR,
        {"embedding_dim": 8, "num_transformer_layers": 1, "num_mamba_layers": 1, "heads": 2},
        (*CODES, "timeseries", "stagenet", *FLAT),
    ),
    "LogisticRegression": (models.LogisticRegression, {"embedding_dim": 8}, (*CODES, *FLAT)),
    "Transformer": (models.Transformer, {"embedding_dim": 8, "heads": 2}, (*CODES, "timeseries", "stagenet", *FLAT)),
    "Agent": (models.Agent, SIZES, CODES),
    "Agent, LSTM": (models.Agent, {**SIZES, "cell": "lstm"}, ("sequence",)),
    "StageNet": (models.StageNet, STAGES, ("stagenet", "stagenet_nested", "stagenet_tensor")),
    "StageAttentionNet": (
        models.StageAttentionNet,
        {**STAGES, "num_heads": 3},
        ("stagenet", "stagenet_nested", "stagenet_tensor"),
    ),
    "GCN": (models.GCN, {"embedding_dim": 8, "nhid": 4}, ("sequence",)),
    "GAT": (models.GAT, {"embedding_dim": 8, "nhid": 4}, ("sequence",)),
    "MultimodalRNN": (MultimodalRNN, SIZES, (*CODES, "timeseries", *FLAT)),
}
# Those that give a patient the same logit alone and in a padded batch.
INDEPENDENT = {"MLP", "RNN, LSTM", "EHRMamba", "LogisticRegression", "Transformer", "StageNet", "StageAttentionNet"}
INDEPENDENT |= {"MultimodalRNN"}
FUSED = ("MLP", "RNN", "RNN, LSTM", "Transformer", "StageNet", "StageAttentionNet")
NOT_IN_FLOAT64 = (
    "CNN",
    "GCN",
    "GAT",
    "Deepr",
    "ConCare",
    "GRASP",
    "GRASP, GRU",
    "Agent",
    "Agent, LSTM",
)  # the models themselves
NOT_INTERPRETABLE = ("RNN", "RETAIN", "AdaCare", "TCN", "CNN", "Deepr", "ConCare", "GRASP", "EHRMamba", "Agent")


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pyhealth")
        warnings.filterwarnings("ignore", message="the model mixes the samples")
        yield


def make(name, data):
    kind, options, _ = MODELS[name]
    with torch.random.fork_rng(), contextlib.redirect_stdout(None):
        torch.manual_seed(0)
        return kind(data, **options).eval()


def assert_complete(found, tolerance=1e-3):
    change = (found.output - found.baseline_output).abs()
    assert (found.convergence_delta.abs() <= tolerance * change.clamp(min=1e-3)).all(), found.report
    assert all(contribution.isfinite().all() for contribution in found.contributions.values())


# StageNet's inputs, times and all, where other models take them.
TIMED = {
    "MLP": ("stagenet", "stagenet_nested"),
    "RNN": ("stagenet", "stagenet_nested", "stagenet_tensor"),
    "TCN": ("stagenet", "stagenet_tensor"),
    "CNN": ("stagenet", "stagenet_tensor"),
    "Deepr": ("stagenet", "stagenet_nested"),
    "EHRMamba": ("stagenet", "stagenet_nested", "stagenet_tensor"),
    "JambaEHR": ("stagenet", "stagenet_nested", "stagenet_tensor"),
    "Transformer": ("stagenet", "stagenet_nested", "stagenet_tensor"),
    "MultimodalRNN": ("stagenet", "stagenet_nested", "stagenet_tensor"),
}
CASES = [(name, kinds, "binary") for name in MODELS for kinds in [(k,) for k in MODELS[name][2]]]
CASES += [(name, MODELS[name][2], label) for name in MODELS for label in ("binary", "multiclass", "multilabel")]
CASES += [(name, kinds, "binary") for name, kinds in TIMED.items()]


@pytest.mark.parametrize(("name", "kinds", "label"), CASES, ids=lambda v: "+".join(v) if isinstance(v, tuple) else v)
def test_is_complete(cases, name, kinds, label):
    data = cases.dataset(*kinds, patients=5, label=label)
    made, given = make(name, data), cases.batch(data)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    found = DeepLift(made, rules="complete").explain(**given)
    assert found.baseline == "removed"
    assert_complete(found)
    if name in FUSED:
        assert_complete(DeepLift(made, rules="complete", fuse=False).explain(**given))
    for key, value in cases.values(made, given).items():
        assert found.contributions[key].shape == value.shape
    assert sum(float(c.abs().sum()) for c in found.contributions.values()) > 0
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


TOKENS = ("sequence", "nested_sequence", "stagenet", "stagenet_nested")
WITH_TOKENS = [(name, next(kind for kind in kinds if kind in TOKENS)) for name, (_, _, kinds) in MODELS.items()]
WITH_TOKENS.remove(("GRASP", "sequence"))  # the other GRASP is faster


@pytest.mark.parametrize(("name", "kind"), WITH_TOKENS)
def test_interactions(cases, name, kind):
    """The output without a code is that of `explain` with this code at the baseline.

    Models that mix the samples of a batch, and so those of the two streams, are compared with their own forward pass.
    """
    mixes = "AdaCare" in name or "GRASP" in name
    data = cases.dataset(kind, patients=5)
    deeplift, given = DeepLift(make(name, data), rules="complete"), cases.batch(data)
    found = deeplift.interactions(top=2, **given)
    pairs = torch.tensor([len(players) == 2 for players in found.players])
    assert pairs.any()
    assert torch.equal(found.values[:, 0, 1].isfinite(), pairs)
    exact = deeplift.interactions(players=found.players, exact=True, **given)
    value = cases.value_of(given[kind])
    for i in range(2):
        mask = torch.zeros_like(value, dtype=torch.bool)
        for sample, players in enumerate(found.players):
            for position in players[i].positions if i < len(players) else ():
                mask[(sample, *position)] = True
        there = ~found.without[:, i].isnan()
        torch.testing.assert_close(found.without[there, i], exact.without[there, i], rtol=1e-4, atol=1e-5)
        if not mixes:
            expected = deeplift.explain(at_baseline={kind: mask}, **given).baseline_output
            torch.testing.assert_close(found.without[there, i], expected[there], rtol=1e-4, atol=1e-5)


SIGNALS = {
    "ContraWR": (models.ContraWR, {"embedding_dim": 8, "hidden_dim": 8, "n_fft": 32}),
    "SparcNet": (models.SparcNet, {"embedding_dim": 8, "hidden_dim": 8, "block_layers": 2}),
    "BIOT": (models.BIOT, {"emb_size": 16, "heads": 2, "depth": 1, "n_fft": 64, "hop_length": 32, "n_channels": 4}),
}


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_models_of_signals(name, rules):
    """Channels of 512 samples each, as of an electroencephalogram."""
    torch.manual_seed(0)
    samples = [{"patient_id": f"p{i}", "signal": torch.randn(4, 512).tolist(), "label": i % 2} for i in range(4)]
    data = create_sample_dataset(samples, {"signal": "tensor"}, {"label": "binary"}, in_memory=True)
    kind, sizes = SIGNALS[name]
    made, given = kind(data, **sizes).eval(), collate_fn_dict_with_padding([data[i] for i in range(4)])
    found = DeepLift(made, rules=rules).explain(**given)
    assert found.contributions["signal"].shape == (4, 4, 512)
    assert (found.contributions["signal"] != 0).any((1, 2)).all()
    torch.testing.assert_close(found.output, made(**given)["logit"][:, 0].detach())
    if rules == "complete":
        assert_complete(found)


MEDFUSE = {"cxr_pretrained": False, "cxr_backbone": "resnet18", "ehr_hidden_dim": 8, "fusion_hidden_dim": 8}


@pytest.mark.parametrize("label", ["binary", "multiclass"])
@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.parametrize("masked", [False, True], ids=["all have an image", "some have none"])
def test_medfuse(rules, label, masked):
    """Series of measurements, and an image that some patients lack."""
    torch.manual_seed(0)
    samples = [
        {
            "patient_id": f"p{i}",
            "ehr": torch.randn(5, 6).tolist(),
            "cxr": torch.randn(3, 32, 32).tolist(),
            **({"cxr_mask": [float(i % 2)]} if masked else {}),
            "label": i % 3 if label == "multiclass" else i % 2,
        }
        for i in range(4)
    ]
    schema = {key: "tensor" for key in samples[0] if key not in ("patient_id", "label")}
    data = create_sample_dataset(samples, schema, {"label": label}, in_memory=True)
    made = models.MedFuse(data, projection_dim=8, **MEDFUSE).eval()
    given = collate_fn_dict_with_padding([data[i] for i in range(4)])
    found = DeepLift(made, rules=rules).explain(**given)
    own = made(**given)["logit"].detach()
    torch.testing.assert_close(found.output, own.gather(1, found.target[:, None])[:, 0])
    for key in ("ehr", "cxr"):
        assert found.contributions[key].shape == given[key].shape
    assert (found.contributions["ehr"] != 0).any((1, 2)).all()
    has_image = (found.contributions["cxr"] != 0).any(-1).any(-1).any(-1)
    if rules == "complete":
        assert_complete(found)
        assert has_image.tolist() == ([False, True] * 2 if masked else [True] * 4)
        alone = DeepLift(made, rules=rules).explain(**collate_fn_dict_with_padding([data[1]]))
        torch.testing.assert_close(found.contributions["cxr"][1], alone.contributions["cxr"][0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_padding_gets_nothing(cases, name):
    kinds = tuple(kind for kind in MODELS[name][2] if kind not in FLAT and "tensor" not in kind)
    data = cases.dataset(*kinds, patients=5)
    made, given = make(name, data), cases.batch(data)
    found = DeepLift(made, rules="complete").attribute(**given)
    for key, value in cases.values(made, given).items():
        padding = (
            value == 0 if not value.is_floating_point() else (value == 0).all(-1, keepdim=True).expand(value.shape)
        )
        assert (found[key][padding] == 0).all()


@pytest.mark.parametrize("name", sorted(INDEPENDENT))
def test_a_patient_alone_and_in_a_batch(cases, name):
    data = cases.dataset(*MODELS[name][2], patients=5)
    explainer = DeepLift(make(name, data), rules="complete")
    whole = explainer.attribute(**cases.batch(data))
    for i in range(5):
        for key, alone in explainer.attribute(**cases.batch(data, [i])).items():
            within = whole[key][i][tuple(slice(0, n) for n in alone[0].shape)]
            torch.testing.assert_close(within, alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [name for name in MODELS if name not in NOT_IN_FLOAT64])
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
def test_is_complete_to_rounding_in_float64(cases, name, fuse):
    if fuse and name not in FUSED:
        return
    for kinds in {MODELS[name][2], TIMED.get(name, MODELS[name][2])}:
        data = cases.dataset(*kinds, patients=5)
        made, given = make(name, data), cases.batch(data)
        assert_complete(DeepLift(made, rules="complete", fuse=fuse).explain(**given), 1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_redrawing_the_unknown_codes_row_changes_nothing(cases, name):
    """Training never touches that row, so no contribution may hang on it: bit for bit, where no code is unknown."""
    data = cases.dataset(*MODELS[name][2], patients=5)
    made, given = make(name, data), cases.batch(data)
    tokens = [key for key in made.feature_keys if data.input_processors[key].is_token()]
    assert all((cases.value_of(given[key]) != 1).all() for key in tokens)
    found = []
    for draw in range(2):
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(draw)
            for embedding in made.modules():
                if isinstance(embedding, torch.nn.Embedding):
                    embedding.weight[1] = torch.randn(embedding.embedding_dim)
        torch.manual_seed(0)
        found.append(DeepLift(made, rules="complete").attribute(**given))
    assert torch.equal(cases.flat(found[0]), cases.flat(found[1]))


@pytest.mark.parametrize("name", NOT_INTERPRETABLE)
def test_rescale_takes_them_as_well_and_pyhealth_does_not(cases, name):
    data = cases.dataset(*MODELS[name][2], patients=5)
    made = make(name, data)
    found, delta = DeepLift(made).attribute(return_convergence_delta=True, **cases.batch(data))
    assert delta.shape == (5,)
    assert all(c.isfinite().all() for c in found.values())
    with pytest.raises(ValueError, match='rules is "pyhealth" and model a'):
        DeepLift(made, rules="pyhealth")


@pytest.mark.parametrize("name", ["Agent", "ConCare", "RNN"])
def test_labels_are_not_needed(cases, name):
    data = cases.dataset("sequence", patients=5)
    made, given = make(name, data), cases.batch(data)
    torch.manual_seed(0)
    expected = DeepLift(made, rules="complete").attribute(**given)
    del given["label"]
    torch.manual_seed(0)
    found = DeepLift(made, rules="complete").attribute(**given)
    assert torch.equal(cases.flat(found), cases.flat(expected))


def test_random_generators_are_left_alone(cases):
    data = cases.dataset("sequence", patients=5)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    DeepLift(make("Agent", data), rules="complete").attribute(**cases.batch(data))
    assert torch.equal(torch.get_rng_state(), before)


class TestSeveralBaselines:
    @pytest.fixture
    def setting(self, cases):
        data = cases.dataset(*cases.MIXED["Transformer"])
        made, given = cases.model("Transformer", data), cases.batch(data)
        usual = cases.unknown_baseline(made, given)
        other = {k: torch.where(v != 0, 2, v) if not v.is_floating_point() else v * 3 for k, v in usual.items()}
        return made, given, [usual, other]

    @pytest.mark.parametrize("rules", ["rescale", "complete"])
    @pytest.mark.parametrize("stacked", [False, True])
    def test_give_the_mean_and_a_delta_each(self, cases, setting, rules, stacked):
        made, given, baselines = setting
        explainer = DeepLift(made, rules=rules)
        several = {k: torch.stack([b[k] for b in baselines]) for k in baselines[0]} if stacked else baselines
        found, delta = explainer.attribute(several, return_convergence_delta=True, **given)
        each = [explainer.explain(baseline, **given) for baseline in baselines]
        for key, mean in found.items():
            torch.testing.assert_close(mean, sum(e.contributions[key] for e in each) / 2)
        assert delta.shape == (2, 8)
        torch.testing.assert_close(delta, torch.stack([e.convergence_delta for e in each]))
        assert len(explainer.report())

    def test_differ_in_number(self, setting):
        made, given, baselines = setting
        several = {k: torch.stack([b[k] for b in baselines]) for k in baselines[0]}
        several["sequence"] = several["sequence"][:1]
        with pytest.raises(ValueError, match="leading dimensions differ"):
            DeepLift(made).attribute(several, **given)
        with pytest.raises(ValueError, match="baseline holds no baselines"):
            DeepLift(made).attribute([], **given)


class TestSteps:
    @pytest.mark.parametrize("name", ["StageNet", "RNN"])
    def test_are_complete_whatever_their_number(self, cases, name):
        data = cases.dataset(*MODELS[name][2], patients=5)
        made, given = make(name, data), cases.batch(data)
        at_one = DeepLift(made, rules="complete").explain(**given)
        for steps in (2, 4):
            found = DeepLift(made, rules="complete", steps=steps).explain(**given)
            assert_complete(found)
            again = DeepLift(made, rules="complete").attribute(steps=steps, **given)
            assert torch.equal(cases.flat(again), cases.flat(found.contributions))
            torch.testing.assert_close(found.output, at_one.output)
            assert not torch.allclose(cases.flat(again), cases.flat(at_one.contributions), rtol=1e-4)

    def test_share_forward_passes(self, cases):
        data = cases.dataset("sequence", patients=5)
        made, given = cases.model("MLP", data), cases.batch(data)
        calls = []
        made.fc.register_forward_hook(lambda *_: calls.append(1))
        explainer = DeepLift(made, rules="complete")
        explainer.attribute(**given)  # which looks, once, at what the model says of the batch
        for steps in (1, 4):
            calls.clear()
            explainer.attribute(steps=steps, **given)
            assert len(calls) == steps + 1

    @pytest.mark.parametrize("name", ["StageNet", "Transformer", "MultimodalRNN", "MLP"])
    @pytest.mark.parametrize("label", ["binary", "multiclass"])
    def test_several_in_one_batch(self, cases, name, label):
        data = cases.dataset(*MODELS[name][2], patients=5, label=label)
        made, given = make(name, data), cases.batch(data)
        expected = DeepLift(made, rules="complete", steps=4).explain(**given)
        found = DeepLift(made, rules="complete", steps=4, segments_at_once=3).explain(**given)
        torch.testing.assert_close(
            cases.flat(found.contributions), cases.flat(expected.contributions), rtol=1e-4, atol=1e-6
        )
        assert_complete(found)

    def test_only_one_under_pyhealth(self, cases):
        made = cases.model("MLP", cases.dataset("sequence"))
        with pytest.raises(ValueError, match="steps is 2"):
            DeepLift(made, rules="pyhealth", steps=2)


def test_report_comes_after_a_call(cases):
    data = cases.dataset("sequence")
    explainer = DeepLift(cases.model("Transformer", data), rules="complete", fuse=False)
    with pytest.raises(RuntimeError, match="call attribute first"):
        explainer.report()
    explainer.attribute(**cases.batch(data))
    assert {"softmax", "matmul", "gelu"} <= {row.operation for row in explainer.report()}


@pytest.mark.parametrize("name", MODELS)
def test_metadata_of_the_samples_reach_the_rows_and_change_nothing_else(cases, name):
    data = cases.dataset(*MODELS[name][2], patients=4)
    made, plain = make(name, data), cases.batch(data)
    deeplift = DeepLift(made, rules="complete")
    samples = with_metadata([data[i] for i in range(4)], data.input_processors)
    extra = [{key: each[key] for key in each if key not in data[0]} for each in samples]
    given = plain | {key: [each[key] for each in extra] for key in extra[0]}
    expected, found = deeplift.explain(**plain), deeplift.explain(**given)
    assert all(torch.equal(found.contributions[key], each) for key, each in expected.contributions.items())
    attributed = deeplift.attribute(**given)
    assert all(torch.equal(attributed[key], each) for key, each in expected.contributions.items())
    rows = found.to_dataframe(made, given)
    assert (rows["day"] == 100 * rows["sample"] + rows["step"]).all()
    assert (rows["stay"] == [f"stay {step // 2}" for step in rows["step"]]).all()
    assert rows["measured"].notna().all()
    assert rows.loc[rows["measured"] == False, "value"].isna().all()  # noqa: E712 (a column of objects)
