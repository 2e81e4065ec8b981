"""Tokens that a model uses twice: every table that embeds them is answered, and any other use is refused by name."""

import pytest
import torch
import torch.nn.functional as F
from pyhealth.models import MLP, BaseModel, EmbeddingModel, LogisticRegression
from torch import nn

from deeplift_fast import DeepLift, InterceptionError


@pytest.fixture
def data(cases):
    return cases.dataset("sequence", "nested_sequence", patients=4)


class Two(BaseModel):
    """An ensemble: two models with tables of their own."""

    def __init__(self, dataset, kind=MLP):
        super().__init__(dataset)
        self.first, self.second = kind(dataset, embedding_dim=4), kind(dataset, embedding_dim=6)

    def forward(self, **given):
        return {"logit": self.first(**given)["logit"] + self.second(**given)["logit"]}


class Named(Two):
    """The same, with the first one's table where other models have theirs."""

    def __init__(self, dataset):
        super().__init__(dataset)
        self.embedding_model = self.first.embedding_model


class Again(BaseModel):
    """Embeds its tokens, and uses them `besides`."""

    def __init__(self, dataset, besides):
        super().__init__(dataset)
        self.embedding_model = EmbeddingModel(dataset, 4)
        self.fc, self.further, self.besides = nn.Linear(4, 1), nn.Embedding(20, 1), besides

    def forward(self, **given):
        found = self.embedding_model({key: given[key] for key in self.feature_keys})
        logit = self.fc(torch.tanh(sum(each.flatten(1, -2).sum(1) for each in found.values())))
        return {"logit": logit + self.besides(self, given["sequence"])}


def unknown(given):
    return {
        key: (value != 0).long() if key in ("sequence", "nested_sequence") else value for key, value in given.items()
    }


@pytest.mark.parametrize("kind", [Two, Named, lambda data: Two(data, LogisticRegression)])
@pytest.mark.parametrize("baseline", ["removed", "unk"])
def test_every_table_of_an_ensemble_is_answered(cases, data, kind, baseline):
    model, given = kind(data).eval(), cases.batch(data)
    found = DeepLift(model, rules="complete").explain(baseline, **given)
    torch.testing.assert_close(found.output, model(**given)["logit"][:, 0])
    if baseline == "unk":
        torch.testing.assert_close(found.baseline_output, model(**unknown(given))["logit"][:, 0])
    change = found.output - found.baseline_output
    torch.testing.assert_close(cases.total(found.contributions), change, rtol=1e-4, atol=1e-6)


def test_one_code_of_an_ensemble(cases, data):
    """`at_baseline` puts one code at the unknown one in every table."""
    model, given = Two(data).eval(), cases.batch(data)
    first = torch.zeros_like(given["sequence"], dtype=torch.bool)
    first[:, 0] = True
    found = DeepLift(model).explain("unk", at_baseline={"sequence": first}, **given)
    other = {**given, "sequence": torch.where(first, 1, given["sequence"])}
    torch.testing.assert_close(found.baseline_output, model(**other)["logit"][:, 0])


OTHER_USES = {
    "one-hot": lambda model, tokens: F.one_hot(tokens, 20).float().sum(1) @ model.further.weight,
    "one code": lambda _, tokens: (tokens == 5).float().sum(1, keepdim=True),
    "indexing": lambda model, tokens: model.further.weight[tokens].sum(1),
    "hashing": lambda model, tokens: model.further(tokens % 7).sum(1),
    "numbers": lambda _, tokens: tokens.float().sum(1, keepdim=True),
    "bag": lambda model, tokens: F.embedding_bag(tokens, model.further.weight, mode="sum"),
}


@pytest.mark.parametrize("besides", OTHER_USES.values(), ids=OTHER_USES)
@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_any_other_use_is_refused_by_name(cases, data, besides, rules):
    model, given = Again(data, besides).eval(), cases.batch(data)
    given["sequence"][0, 0] = 5
    explainer = DeepLift(model, rules=rules, baseline="removed")
    for _ in range(2):  # refused once is not found fit
        with pytest.raises(InterceptionError, match=r"uses the tokens of feature\(s\) 'sequence' besides embedding"):
            explainer.attribute(**given)


SAME_USES = {
    "mask": lambda _, tokens: (tokens != 0).float().sum(1, keepdim=True),
    "length": lambda _, tokens: (tokens > 0).sum(1, keepdim=True).log(),
    "shape": lambda _, tokens: torch.zeros(len(tokens), 1) + tokens.shape[0],
    "second table": lambda model, tokens: model.further(tokens).sum(1),
    "a copy in a second table": lambda model, tokens: model.further(tokens.clone().int().long()).sum(1),
}


@pytest.mark.parametrize("besides", SAME_USES.values(), ids=SAME_USES)
def test_uses_that_are_alike_in_both_streams_are_taken(cases, data, besides):
    model, given = Again(data, besides).eval(), cases.batch(data)
    found = DeepLift(model, rules="complete").explain("unk", **given)
    torch.testing.assert_close(found.baseline_output, model(**unknown(given))["logit"][:, 0])
    change = found.output - found.baseline_output
    torch.testing.assert_close(cases.total(found.contributions), change, rtol=1e-4, atol=1e-6)


def test_a_batch_of_unknown_codes_alone_tells_nothing(cases, data):
    model, given = Again(data, OTHER_USES["one-hot"]).eval(), cases.batch(data)
    explainer = DeepLift(model, rules="complete")
    explainer.attribute(**unknown(given))
    with pytest.raises(InterceptionError, match="'sequence' besides"):
        explainer.attribute(**given)


def test_a_table_made_in_the_forward_pass_is_refused(cases, data):
    model = Again(data, lambda model, tokens: F.embedding(tokens, model.further.weight * 2).sum(1)).eval()
    with pytest.raises(InterceptionError, match="feature 'sequence' with a table that it makes in its forward pass"):
        DeepLift(model, rules="complete").attribute(**cases.batch(data))


def test_a_table_that_is_replaced_is_found(cases, data):
    model, given = Two(data).eval(), cases.batch(data)
    explainer = DeepLift(model, rules="complete")
    before = explainer.explain(**given)
    model.second = MLP(data, embedding_dim=3).eval()
    found = explainer.explain(**given)
    torch.testing.assert_close(found.output, model(**given)["logit"][:, 0])
    assert not torch.allclose(found.output, before.output)


def test_an_embedding_cannot_stand_for_several_tables(cases, data):
    with pytest.raises(ValueError, match=r"'sequence' is an embedding, and the model embeds its tokens with 2 tables"):
        DeepLift(Named(data).eval()).attribute({"sequence": torch.zeros(4)}, **cases.batch(data))


def test_it_is_looked_at_once(cases, data):
    model, given = Two(data).eval(), cases.batch(data)
    explainer, calls = DeepLift(model, rules="complete"), []
    model.first.fc.register_forward_hook(lambda *_: calls.append(1))
    counts = []
    for _ in range(3):
        explainer.attribute(**given)
        counts.append(len(calls))
    assert counts[0] > counts[1] - counts[0] == counts[2] - counts[1]
