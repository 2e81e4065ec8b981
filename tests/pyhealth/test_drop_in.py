"""The class stands wherever PyHealth's own does: its interface, its evaluation, its ensembles, models of one's own."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from pyhealth.datasets import get_dataloader
from pyhealth.interpret.api import Interpretable
from pyhealth.interpret.methods import AvgEnsemble, CrhEnsemble, IntegratedGradients, VarEnsemble
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from pyhealth.interpret.methods.base_interpreter import BaseInterpreter
from pyhealth.metrics.interpretability import Evaluator, evaluate_attribution
from pyhealth.models import BaseModel
from torch import nn

from deeplift_fast import DeepLift

pytestmark = pytest.mark.filterwarnings("ignore:Feature .* does not have time intervals", "ignore:.*before rescaling")


class TestInterface:
    @pytest.fixture
    def made(self, cases):
        return cases.model("MLP", cases.dataset("sequence", "tensor"))

    def test_is_a_base_interpreter(self, made):
        interpreter = DeepLift(made)
        assert isinstance(interpreter, BaseInterpreter)
        assert interpreter.model is made
        assert interpreter.use_embeddings is True
        assert interpreter.rules == "rescale"

    def test_is_constructed_as_pyhealths_is(self):
        theirs, ours = (inspect.signature(kind).parameters for kind in (PyHealthDeepLift, DeepLift))
        assert list(ours)[: len(theirs)] == list(theirs)
        assert [ours[name].default for name in theirs] == [theirs[name].default for name in theirs]

    def test_attributes_as_pyhealths_does(self):
        theirs, ours = (list(inspect.signature(kind.attribute).parameters) for kind in (PyHealthDeepLift, DeepLift))
        assert ours[:3] == theirs[:3] == ["self", "baseline", "target_class_idx"]
        assert ours[3] == "return_convergence_delta"

    def test_shows_its_settings(self, made):
        assert repr(DeepLift(made)) == "DeepLift(model=MLP, use_embeddings=True, rules='rescale', baseline='unk')"
        assert repr(DeepLift(made, False, "pyhealth", baseline={"tensor": torch.zeros(8, 4)})) == (
            "DeepLift(model=MLP, use_embeddings=False, rules='pyhealth', baseline='tensor: tensor')"
        )
        shown = repr(DeepLift(made, rules="complete", steps=3, fuse=False))
        assert shown.endswith("rules='complete', steps=3, baseline='removed', fuse=False)")

    def test_is_callable(self, cases, made):
        given = cases.batch(made.dataset)
        interpreter = DeepLift(made)
        found, delta = interpreter(return_convergence_delta=True, **given)
        assert torch.equal(cases.flat(found), cases.flat(interpreter.attribute(**given)))
        assert delta.shape == (8,)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:Feature .* does not have mask information")
class TestPyHealthsTools:
    @pytest.mark.parametrize(("name", "kinds"), [("StageNet", ("stagenet",)), ("MLP", ("sequence",))])
    @pytest.mark.parametrize("label", ["binary", "multiclass"])
    def test_evaluation_takes_it_for_pyhealths(self, cases, name, kinds, label):
        data = cases.dataset(*kinds, patients=12, label=label)
        made, loader = cases.model(name, data), get_dataloader(data, batch_size=6)
        settings = {"percentages": [20, 50], "sample_filter": lambda found, _: torch.ones(len(found), dtype=torch.long)}
        scores = [
            evaluate_attribution(made, loader, method, **settings)
            for method in (PyHealthDeepLift(made), DeepLift(made, rules="pyhealth"))
        ]
        assert scores[0] == pytest.approx(scores[1], abs=1e-9)
        rescaled = Evaluator(made, **settings).evaluate_attribution(loader, DeepLift(made))
        assert set(rescaled) == {"comprehensiveness", "sufficiency"}
        assert all(abs(score) <= 1 for score in rescaled.values())

    @pytest.mark.parametrize("ensemble", [AvgEnsemble, CrhEnsemble, VarEnsemble])
    def test_ensembles_take_it_for_pyhealths(self, cases, ensemble):
        data = cases.dataset("stagenet", "stagenet_tensor")
        made, given = cases.model("StageNet", data), cases.batch(data)
        others = [IntegratedGradients(made, steps=3), DeepLift(made)]
        theirs, ours = (
            ensemble(made, [*others, method]).attribute(**given)
            for method in (PyHealthDeepLift(made), DeepLift(made, rules="pyhealth"))
        )
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in cases.values(made, given).items()}
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


class Own(BaseModel, Interpretable):
    """A model of one's own on a stand-in for a data set, with one feature `x`.

    Args:
        embedding: for tokens.
        head: from pooled embeddings, or from values, to logits.
    """

    def __init__(self, head, embedding=None, schema=("value",), label="binary"):
        processor = SimpleNamespace(schema=lambda: schema, is_token=lambda: embedding is not None)
        super().__init__(
            SimpleNamespace(input_schema={"x": "x"}, output_schema={"y": label}, input_processors={"x": processor})
        )
        self.embedding, self.head = embedding, head
        self.place = schema.index("value")

    def forward(self, x, **_):
        value = x[self.place]
        return self.forward_from_embedding(
            x=(self.get_embedding_model()({"x": value})["x"] if self.embedding else value,) * len(x)
        )

    def forward_from_embedding(self, x, **_):
        value = x[self.place]
        return {"logit": self.head(value.flatten(1, -2).mean(1) if self.embedding else value)}

    def get_embedding_model(self):
        return self.embedding and (lambda inputs: {key: self.embedding(value) for key, value in inputs.items()})


def relu_head(inputs, outputs=1):
    return nn.Sequential(nn.Linear(inputs, 6), nn.ReLU(), nn.Linear(6, outputs))


@pytest.mark.usefixtures("float64")
class TestModelsOfOnesOwn:
    def test_on_raw_values(self, cases):
        made, x = Own(relu_head(3)), torch.randn(20, 3)
        theirs = PyHealthDeepLift(made, use_embeddings=False).attribute(x=x, y=torch.zeros(20, 1))
        ours = DeepLift(made, use_embeddings=False, rules="pyhealth").attribute(x=x, y=torch.zeros(20, 1))
        assert cases.relative_error(ours, theirs).max() < 1e-9

    def test_on_raw_sequences(self, cases):
        made = Own(nn.Sequential(nn.Flatten(), relu_head(15)))
        x, baseline = torch.randn(20, 5, 3), {"x": torch.randn(20, 5, 3)}
        theirs = PyHealthDeepLift(made, use_embeddings=False).attribute(baseline, x=x)
        ours = DeepLift(made, use_embeddings=False, rules="pyhealth").attribute(baseline, x=x)
        assert cases.relative_error(ours, theirs).max() < 1e-9

    @pytest.mark.parametrize(("outputs", "target"), [(1, 0), (1, 1), (1, 5), (4, 0), (4, 3), (4, None)])
    def test_whose_data_set_does_not_say_how_many_classes_there_are(self, cases, outputs, target):
        made, x = Own(relu_head(3, outputs), label="multiclass"), torch.randn(20, 3)
        theirs = PyHealthDeepLift(made, use_embeddings=False).attribute(None, target, x=x)
        ours = DeepLift(made, use_embeddings=False, rules="pyhealth").attribute(None, target, x=x)
        assert cases.relative_error(ours, theirs).max() < 1e-9

    def test_is_asked_for_a_class_that_it_does_not_have(self):
        with pytest.raises(ValueError, match="target"):
            DeepLift(Own(relu_head(3, 4)), use_embeddings=False).attribute(None, 4, x=torch.randn(2, 3))

    def test_with_activations_that_are_no_modules(self):
        """PyHealth's class takes their gradient; the Rescale rule is complete on them."""

        def head(x):
            return torch.tanh(nn.functional.relu(x * 3 - 1).sum(1, keepdim=True)).sigmoid()

        _, delta = DeepLift(Own(head), use_embeddings=False).attribute(None, None, True, x=torch.randn(20, 3))
        assert delta.abs().max() < 1e-12

    def test_of_token_sequences(self, cases):
        made, tokens = Own(relu_head(4), nn.Embedding(9, 4, padding_idx=0)), torch.randint(0, 9, (20, 5))
        theirs = PyHealthDeepLift(made).attribute(x=tokens)
        ours = DeepLift(made, rules="pyhealth").attribute(x=tokens)
        assert cases.relative_error(ours, theirs).max() < 1e-9


