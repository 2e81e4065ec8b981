"""What is explained is what the model says of each patient alone, and a warning where it says something else."""

import copy
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer

from deeplift_fast import DeepLift, PredictionWarning
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.predictions import compared

SIZES = {
    StageNet: {"embedding_dim": 8, "chunk_size": 4, "conv_size": 3},
    StageAttentionNet: {"embedding_dim": 8, "chunk_size": 4, "num_heads": 2, "conv_size": 3},
    Transformer: {"embedding_dim": 8, "num_layers": 2},
}
ZERO, SOME, MORE = [0.0, 0.0], [1.0, -2.0], [0.5, 3.0]
RECORDS = {
    "shorter": [SOME, MORE, SOME],
    "one step": [SOME],
    "hours without values": [ZERO, SOME, ZERO, ZERO, MORE, ZERO, SOME],
    "ends without values": [SOME, MORE, ZERO, ZERO],  # whose times tell that these are steps
    "nothing": [ZERO],
}


def made(kind, records, schema="stagenet_tensor", label="binary"):
    samples = [
        {
            "patient_id": f"p{i}",
            "labs": ([float(k) for k in range(len(steps))], steps) if schema == "stagenet_tensor" else steps,
            "label": i % 3 if label == "multiclass" else i % 2,
        }
        for i, steps in enumerate(records)
    ]
    data = create_sample_dataset(samples, {"labs": schema}, {"label": label}, in_memory=True)
    with torch.no_grad():
        model = kind(data, **SIZES.get(kind, {"embedding_dim": 8})).eval()
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model, [data[i] for i in range(len(data))]


def logits_alone(model, samples):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.cat([model(**collate_fn_dict_with_padding([each]))["logit"] for each in samples])


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pyhealth")
        warnings.filterwarnings("ignore", category=PredictionWarning)
        yield


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
@pytest.mark.parametrize("label", ["binary", "multiclass"])
def test_explains_what_the_model_says_of_each_patient_alone(kind, fuse, label):
    model, samples = made(kind, RECORDS.values(), label=label)
    found = DeepLift(model, rules="complete", fuse=fuse).explain(**collate_fn_dict_with_padding(samples))
    expected = logits_alone(model, samples)
    chosen = expected.argmax(1) if label == "multiclass" else torch.zeros(len(expected), dtype=torch.int64)
    assert torch.equal(found.target, chosen)
    torch.testing.assert_close(found.output, expected.gather(1, chosen[:, None])[:, 0])
    change = found.output - found.baseline_output
    torch.testing.assert_close(found.contributions["labs"].flatten(1).sum(1), change, rtol=1e-4, atol=1e-5)
    assert (found.contributions["labs"][1, 1:] == 0).all()
    for i, each in enumerate(samples):
        alone = DeepLift(model, rules="complete", fuse=fuse).attribute(**collate_fn_dict_with_padding([each]))["labs"][
            0
        ]
        torch.testing.assert_close(found.contributions["labs"][i, : len(alone)], alone)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
@pytest.mark.parametrize("schema", ["nested_sequence_floats", "stagenet_tensor"])
def test_hours_without_values_count_for_a_patient_alone(fuse, schema):
    model, samples = made(Transformer, [RECORDS["hours without values"], [SOME]], schema)
    batch = collate_fn_dict_with_padding(samples[:1])
    found = DeepLift(model, rules="complete", fuse=fuse).explain(**batch)
    torch.testing.assert_close(found.output, model(**batch)["logit"][:, 0].detach())


@pytest.mark.parametrize("kind", SIZES)
def test_pyhealths_mask_is_kept_under_pyhealth(kind):
    model, samples = made(kind, [RECORDS["hours without values"], [SOME]])
    batch = collate_fn_dict_with_padding(samples)
    time, value = batch["labs"]
    found = DeepLift(model, rules="pyhealth").explain(**batch)
    embedded = model.embedding_model({"labs": value})["labs"]
    mask = (value != 0).any(-1).int()
    own = model.forward_from_embedding(labs=(time, embedded, mask))["logit"][:, 0].detach()
    torch.testing.assert_close(found.output, own)
    assert not torch.allclose(own[:1], logits_alone(model, samples[:1])[:, 0])


