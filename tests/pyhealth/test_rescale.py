"""rules="rescale": the Rescale rule, the default baseline, the convergence delta and what is done about it."""

import warnings

import pytest
import torch
from pyhealth.interpret.api import Interpretable
from pyhealth.models import BaseModel

from deeplift_fast import ConvergenceWarning, DeepLift

MODELS = ["StageNet", "StageAttentionNet", "Transformer", "Transformer, 2 layers", "MLP"]
pytestmark = pytest.mark.filterwarnings("ignore:Feature .* does not have time intervals", "ignore:.*before rescaling")


@pytest.mark.usefixtures("float64")
class TestNumbers:
    @pytest.mark.parametrize("name", MODELS)
    def test_are_those_of_hooks_and_a_backward_pass(self, cases, name):
        data = cases.dataset(*cases.MIXED[name], patients=16)
        made, given = cases.model(name, data, scale=1.5), cases.batch(data)
        found = DeepLift(made).explain(**given)
        raw, output, reference = cases.deeplift_by_hooks(made, given, cases.unknown_baseline(made, given))
        torch.testing.assert_close(found.output, output)
        torch.testing.assert_close(found.baseline_output, reference)
        torch.testing.assert_close(found.convergence_delta, cases.total(raw) - (output - reference))
        factor = ((output - reference) / cases.total(raw)).unsqueeze(1)
        torch.testing.assert_close(cases.flat(found.contributions), cases.flat(raw) * factor, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("label", ["multiclass", "multilabel"])
    def test_hold_for_a_chosen_class_and_baseline(self, cases, name, label):
        data = cases.dataset(*cases.MIXED[name], patients=6, label=label)
        made, given = cases.model(name, data), cases.batch(data)
        baseline = {key: value.roll(1, dims=0) for key, value in cases.values(made, given).items()}
        raw, output, reference = cases.deeplift_by_hooks(made, given, baseline, target=2)
        found, delta = DeepLift(made).attribute(baseline, 2, True, **given)
        torch.testing.assert_close(delta, cases.total(raw) - (output - reference))
        torch.testing.assert_close(cases.total(found), output - reference)

    @pytest.mark.parametrize("label", ["multiclass", "multilabel"])
    def test_are_those_of_the_largest_logit_by_default(self, cases, label):
        data = cases.dataset("sequence", "tensor", patients=12, label=label)
        made, given = cases.model("MLP", data, scale=2.0), cases.batch(data)
        found = DeepLift(made).explain(**given)
        logits = made(**given)["logit"]
        assert torch.equal(found.target, logits.argmax(1))
        torch.testing.assert_close(found.output, logits.max(1).values)

    @pytest.mark.parametrize("target", [None, 0, 1])
    def test_are_those_of_the_only_logit_whichever_class_is_asked_for(self, cases, target):
        data = cases.dataset("sequence", "tensor")
        made, given = cases.model("MLP", data), cases.batch(data)
        found = DeepLift(made).explain(None, target, **given)
        assert torch.equal(found.target, torch.zeros(8, dtype=torch.int64))
        torch.testing.assert_close(found.output, made(**given)["logit"].squeeze(1))

    def test_are_complete_without_rescaling_where_every_layer_is_linear_or_a_relu(self, cases):
        data = cases.dataset("sequence", "tensor", "multi_hot")
        made, given = cases.model("MLP", data, scale=2.0), cases.batch(data)
        _, delta = DeepLift(made).attribute(return_convergence_delta=True, **given)
        assert delta.abs().max() < 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_contributions_sum_to_the_difference_in_output(cases, name):
    data = cases.dataset(*cases.MIXED[name])
    found = DeepLift(cases.model(name, data)).explain(**cases.batch(data))
    torch.testing.assert_close(
        cases.total(found.contributions), found.output - found.baseline_output, rtol=1e-4, atol=1e-5
    )


class Squares(BaseModel, Interpretable):
    """`Σ x²`: the gradient at x knows nothing of the baseline, so a raw sum can have any sign."""

    def __init__(self, data):
        super().__init__(data)
        self.unused = torch.nn.Linear(1, 1)

    def forward(self, tensor, **_):
        return {"logit": (tensor[0] ** 2).sum(1, keepdim=True)}

    def forward_from_embedding(self, **parts):
        return self.forward(**parts)

    def get_embedding_model(self):
        return None


class TestConvergenceWarning:
    @pytest.fixture
    def squares(self, cases):
        return DeepLift(Squares(cases.dataset("tensor")).eval(), use_embeddings=False)

    @pytest.mark.parametrize(
        ("x", "x0", "suspect"),
        [
            ([2.0, 2.0, 2.0], [0.0, 0.0, 0.0], 0),  # raw sum 8, difference 4
            ([2.0, -1.0, 2.0], [0.0, 2.0, 0.0], 1),  # the second's raw sum is 6, its difference −3
            ([2.0, 0.0, 0.0], [0.0, 2.0, -1.0], 2),  # raw sums of 0, differences −4 and −1
            ([-1.0, 0.0, 2.0], [2.0, 2.0, 0.0], 2),
            ([1.0, 0.0, 3.0], [1.0, 0.0, 3.0], 0),  # nothing to explain
        ],
    )
    def test_counts_samples_whose_raw_sum_is_near_zero_or_of_the_wrong_sign(self, squares, x, x0, suspect):
        def column(values):
            return torch.tensor(values).unsqueeze(1)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _, delta = squares.attribute({"tensor": column(x0)}, None, True, tensor=column(x))
        messages = [str(w.message) for w in caught if w.category is ConvergenceWarning]
        assert len(messages) == (suspect > 0)
        assert all(f"{suspect} of 3 samples" in message and 'rules="complete"' in message for message in messages)
        assert [w.filename for w in caught] == [__file__] * len(messages)
        x, x0 = torch.tensor(x), torch.tensor(x0)
        torch.testing.assert_close(delta, 2 * x * (x - x0) - (x**2 - x0**2))

    def test_is_not_raised_for_samples_that_need_little_scaling(self, squares):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = squares.attribute({"tensor": torch.zeros(4, 2)}, tensor=torch.rand(4, 2) + 1)
        assert (found["tensor"] > 0).all()


def test_default_baseline_is_unknown_codes_and_001_with_padding_left(cases):
    data = cases.dataset(*cases.MIXED["StageNet"])
    made, given = cases.model("StageNet", data), cases.batch(data)
    explicit = cases.unknown_baseline(made, given)
    assert torch.equal(
        cases.flat(DeepLift(made).attribute(**given)), cases.flat(DeepLift(made).attribute(explicit, **given))
    )