class Notes(nn.Module):
    """Embeds notes of tokens, `[batch, notes, tokens]`, to one vector per note, as a language model's first token."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4, padding_idx=0)

    def forward(self, tokens):
        return self.table(tokens).cumsum(2)[:, :, -1]


@pytest.mark.usefixtures("float64")
class TestNotes:
    SCHEMA = ("value", "mask", "token_type_ids", "time", "type_tag")

    @pytest.fixture
    def given(self):
        tokens = torch.randint(2, 9, (6, 3, 5))
        tokens[0, 0, 2:] = tokens[1, 1:] = tokens[2] = 0
        return (tokens, (tokens != 0).int(), torch.zeros_like(tokens), torch.rand(6, 3), ["note"] * 6)

    def test_are_taken_with_parts_that_are_no_tensors(self, cases, given):
        made = Own(relu_head(4), Notes(), self.SCHEMA)
        theirs = PyHealthDeepLift(made).attribute(x=given)
        ours = DeepLift(made, rules="pyhealth").attribute(x=given)
        assert cases.relative_error(ours, theirs).max() < 1e-9

    def test_share_what_their_vector_gets_among_their_tokens(self, cases, given):
        found = DeepLift(Own(relu_head(4), Notes(), self.SCHEMA)).explain(x=given)
        tokens, shares = given[0], found.contributions["x"]
        torch.testing.assert_close(cases.total(found.contributions), found.output - found.baseline_output)
        assert (shares[tokens == 0] == 0).all()
        assert (shares[tokens > 1] != 0).any()
        per_note = shares.sum(-1, keepdim=True) / (tokens != 0).sum(-1, keepdim=True).clamp(min=1)
        torch.testing.assert_close(shares, per_note * (tokens != 0))