@pytest.mark.parametrize("kind", [Transformer, StageAttentionNet, StageNet])
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
def test_a_record_without_codes_keeps_position_0(kind, fuse):
    """First visits have `[[]]` in PyHealth's drug tasks."""
    # StageAttentionNet looks at several empty visits alike, which no mask says; the others read the first alone.
    empty = [[]] if kind is StageAttentionNet else [[], []]
    visits = [[["a", "b"], ["c"]], [[]], [["c", "a", "d"]], empty]
    times = [[float(k) for k in range(len(each))] for each in visits]
    samples = [
        {"patient_id": f"p{i}", "hist": (times[i], each), "now": (None, ["x", "y"][: i % 2 + 1]), "label": i % 2}
        for i, each in enumerate(visits)
    ]
    data = create_sample_dataset(
        samples, dict.fromkeys(("hist", "now"), "stagenet"), {"label": "binary"}, in_memory=True
    )
    model, rows = kind(data, **SIZES[kind]).eval(), [data[i] for i in range(4)]
    for some in (rows, rows[1:2], rows[3:]):
        found = DeepLift(model, rules="complete", fuse=fuse).explain(**collate_fn_dict_with_padding(some))
        torch.testing.assert_close(found.output, logits_alone(model, some)[:, 0])
        assert (found.contributions["hist"][collate_fn_dict_with_padding(some)["hist"][1] == 0] == 0).all()


