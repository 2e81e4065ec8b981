"""What a batch is compared with: by name, by number, by embedding, several, single tokens."""

import contextlib
import copy
import pickle
import warnings

import pytest
import torch
from pyhealth.models import MLP, RNN, LogisticRegression, StageNet, Transformer

from deeplift_fast import BaselineWarning, DeepLift
from deeplift_fast.pyhealth.feature_baselines import FAINT

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pyhealth", "ignore:.*before rescaling")
BOTH = pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
FUSED = {
    "StageNet": ("stagenet", "stagenet_nested", "stagenet_tensor"),
    "StageAttentionNet": ("stagenet", "stagenet_nested", "stagenet_tensor"),
    "Transformer, 2 layers": ("sequence", "timeseries", "tensor"),
    "MLP": ("sequence", "tensor", "multi_hot"),
}
FUSED_BY_KINDS = list(FUSED.items())


def rnn(data):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RNN(data, embedding_dim=8, hidden_dim=8).eval()


@pytest.fixture
def setting(cases):
    data = cases.dataset("sequence", "tensor")
    return cases.model("MLP", data), cases.batch(data)


def change(found):
    return found.output - found.baseline_output


def assert_complete(found, tolerance=1e-4):
    assert (found.convergence_delta.abs() <= tolerance * change(found).abs()).all()
    assert (change(found).abs() > 1e-5).all()


class TestRemoved:
    """The token's embedding, or the value, is all but gone; masks stay."""

    @BOTH
    @pytest.mark.parametrize(("name", "kinds"), FUSED_BY_KINDS)
    def test_is_the_output_without_embeddings_and_with_the_same_mask(self, cases, float64, name, kinds, fuse):
        data = cases.dataset(*kinds)
        made, given = cases.model(name, data), cases.batch(data)
        found = DeepLift(made, rules="complete", baseline="removed", fuse=fuse).explain(**given)
        layers, processors = made.embedding_model.embedding_layers, data.input_processors
        parts = {key: cases.masked(key, given[key], processors) for key in made.feature_keys}
        for key, each in parts.items():
            place = processors[key].schema().index("value")
            nothing = torch.zeros_like(each[place])
            if processors[key].is_token():
                nothing = torch.zeros(*nothing.shape, 8)
            else:
                nothing = layers[key](nothing)
            parts[key] = (*each[:place], nothing, *each[place + 1 :])
        expected = made.forward_from_embedding(**parts)["logit"]
        torch.testing.assert_close(found.baseline_output, expected[torch.arange(len(expected)), found.target])

    @BOTH
    def test_removes_no_step_from_an_rnn(self, cases, float64, fuse):
        """Its lengths are read off embeddings, and a removed step is still a step."""
        data = cases.dataset("sequence")
        made, given = rnn(data), cases.batch(data)
        found = DeepLift(made, rules="complete", fuse=fuse).explain(**given)
        lengths = (given["sequence"] != 0).sum(1)
        for i, length in enumerate(lengths.tolist()):
            _, last = made.rnn["sequence"].rnn(torch.zeros(1, length, 8))
            torch.testing.assert_close(found.baseline_output[i], made.fc(last[0])[0, 0])

    @BOTH
    def test_leaves_zeros_alone(self, cases, fuse):
        data = cases.dataset("sequence", "tensor_with_zeros")
        made, given = cases.model("MLP", data), cases.batch(data)
        found = DeepLift(made, rules="complete", fuse=fuse).attribute(**given)["tensor_with_zeros"]
        zero = given["tensor_with_zeros"] == 0
        assert zero.any()
        assert (found[zero] == 0).all()
        assert (found[~zero] != 0).all()

    @BOTH
    @pytest.mark.parametrize(("name", "kinds"), FUSED_BY_KINDS)
    def test_padding_gets_exactly_nothing(self, cases, name, kinds, fuse):
        data = cases.dataset(*kinds)
        made, given = cases.model(name, data), cases.batch(data)
        found = DeepLift(made, rules="complete", fuse=fuse).attribute(**given)
        for key, value in cases.values(made, given).items():
            assert (found[key][value == 0] == 0).all()

    @BOTH
    def test_goes_to_a_padding_row_that_is_not_zero(self, cases, float64, fuse):
        data = cases.dataset("sequence")
        made, given = cases.model("Transformer", data), cases.batch(data)
        layer = made.embedding_model.embedding_layers["sequence"]
        with torch.no_grad():
            layer.weight[0] = torch.linspace(-1, 1, 8)
        found = DeepLift(made, rules="complete", fuse=fuse).explain(**given)
        tokens = given["sequence"]
        row = layer.weight[0].expand(*tokens.shape, 8)
        expected = made.forward_from_embedding(sequence=(row, (tokens != 0).int()))["logit"]
        torch.testing.assert_close(found.baseline_output, expected[:, 0])
        assert_complete(found)

    def test_is_the_gradients_limit_for_faint_values(self):
        assert FAINT == 2.0**-100
        assert torch.tensor(1e-3) * FAINT != 0


