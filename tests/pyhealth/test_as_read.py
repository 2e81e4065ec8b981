"""Features that a model cuts or flattens before it reads them."""

import warnings

import pytest
import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.models import Transformer

from deeplift_fast import DeepLift, PredictionWarning

CODES = [f"c{i}" for i in range(9)]


def transformer(longest, kind="sequence"):
    """A model that takes so many steps, and a batch of two patients, of whom one has more."""
    codes = [[CODES[k % 9] for k in range(longest + 5)], CODES[:2]]
    value = {
        "sequence": codes,
        "nested_sequence": [[[code, CODES[0]] for code in each] for each in codes],
        "stagenet": [([float(k) for k in range(len(each))], each) for each in codes],
        "stagenet_tensor": [([float(k) for k in range(len(each))], [[k - 1.5, 0.5] for k in range(len(each))])
                            for each in codes],
    }[kind]  # fmt: skip
    samples = [{"patient_id": f"p{i}", "a": value[i], "b": CODES[i : i + 3], "label": i} for i in range(2)]
    data = create_sample_dataset(samples, {"a": kind, "b": "sequence"}, {"label": "binary"}, in_memory=True)
    return Transformer(data, embedding_dim=4, max_seq_len=longest).eval(), data


@pytest.mark.parametrize("kind", ["sequence", "nested_sequence", "stagenet", "stagenet_tensor"])
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_a_transformer_takes_the_first_steps(cases, kind, fuse, rules):
    model, data = transformer(7, kind)
    batch = cases.batch(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DeepLift(model, rules=rules, fuse=fuse).explain("removed", **batch)
        cut = {**batch, "a": first_steps(batch["a"], 7)}
        expected = DeepLift(model, rules=rules, fuse=fuse).explain("removed", **cut)
    assert found.contributions["a"].shape == cases.value_of(batch["a"]).shape
    assert (found.contributions["a"][:, 7:] == 0).all()
    assert torch.equal(found.contributions["a"][:, :7], expected.contributions["a"])
    assert torch.equal(found.contributions["b"], expected.contributions["b"])
    if kind != "stagenet_tensor":  # whose padding the model takes for real
        torch.testing.assert_close(found.output, model(**batch)["logit"][:, 0].detach())


def first_steps(feature, count):
    return tuple(part[:, :count] for part in feature) if isinstance(feature, tuple) else feature[:, :count]


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
def test_baselines_and_masks_are_those_of_the_whole_feature(cases, fuse):
    model, data = transformer(7)
    batch, explainer = cases.batch(data), DeepLift(model, rules="complete", fuse=fuse)
    baseline = {"a": torch.full_like(batch["a"], 1)}
    found = explainer.explain(baseline, **batch)
    other = {"a": baseline["a"].clone()}
    other["a"][:, 7:] = 3
    assert torch.equal(explainer.attribute(other, **batch)["a"], found.contributions["a"])
    last = torch.zeros_like(batch["a"], dtype=torch.bool)
    last[:, 7:] = True
    beyond = explainer.explain(at_baseline={"a": last}, **batch)
    torch.testing.assert_close(beyond.output, beyond.baseline_output)
    embedding = torch.randn(*batch["a"].shape, 4)
    assert (explainer.attribute({"a": embedding}, **batch)["a"][:, 7:] == 0).all()


def test_of_1024_steps_as_pyhealth_makes_it(cases):
    model, data = transformer(1024)
    batch = cases.batch(data)
    found = DeepLift(model, rules="complete").explain(**batch)
    assert (found.contributions["a"][0, 1024:] == 0).all()
    assert (found.contributions["a"][0, :1024] != 0).all()
    torch.testing.assert_close(found.output, model(**batch)["logit"][:, 0].detach())


@pytest.mark.parametrize("kinds", [("nested_sequence",), ("stagenet_nested",), ("nested_sequence", "tensor")])
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_an_mlp_at_padding_everywhere(cases, kinds, fuse, rules):
    """Masks are those of the input, so the mean of no code's embeddings is 0, not 0/0."""
    data = cases.dataset(*kinds, patients=5)
    model, batch = cases.model("MLP", data), cases.batch(data)
    padding = {kinds[0]: torch.zeros_like(cases.value_of(batch[kinds[0]]))}
    with warnings.catch_warnings():
        warnings.simplefilter("error", PredictionWarning)
        found = DeepLift(model, rules=rules, fuse=fuse).explain(padding, **batch)
    assert all(each.isfinite().all() for each in found.contributions.values())
    expected = DeepLift(model, rules=rules, fuse=fuse).explain({kinds[0]: "removed"}, **batch)
    torch.testing.assert_close(found.baseline_output, expected.baseline_output)
    torch.testing.assert_close(cases.flat(found.contributions), cases.flat(expected.contributions))
    torch.testing.assert_close(found.output, model(**batch)["logit"][:, 0].detach())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda cases: transformer(7), r"feature 'a': it has more than max_seq_len \(7\) steps"),
        (lambda cases: of_kind(cases, "Transformer", "tensor"), "feature 'tensor': it has no steps"),
        (lambda cases: of_kind(cases, "Transformer", "multi_hot"), "feature 'multi_hot': it has no steps"),
        (lambda cases: of_kind(cases, "MLP", "nested_sequence"), "feature 'nested_sequence': its tokens are nested"),
    ],
)
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
def test_where_pyhealths_own_deeplift_fails(cases, make, message, fuse):
    from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift

    model, data = make(cases)
    batch = cases.batch(data)
    with pytest.raises(Exception) as theirs:
        PyHealthDeepLift(model).attribute(**batch)
    assert isinstance(theirs.value, RuntimeError | ValueError | IndexError)
    with pytest.raises(ValueError, match=f"PyHealth's own DeepLift fails on a .* with {message}"):
        DeepLift(model, rules="pyhealth", fuse=fuse).attribute(**batch)


def of_kind(cases, name, kind):
    data = cases.dataset(kind, patients=4)
    return cases.model(name, data), data