class TestWarning:
    @pytest.mark.parametrize("kind", SIZES)
    @pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
    def test_gives_the_largest_difference_once(self, kind, fuse):
        model, samples = made(kind, [RECORDS["shorter"], [SOME]])
        batch = collate_fn_dict_with_padding(samples)
        explainer = DeepLift(model, rules="complete", fuse=fuse)
        assert explainer.prediction_difference is None
        with pytest.warns(PredictionWarning, match="for 1 of 2 compared samples the model's logits") as caught:
            explainer.attribute(**batch)
        own, alone = model(**batch)["logit"].detach(), logits_alone(model, samples)
        found = explainer.prediction_difference
        assert (found.samples, found.differing) == (2, 1)
        assert found.logit == pytest.approx(float((own - alone).abs().max()), rel=1e-3)
        assert found.probability == pytest.approx(float((own.sigmoid() - alone.sigmoid()).abs().max()), rel=1e-3)
        texts = [str(each.message) for each in caught if issubclass(each.category, PredictionWarning)]
        assert len(texts) == 1
        assert f"{found.logit:.3g} in logit and {found.probability:.3g} in probability" in texts[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error", PredictionWarning)
            explainer.attribute(**batch)

    def test_waits_for_a_batch_with_padding(self):
        model, samples = made(StageNet, [RECORDS["shorter"], [SOME]])
        explainer = DeepLift(model, rules="complete")
        with warnings.catch_warnings():
            warnings.simplefilter("error", PredictionWarning)
            for each in samples:
                explainer.attribute(**collate_fn_dict_with_padding([each]))
        assert explainer.prediction_difference.differing == 0
        with pytest.warns(PredictionWarning, match="1 of 2 compared samples"):
            explainer.attribute(**collate_fn_dict_with_padding(samples))

    def test_is_given_once_though_two_batches_are_compared(self):
        model, samples = made(Transformer, [[SOME, MORE], [SOME, SOME]], "nested_sequence_floats")
        _, shorter = made(Transformer, [RECORDS["shorter"], [SOME]], "nested_sequence_floats")
        forward = model.forward
        model.forward = lambda **given: {"logit": forward(**given)["logit"] + 1}
        explainer = DeepLift(model, rules="complete", fuse=False)
        with pytest.warns(PredictionWarning, match="for 2 of 2 compared samples"):
            explainer.attribute(**collate_fn_dict_with_padding(samples))
        first = explainer.prediction_difference
        with warnings.catch_warnings():
            warnings.simplefilter("error", PredictionWarning)
            explainer.attribute(**collate_fn_dict_with_padding(shorter))
        assert explainer.prediction_difference.logit >= first.logit

    def test_is_given_once_by_threads_that_share_the_interpreter(self):
        model, samples = made(StageNet, [RECORDS["shorter"], [SOME]])
        batch, explainer = collate_fn_dict_with_padding(samples), DeepLift(model, rules="complete")
        together = threading.Barrier(4)

        def attribute(_):
            together.wait()
            explainer.attribute(**batch)

        with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(4) as threads:
            warnings.simplefilter("always")
            list(threads.map(attribute, range(4)))
        assert sum(issubclass(each.category, PredictionWarning) for each in caught) == 1

    def test_leaves_an_interpreter_that_can_be_copied(self):
        model, samples = made(StageNet, [RECORDS["shorter"], [SOME]])
        explainer = DeepLift(model, rules="complete")
        explainer.attribute(**collate_fn_dict_with_padding(samples))
        assert copy.deepcopy(explainer).prediction_difference == explainer.prediction_difference

    @pytest.mark.parametrize("kind", SIZES)
    def test_compares_the_shortest_and_the_longest_of_many_samples(self, kind):
        model, samples = made(kind, [RECORDS["shorter"], [SOME]])
        many = [*[samples[0]] * 39, samples[1]]
        explainer = DeepLift(model, rules="complete")
        with pytest.warns(PredictionWarning, match="for 1 of 16 compared samples"):
            explainer.attribute(**collate_fn_dict_with_padding(many))
        own = model(**collate_fn_dict_with_padding(many))["logit"].detach()
        expected = float((own - logits_alone(model, many)).abs().max())
        assert explainer.prediction_difference.logit == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize("part", [["note"] * 20, torch.tensor(1.0), torch.zeros(3)])
    def test_compares_all_samples_where_a_part_cannot_be_cut(self, part):
        value = torch.randn(20, 4, 2)
        features = {"x": Feature("x", (value, part), 0, None, False), "y": Feature("y", (value,), 0, None, False)}
        assert compared(features) is features
        assert len(compared({"y": features["y"]})["y"].value) == 16

    def test_finds_a_code_whose_embedding_is_0(self, cases):
        data = cases.dataset("sequence", patients=4)
        model, batch = cases.model("Transformer", data), cases.batch(data)
        with torch.no_grad():
            model.embedding_model.embedding_layers["sequence"].weight[batch["sequence"][0, 0]] = 0
        with pytest.warns(PredictionWarning, match="masks a code whose embedding is 0"):
            DeepLift(model, rules="complete").attribute(**batch)

    def test_finds_a_forward_that_does_more_than_is_explained(self, cases):
        class Two(MLP):
            def __init__(self, dataset):
                super().__init__(dataset, embedding_dim=8)
                self.second = MLP(dataset, embedding_dim=4)

            def forward(self, **given):
                return {"logit": super().forward(**given)["logit"] + self.second(**given)["logit"]}

        data = cases.dataset("sequence", patients=4)
        with pytest.warns(PredictionWarning, match="does more than its forward_from_embedding"):
            DeepLift(Two(data).eval(), rules="complete").attribute(**cases.batch(data))

    def test_says_that_the_model_fails(self, cases):
        class Failing(MLP):
            def forward(self, **given):
                raise KeyError("notes")

        data = cases.dataset("sequence", patients=4)
        explainer = DeepLift(Failing(data).eval(), rules="complete")
        with pytest.warns(PredictionWarning, match=r"model\(\*\*batch\) fails \(KeyError: 'notes'\)"):
            explainer.attribute(**cases.batch(data))

    @pytest.mark.parametrize(("kind", "feature"), [(MLP, "sequence"), (RNN, "sequence"), (Transformer, "sequence")])
    def test_is_not_given_where_padding_changes_nothing(self, cases, kind, feature):
        data = cases.dataset(feature, patients=4)
        with warnings.catch_warnings():
            warnings.simplefilter("error", PredictionWarning)
            DeepLift(kind(data).eval(), rules="complete").attribute(**cases.batch(data))