class TestUnknown:
    @pytest.mark.parametrize("rules", ["rescale", "pyhealth", "complete"])
    def test_by_name_is_pyhealths(self, cases, setting, rules):
        made, given = setting
        by_name = DeepLift(made, rules=rules, baseline="unk").attribute(**given)
        full = cases.unknown_baseline(made, given)
        if rules == "pyhealth":
            full = {k: torch.full_like(v, 1 if k == "sequence" else 0.01) for k, v in full.items()}
        given_whole = DeepLift(made, rules=rules).attribute(full, **given)
        assert torch.equal(cases.flat(by_name), cases.flat(given_whole))

    @pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
    def test_is_the_default_of_these_rules(self, cases, setting, rules):
        made, given = setting
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BaselineWarning)
            found = DeepLift(made, rules=rules).explain(**given)
        assert found.baseline == "unk"
        named = DeepLift(made, rules=rules, baseline="unk").attribute(**given)
        assert torch.equal(cases.flat(found.contributions), cases.flat(named))


class TestWarning:
    def test_comes_once_for_tokens_without_a_baseline(self, setting):
        made, given = setting
        interpreter = DeepLift(made)
        with pytest.warns(BaselineWarning, match='pass baseline="removed"'):
            interpreter.attribute(**given)
        with warnings.catch_warnings():
            warnings.simplefilter("error", BaselineWarning)
            interpreter.attribute(**given)

    @pytest.mark.parametrize(
        ("rules", "baseline", "kinds"),
        [
            ("rescale", "unk", ("sequence",)),
            ("rescale", "removed", ("sequence",)),
            ("rescale", {"sequence": "unk"}, ("sequence",)),
            ("rescale", None, ("tensor",)),
            ("complete", None, ("sequence",)),
            ("pyhealth", None, ("sequence",)),
        ],
    )
    def test_does_not_come_otherwise(self, cases, rules, baseline, kinds):
        data = cases.dataset(*kinds)
        made, given = cases.model("MLP", data), cases.batch(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error", BaselineWarning)
            DeepLift(made, rules=rules, baseline=baseline).attribute(**given)
            DeepLift(made, rules=rules).attribute(baseline or "unk", **given)


class TestForms:
    """A name, a number, a tensor, a mapping of these, an embedding, several."""

    def test_a_calls_wins_over_the_interpreters(self, cases, setting):
        made, given = setting
        ours = DeepLift(made, rules="complete", baseline="unk")
        theirs = DeepLift(made, rules="complete", baseline="removed")
        assert ours.explain(**given).baseline == "unk"
        found = ours.explain("removed", **given)
        assert found.baseline == "removed"
        assert torch.equal(cases.flat(found.contributions), cases.flat(theirs.attribute(**given)))

    @BOTH
    def test_keys_that_are_missing_keep_the_default(self, cases, setting, fuse):
        made, given = setting
        removed = DeepLift(made, rules="complete", fuse=fuse)
        mixed = DeepLift(made, rules="complete", fuse=fuse, baseline={"tensor": 0.5})
        found = mixed.explain(**given)
        assert found.baseline == "tensor: 0.5; otherwise removed"
        whole = {"sequence": "removed", "tensor": torch.where(given["tensor"] != 0, 0.5, given["tensor"])}
        expected = removed.explain(whole, **given)
        torch.testing.assert_close(found.baseline_output, expected.baseline_output)
        assert torch.equal(cases.flat(found.contributions), cases.flat(expected.contributions))
        over = mixed.explain({"sequence": "unk"}, **given)
        expected = removed.explain({"sequence": "unk", "tensor": 0.5}, **given)
        assert torch.equal(cases.flat(over.contributions), cases.flat(expected.contributions))

    @pytest.mark.parametrize("step", [2, torch.tensor(2), torch.tensor(2, dtype=torch.int32)])
    def test_a_token_stands_at_every_real_position(self, cases, setting, step):
        made, given = setting
        found = DeepLift(made, rules="complete").explain({"sequence": step}, **given)
        whole = torch.where(given["sequence"] != 0, 2, 0)
        expected = DeepLift(made, rules="complete").explain({"sequence": whole}, **given)
        assert torch.equal(cases.flat(found.contributions), cases.flat(expected.contributions))

    def test_one_value_per_dimension(self, cases):
        data = cases.dataset("timeseries")
        made, given = cases.model("Transformer", data), cases.batch(data)
        step = torch.tensor([0.1, 0.2, 0.3])
        found = DeepLift(made, rules="complete").explain({"timeseries": step}, **given)
        real = given["timeseries"].any(-1, keepdim=True)
        whole = torch.where(real, step, 0.0)
        expected = DeepLift(made, rules="complete").explain({"timeseries": whole}, **given)
        assert torch.equal(cases.flat(found.contributions), cases.flat(expected.contributions))

    @BOTH
    @pytest.mark.parametrize("name", ["MLP", "Transformer", "StageNet", "RNN"])
    def test_an_embedding_in_place_of_each_tokens(self, cases, float64, name, fuse):
        kind = "stagenet_nested" if name == "StageNet" else "sequence"
        data = cases.dataset(kind)
        made = rnn(data) if name == "RNN" else cases.model(name, data)
        given = cases.batch(data)
        weight = made.embedding_model.embedding_layers[kind].weight
        explainer = DeepLift(made, rules="complete", fuse=fuse)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message="Feature")
            found = explainer.explain({kind: weight[3].clone()}, **given)
        expected = explainer.explain({kind: 3}, **given)
        torch.testing.assert_close(cases.flat(found.contributions), cases.flat(expected.contributions))
        torch.testing.assert_close(found.baseline_output, expected.baseline_output)
        assert_complete(found, 1e-9)

    @pytest.mark.filterwarnings("ignore::deeplift_fast.FusionWarning")
    def test_embeddings_of_their_own_for_each_token(self, cases, float64, setting):
        data = cases.dataset("sequence")
        made, given = cases.model("MLP", data), cases.batch(data)
        whole = torch.randn(*given["sequence"].shape, 8)
        found = DeepLift(made, rules="complete").explain({"sequence": whole}, **given)
        assert_complete(found, 1e-9)
        mask = given["sequence"] != 0
        expected = made.forward_from_embedding(sequence=(whole * mask.unsqueeze(-1), mask.int()))["logit"]
        torch.testing.assert_close(found.baseline_output, expected[:, 0])

    @BOTH
    def test_several_give_the_mean(self, cases, setting, fuse):
        made, given = setting
        weight = made.embedding_model.embedding_layers["sequence"].weight.detach()
        each = ["removed", {"sequence": weight.mean(0), "tensor": 0.2}, None]
        explainer = DeepLift(made, rules="complete", fuse=fuse, baseline=each)
        found = explainer.explain(**given)
        alone = [DeepLift(made, rules="complete", fuse=fuse).explain(one, **given) for one in each]
        mean = torch.stack([cases.flat(one.contributions) for one in alone]).mean(0)
        torch.testing.assert_close(cases.flat(found.contributions), mean)
        assert torch.equal(found.baseline_output, torch.stack([one.baseline_output for one in alone]))
        assert found.baseline == "mean over removed; sequence: embedding; tensor: 0.2; removed"

    def test_stand_in_report_and_result(self, setting):
        made, given = setting
        interpreter = DeepLift(made, rules="complete")
        assert interpreter.explain(**given).baseline == "removed"
        assert str(interpreter.report()).splitlines()[0] == "baseline: removed"
        interpreter.explain({key: given[key].clone() for key in made.feature_keys}, **given)
        assert interpreter.report().baseline == "tensors as given"

    def test_travel_with_the_interpreter(self, cases, setting):
        made, given = setting
        interpreter = DeepLift(made, rules="complete", baseline={"tensor": torch.zeros(4)})
        again = pickle.loads(pickle.dumps(interpreter))
        assert torch.equal(cases.flat(again.attribute(**given)), cases.flat(interpreter.attribute(**given)))

    def test_an_empty_batch(self, cases, setting):
        made, given = setting
        nothing = {key: value[:0] for key, value in given.items() if isinstance(value, torch.Tensor)}
        found = DeepLift(made, rules="complete", baseline=["removed", "unk"]).explain(**nothing)
        assert found.baseline_output.shape == (2, 0)


