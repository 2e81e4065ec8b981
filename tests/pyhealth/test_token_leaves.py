"""Which tokens a model embeds, where several features hold equal ones."""

import pytest
import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.models import RNN, BaseModel, ConCare, EmbeddingModel
from torch import nn

from deeplift_fast import DeepLift, InterceptionError


@pytest.fixture(scope="module")
def data():
    """Vocabularies number codes as they come, so the first patient's tokens are `[[2]]` in both features."""
    pairs = [(["x"], ["y"]), (["u", "v"], ["w"]), (["v", "x", "u"], ["w", "y"])]
    samples = [{"patient_id": f"p{i}", "a": a, "b": b, "label": i % 2} for i, (a, b) in enumerate(pairs)]
    return create_sample_dataset(samples, {"a": "sequence", "b": "sequence"}, {"label": "binary"}, in_memory=True)


class Shared(BaseModel):
    """Two features in one table, and a weight for each; `order` is that of the calls, `copy` what comes before them."""

    def __init__(self, dataset, order="ab", copy=lambda tokens: tokens):
        super().__init__(dataset)
        self.embedding_model = EmbeddingModel(dataset, 4)
        self.embedding_model.embedding_layers["b"] = self.embedding_model.embedding_layers["a"]
        self.order, self.copy, self.fc = order, copy, nn.Linear(4, 1)

    def forward(self, **given):
        found = {key: self.embedding_model.embedding_layers[key](self.copy(given[key])) for key in self.order}
        both = torch.tanh(found["a"].sum(1)) + 3 * found["b"].sum(1)
        return {"logit": self.fc(both)}


def alone(model, given, key):
    """What removing a feature's only code does to the model's output."""
    mask = {key: torch.ones_like(given[key], dtype=torch.bool)}
    found = DeepLift(model, rules="complete").explain(at_baseline=mask, **given)
    return float(found.output - found.baseline_output), found.contributions


def removed(model, given, key):
    """The same, by hand: the tokens become padding, whose embedding is 0."""
    with torch.no_grad():
        return float(model(**given)["logit"] - model(**{**given, key: torch.zeros_like(given[key])})["logit"])


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("copy", [lambda t: t, torch.clone, lambda t: t.int().long(), lambda t: t.view(-1, 1)])
def test_features_that_share_a_table_and_hold_equal_tokens(data, order, copy):
    model = Shared(data, order, copy).eval()
    given = collate_fn_dict_with_padding([data[0]])
    assert torch.equal(given["a"], given["b"])
    for key in "ab":
        change, contributions = alone(model, given, key)
        assert change == pytest.approx(removed(model, given, key), abs=1e-6)
        assert float(contributions[key]) == pytest.approx(change, abs=1e-6)
        assert float(contributions["ba"["ab".index(key)]]) == 0


def test_one_tensor_in_two_features(data):
    given = collate_fn_dict_with_padding([data[0]])
    given["b"] = given["a"]
    found = DeepLift(Shared(data).eval(), rules="complete").explain(**given)
    total = sum(float(each) for each in found.contributions.values())
    assert total == pytest.approx(float(found.output - found.baseline_output), abs=1e-6)
    assert float(found.contributions["a"]) != float(found.contributions["b"])


def parts_of_one_tensor():
    """The same tokens for both features: one tensor, another view of it, views of one memory that overlap or not."""
    line = torch.tensor([2, 3, 2, 3, 2, 3])
    both = torch.stack([line, line])
    return {
        "one tensor": (line.view(3, 2), line.view(3, 2)),
        "two views": (line.view(3, 2), line.view(3, 2)[:]),
        "overlap": (line[:4].view(2, 2), line[2:].view(2, 2)),
        "halves": (both[0].view(3, 2), both[1].view(3, 2)),
        "interleaved": (both.T.contiguous()[:, 0].view(3, 2), both.T.contiguous()[:, 1].view(3, 2)),
    }


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("what", parts_of_one_tensor())
def test_each_feature_of_one_tensor_is_itself(data, order, what):
    """Whichever of the two the model embeds first in their table."""
    model = Shared(data, order).eval()
    a, b = parts_of_one_tensor()[what]
    given = {"a": a, "b": b}
    masks = {"a": torch.ones_like(a, dtype=torch.bool)}
    found = DeepLift(model, rules="complete").explain("unk", at_baseline=masks, **given)
    for explained, theirs in ((found.output, a), (found.baseline_output, torch.ones_like(a))):
        torch.testing.assert_close(explained, model(a=theirs, b=b, label=torch.zeros(len(a), 1))["logit"][:, 0])
    assert not found.contributions["b"].any()


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(ConCare, {"hidden_dim": 8, "num_head": 2, "pe_hidden": 8}), (RNN, {"hidden_dim": 8})],
)
@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_the_first_patient_alone(data, kind, sizes, rules):
    """ConCare takes the indices themselves as numbers, so no table tells its features apart."""
    model = kind(data, embedding_dim=8, **sizes).eval()
    given = collate_fn_dict_with_padding([data[0]])
    found = DeepLift(model, rules=rules, fuse=False).explain("removed", **given)
    assert all(float(each) != 0 for each in found.contributions.values())
    total = sum(float(each) for each in found.contributions.values())
    assert total == pytest.approx(float(found.output - found.baseline_output), abs=1e-5)


class Positions(Shared):
    """Also looks up positions, which may equal a feature's tokens, in a table of its own or in theirs."""

    def __init__(self, dataset, own):
        super().__init__(dataset)
        self.positions = nn.Embedding(9, 4) if own else self.embedding_model.embedding_layers["a"]

    def forward(self, **given):
        places = torch.arange(2, 2 + given["a"].shape[1])[None]
        found = self.embedding_model({key: given[key] for key in "ab"})
        return {"logit": self.fc(torch.tanh(found["a"] + self.positions(places)).sum(1) + found["b"].sum(1))}


def test_positions_that_equal_tokens_are_no_tokens(data):
    given = collate_fn_dict_with_padding([data[0]])
    model = Positions(data, own=True).eval()
    assert alone(model, given, "a")[0] == pytest.approx(removed(model, given, "a"), abs=1e-6)


def test_other_tokens_in_a_features_table_are_refused(data):
    given = collate_fn_dict_with_padding([data[1]])
    with pytest.raises(InterceptionError, match=r"embeds feature 'a' from other tokens .*of the same shape"):
        DeepLift(Positions(data, own=False).eval(), rules="complete").attribute(**given)