class TestAtBaseline:
    """Single tokens at the baseline: what is there without this code?"""

    @BOTH
    @pytest.mark.parametrize(("name", "kinds"), FUSED_BY_KINDS)
    def test_puts_these_there_and_leaves_the_rest(self, cases, float64, name, kinds, fuse):
        data = cases.dataset(*kinds)
        made, given = cases.model(name, data), cases.batch(data)
        key, value = kinds[0], cases.value_of(given[kinds[0]])
        first = torch.zeros_like(value, dtype=torch.bool)
        first.view(len(value), -1)[:, 0] = True
        interpreter = DeepLift(made, rules="complete", fuse=fuse)
        found = interpreter.explain(at_baseline={key: first}, **given)
        assert (found.contributions[key][~first] == 0).all()
        assert all((found.contributions[other] == 0).all() for other in kinds[1:])
        torch.testing.assert_close(found.contributions[key][first], change(found))
        layer = made.embedding_model.embedding_layers[key]
        embedded = torch.where(first.unsqueeze(-1), 0.0, layer(value))
        parts = {k: cases.masked(k, given[k], data.input_processors) for k in kinds}
        for k in kinds:
            place = data.input_processors[k].schema().index("value")
            own = embedded if k == key else made.embedding_model({k: parts[k][place]})[k]
            parts[k] = (*parts[k][:place], own, *parts[k][place + 1 :])
        expected = made.forward_from_embedding(**parts)["logit"]
        torch.testing.assert_close(found.baseline_output, expected[torch.arange(len(value)), found.target])
        assert interpreter.report().baseline == "removed, where at_baseline says"

    @BOTH
    @pytest.mark.parametrize("baseline", ["unk", "removed", {"sequence": 2}, {"sequence": torch.full((8,), 0.1)}])
    def test_everything_there_is_no_mask_at_all(self, cases, setting, fuse, baseline):
        made, given = setting
        every = {k: torch.ones_like(given[k], dtype=torch.bool) for k in made.feature_keys}
        interpreter = DeepLift(made, rules="complete", fuse=fuse, baseline=baseline)
        found, expected = interpreter.explain(at_baseline=every, **given), interpreter.explain(**given)
        torch.testing.assert_close(cases.flat(found.contributions), cases.flat(expected.contributions))

    @BOTH
    def test_two_players_share_the_difference_of_their_games(self, cases, float64, fuse):
        """In a linear model each token's contribution is what is lost without it."""
        data = cases.dataset("sequence")
        with torch.random.fork_rng(), contextlib.redirect_stdout(None):
            torch.manual_seed(0)
            made = LogisticRegression(data, embedding_dim=8).eval()
        given = cases.batch(data)
        interpreter = DeepLift(made, rules="complete", fuse=fuse)
        whole = interpreter.attribute(target_class_idx=0, **given)["sequence"]
        for place in range(given["sequence"].shape[1]):
            mask = torch.zeros_like(given["sequence"], dtype=torch.bool)
            mask[:, place] = True
            without = interpreter.explain(target_class_idx=0, at_baseline={"sequence": mask}, **given)
            torch.testing.assert_close(whole[:, place], change(without))

    @pytest.mark.parametrize(
        ("mask", "error", "message"),
        [
            (torch.ones(8, 5), TypeError, "at_baseline of feature 'sequence' is torch.float32; accepted: a bool"),
            (torch.ones(8, 1, dtype=torch.bool), ValueError, r"has shape \(8, 1\); accepted: the value's, \(8, 5\)"),
            ([True], TypeError, "at_baseline of feature 'sequence' is a list"),
        ],
    )
    def test_must_be_a_mask_of_the_value(self, setting, mask, error, message):
        made, given = setting
        with pytest.raises(error, match=message):
            DeepLift(made, baseline="unk").explain(at_baseline={"sequence": mask}, **given)

    def test_must_be_a_mapping_of_features(self, setting):
        made, given = setting
        with pytest.raises(TypeError, match="at_baseline is a Tensor; accepted: a dict"):
            DeepLift(made, baseline="unk").explain(at_baseline=torch.ones(1), **given)
        with pytest.raises(ValueError, match=r"at_baseline: unknown key\(s\) \['codes'\]"):
            DeepLift(made, baseline="unk").explain(at_baseline={"codes": torch.ones(1)}, **given)


@pytest.mark.parametrize("kind", [MLP, Transformer, StageNet, RNN])
def test_a_model_stays_as_it_is(cases, kind):
    data = cases.dataset("stagenet" if kind is StageNet else "sequence")
    sizes = {"chunk_size": 8, "levels": 1} if kind is StageNet else {}
    made, given = kind(data, embedding_dim=8, **sizes).eval(), cases.batch(data)
    before, draws = copy.deepcopy(made.state_dict()), torch.get_rng_state()
    for fuse in (True, False):
        DeepLift(made, rules="complete", baseline="removed", fuse=fuse).attribute(**given)
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())
    assert torch.equal(torch.get_rng_state(), draws)
