"""Bad input is refused, by name, before the model runs."""

import copy

import numpy as np
import pytest
import torch
from pyhealth.interpret.api import Interpretable
from pyhealth.models import BaseModel, StageNet
from torch import nn

from deeplift_fast import DeepLift

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def made(cases):
    """A model of timed codes, visits of codes and rows of numbers, for three classes."""
    return cases.model("StageNet", cases.dataset(*cases.MIXED["StageNet"], label="multiclass"))


@pytest.fixture
def given(cases, made):
    return {key: part for key, part in cases.batch(made.dataset).items() if key in made.feature_keys}


@pytest.fixture
def baseline(cases, made, given):
    return {key: value.clone() for key, value in cases.values(made, given).items()}


@pytest.fixture(autouse=True)
def _nothing_runs(made):
    """No module of any model is called in these tests, and the model stays as it is."""
    calls = []
    handle = nn.modules.module.register_module_forward_pre_hook(lambda module, _: calls.append(module))
    state, draws = copy.deepcopy(made.state_dict()), torch.get_rng_state()
    yield
    handle.remove()
    assert not calls
    assert all(torch.equal(state[name], tensor) for name, tensor in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())
    assert not any(module.training or module._forward_hooks for module in made.modules())
    assert torch.equal(torch.get_rng_state(), draws)


def refuses(made, error, message, baseline=None, target=None, **batch):
    with pytest.raises(error, match=message):
        DeepLift(made).attribute(baseline, target, **batch)


class TestInterpreter:
    @pytest.mark.parametrize("model", [None, nn.Linear(1, 1), StageNet])
    def test_needs_a_pyhealth_model(self, model):
        with pytest.raises(ValueError, match=r"accepted: a PyHealth model, with feature_keys and a dataset"):
            DeepLift(model)

    @pytest.mark.parametrize("rules", ["Rescale", "", None, ["rescale"], 1])
    def test_needs_a_known_rule_set(self, made, rules):
        with pytest.raises(ValueError, match="accepted: 'rescale', 'complete', 'pyhealth'"):
            DeepLift(made, rules=rules)

    def test_needs_an_embedding_model_for_embeddings(self, made, given, monkeypatch):
        monkeypatch.setattr(made, "get_embedding_model", lambda: None)
        refuses(made, ValueError, r"StageNet.get_embedding_model\(\) returned None", **given)


class TestFeatures:
    def test_must_all_be_there(self, made, given):
        del given["stagenet_nested"]
        refuses(made, ValueError, "lacks the feature.* 'stagenet_nested'", **given)

    @pytest.mark.parametrize("parts", [0, 1, 4])
    def test_must_be_as_many_tensors_as_the_schema(self, made, given, parts):
        given["stagenet"] = (given["stagenet"][1],) * parts
        refuses(made, ValueError, rf"'stagenet' has {parts} tensor.*\('time', 'value'\)", **given)

    def test_must_be_a_tuple_where_the_schema_holds_more_than_a_value(self, made, given):
        given["stagenet"] = given["stagenet"][1]
        refuses(made, ValueError, r"'stagenet' has 1 tensor.*\('time', 'value'\)", **given)

    @pytest.mark.parametrize("what", ["a code", None, 7, {"value": 1}, np.zeros((8, 2))])
    def test_must_be_tensors(self, made, given, what):
        refuses(
            made, TypeError, "feature 'stagenet' is a .*; accepted: a tensor, or a tuple", **{**given, "stagenet": what}
        )

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("time", lambda time, value: (time.tolist(), value)),
            ("value", lambda time, value: (time, None)),
            ("value", lambda time, value: (time, value.numpy())),
            ("mask", lambda time, value: (time, value, [1])),
        ],
    )
    def test_must_hold_tensors(self, made, given, name, change):
        given["stagenet"] = change(*given["stagenet"])
        refuses(made, TypeError, f"'stagenet': {name} is a ", **given)

    @pytest.mark.parametrize("key", ["stagenet", "stagenet_nested", "stagenet_tensor"])
    @pytest.mark.parametrize("position", [0, 1])
    def test_must_be_on_the_models_device(self, made, given, key, position):
        parts = list(given[key])
        parts[position] = parts[position].to("meta")
        refuses(made, ValueError, f"'{key}': .* is on meta, which holds no numbers", **{**given, key: tuple(parts)})

    def test_must_be_where_the_model_is(self, cases, given, made):
        away = copy.deepcopy(made).to("meta")
        refuses(away, ValueError, "the model is on meta, which holds no numbers", **given)

    @pytest.mark.parametrize("bad", [NAN, INF, -INF])
    @pytest.mark.parametrize("position", [0, 1])
    def test_must_be_finite(self, made, given, bad, position):
        parts = [part.clone() for part in given["stagenet_tensor"]]
        parts[position].view(-1)[:3] = bad
        refuses(made, ValueError, "'stagenet_tensor' holds 3 value", **{**given, "stagenet_tensor": tuple(parts)})

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.int16, torch.uint8])
    def test_must_hold_tokens_as_indices(self, made, given, dtype):
        time, value = given["stagenet"]
        refuses(
            made, TypeError, f"'stagenet' holds tokens as {dtype}", **{**given, "stagenet": (time, value.to(dtype))}
        )

    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.complex64])
    def test_must_hold_continuous_values_as_floating_point_numbers(self, made, given, dtype):
        time, value = given["stagenet_tensor"]
        refuses(
            made,
            TypeError,
            f"'stagenet_tensor' holds continuous values as {dtype}",
            **{**given, "stagenet_tensor": (time, value.to(dtype))},
        )

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
    def test_must_have_the_models_dtype(self, made, given, dtype):
        time, value = given["stagenet_tensor"]
        refuses(
            made,
            TypeError,
            f"'stagenet_tensor' is {dtype}, the layer that embeds it torch.float32",
            **{**given, "stagenet_tensor": (time, value.to(dtype))},
        )

    @pytest.mark.parametrize(("index", "message"), [(-1, "from -1 to"), (99, "to 99"), (12 + 2, "to 14")])
    def test_must_hold_tokens_of_the_vocabulary(self, made, given, index, message):
        time, value = given["stagenet_nested"]
        value = value.clone()
        value[0, 0, 0] = index
        refuses(
            made,
            ValueError,
            f"'stagenet_nested' holds token indices.*{message}",
            **{**given, "stagenet_nested": (time, value)},
        )

    def test_must_have_the_models_width(self, made, given):
        time, value = given["stagenet_tensor"]
        given["stagenet_tensor"] = (time, value[..., :2])
        refuses(made, ValueError, r"'stagenet_tensor' has shape .*, 2\); the model embeds 3", **given)

    @pytest.mark.parametrize("cut", [(slice(None), slice(0)), (slice(None), slice(None), slice(0))])
    def test_must_not_be_sequences_of_length_zero(self, made, given, cut):
        time, value = given["stagenet_nested"]
        given["stagenet_nested"] = (time[cut[:2]], value[cut])
        refuses(made, ValueError, "'stagenet_nested' has shape .* an empty sequence", **given)

    def test_must_have_one_batch_size(self, made, given):
        given["stagenet"] = tuple(part[:3] for part in given["stagenet"])
        refuses(made, ValueError, "differ in batch size.*'stagenet': 3, 'stagenet_nested': 8", **given)

    def test_must_have_one_batch_size_within(self, made, given):
        time, value = given["stagenet"]
        refuses(
            made,
            ValueError,
            "'stagenet'.*the first dimension must be the batch",
            **{**given, "stagenet": (time.T, value)},
        )

    def test_must_have_a_time_per_step(self, made, given):
        time, value = given["stagenet"]
        refuses(made, ValueError, "'stagenet': time has shape", **{**given, "stagenet": (time[:, 1:], value)})

    def test_must_have_a_mask_that_fits(self, made, given):
        time, value = given["stagenet"]
        mask = torch.ones(len(value), value.shape[1] + 1)
        refuses(made, ValueError, "'stagenet': the mask has shape", **{**given, "stagenet": (time, value, mask)})

    def test_must_have_a_batch(self, made, given):
        refuses(made, ValueError, "'stagenet' has no dimensions", **{**given, "stagenet": (None, torch.tensor(3))})

    def test_must_have_the_dimensions_of_a_sample(self, cases, made, given):
        given["stagenet"] = (None, given["stagenet"][1][0])
        refuses(made, ValueError, r"'stagenet' has shape \(\d,\), one dimension.*StageNetProcessor.*unsqueeze", **given)
        data = cases.dataset("tensor", patients=4)
        numbers = cases.batch(data)["tensor"][0]
        for name in ("MLP", "Transformer"):
            refuses(cases.model(name, data), ValueError, r"has shape \(4,\), one dimension.*unsqueeze", tensor=numbers)

    def test_must_not_be_tokens_without_embeddings(self, made, given):
        with pytest.raises(ValueError, match="'stagenet' holds token indices, which have no gradient"):
            DeepLift(made, use_embeddings=False).attribute(**given)


class TestOtherNames:
    """A single value is no metadata of a batch: it was meant as an argument, as Captum's `target` is."""

    @pytest.mark.parametrize("method", ["attribute", "explain", "interactions"])
    @pytest.mark.parametrize(
        ("name", "value", "shown"),
        [("target", 1, "1"), ("n_steps", 8, "8"), ("baselines", "unk", "str"), ("tops", None, "NoneType"),
         ("target", np.int64(1), "int64"), ("target", torch.tensor(1), "Tensor"), ("embed", True, "True"),
         ("hook", print, "builtin_function_or_method")],
    )  # fmt: skip
    def test_must_not_hold_single_values(self, made, given, method, name, value, shown):
        with pytest.raises(TypeError, match=rf"{name} is {shown}, .* Accepted: baseline, target_class_idx"):
            getattr(DeepLift(made), method)(**given, **{name: value})


class TestBaseline:
    @pytest.mark.parametrize("given_baseline", [0, torch.zeros(1), [0], [["unk"]], object()])
    def test_must_be_one_of_its_forms(self, made, given, given_baseline):
        refuses(made, TypeError, "baseline is a .*; accepted: None, a name", baseline=given_baseline, **given)
        with pytest.raises(TypeError, match=r"baseline is a .*; accepted: None, a name"):
            DeepLift(made, baseline=given_baseline)

    def test_must_have_no_other_keys(self, made, given, baseline):
        baseline["lab"] = torch.zeros(1)
        refuses(made, ValueError, r"unknown key\(s\) \['lab'\]; accepted: \['stagenet'", baseline=baseline, **given)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("mean", "baseline is 'mean'; accepted names: 'unk', 'removed'; deeplift_fast.baselines makes those that"),
            ({"stagenet": "zeros"}, "baseline of feature 'stagenet' is 'zeros'; accepted names: 'unk', 'removed'"),
            (["removed", "zeros"], "baseline is 'zeros'; accepted names"),
            ("typical", r"accepted: deeplift_fast.baselines.typical\(dataset\)"),
            ({"stagenet": "typical"}, r"feature 'stagenet': .*accepted: deeplift_fast.baselines.typical\(dataset\)"),
            ([], "baseline holds no baselines"),
        ],
    )
    def test_must_have_a_known_name(self, made, given, name, message):
        refuses(made, ValueError, message, baseline=name, **given)
        with pytest.raises(ValueError, match=message):
            DeepLift(made, baseline=name)

    @pytest.mark.parametrize("number", [0.5, float("nan")])
    def test_must_be_an_index_for_tokens(self, made, given, number):
        message = "baseline of feature 'stagenet' is torch.float32; accepted: integer token indices"
        refuses(made, TypeError, message, baseline={"stagenet": number}, **given)

    def test_must_be_a_finite_number(self, made, given):
        refuses(made, ValueError, "'stagenet_tensor' holds 1 value", baseline={"stagenet_tensor": NAN}, **given)

    @pytest.mark.parametrize("number", [-1, 10_000])
    def test_must_be_a_number_of_the_vocabulary(self, made, given, number):
        message = "baseline of feature 'stagenet' holds token indices"
        refuses(made, ValueError, message, baseline={"stagenet": number}, **given)

    def test_must_be_an_embedding_of_the_models_width(self, made, given):
        message = r"has shape \(5,\), and the embedding of 'stagenet' has width 8; accepted: \(8,\), or"
        refuses(made, ValueError, message, baseline={"stagenet": torch.zeros(5)}, **given)
        message = r"baseline of feature 'stagenet_tensor' has shape \(8,\); accepted: the value's, .*one step, \(3,\)"
        refuses(made, ValueError, message, baseline={"stagenet_tensor": torch.zeros(8)}, **given)

    @pytest.mark.parametrize("name", ["removed", {"stagenet": 2}, ["removed"]])
    def test_must_be_pyhealths_under_its_rules(self, made, given, name):
        with pytest.raises(ValueError, match="accepted under rules=\"pyhealth\": None, 'unk', or a dict"):
            DeepLift(made, rules="pyhealth", baseline=name)
        with pytest.raises(ValueError, match="accepted under rules=\"pyhealth\": None, 'unk', or a dict"):
            DeepLift(made, rules="pyhealth").attribute(name, **given)

    @pytest.mark.parametrize("key", ["stagenet", "stagenet_nested", "stagenet_tensor"])
    def test_must_have_the_values_shape(self, made, given, baseline, key):
        baseline[key] = baseline[key][:, :1]
        refuses(made, ValueError, f"baseline of feature '{key}' has shape", baseline=baseline, **given)

    def test_must_be_one_tensor_per_feature(self, made, given):
        refuses(made, TypeError, "baseline of feature 'stagenet' is a tuple", baseline=dict(given), **given)

    @pytest.mark.parametrize(
        ("key", "dtype"),
        [
            ("stagenet", torch.float32),
            ("stagenet", torch.bool),
            ("stagenet_tensor", torch.bool),
            ("stagenet_tensor", torch.float64),
        ],
    )
    def test_must_have_a_fitting_dtype(self, made, given, baseline, key, dtype):
        baseline[key] = baseline[key].to(dtype)
        refuses(made, TypeError, f"baseline of feature '{key}' is {dtype}; accepted", baseline=baseline, **given)

    def test_must_hold_tokens_of_the_vocabulary(self, made, given, baseline):
        baseline["stagenet"] += 50
        refuses(made, ValueError, "baseline of feature 'stagenet' holds token indices", baseline=baseline, **given)

    @pytest.mark.parametrize("bad", [NAN, INF])
    def test_must_be_finite(self, made, given, baseline, bad):
        baseline["stagenet_tensor"][0, 0] = bad
        refuses(made, ValueError, "baseline of feature 'stagenet_tensor' holds 3 value", baseline=baseline, **given)

    def test_must_hold_numbers(self, made, given, baseline):
        baseline["stagenet"] = baseline["stagenet"].to("meta")
        refuses(made, ValueError, "baseline of feature 'stagenet' is on meta", baseline=baseline, **given)


class TestTarget:
    @pytest.mark.parametrize("target", [-4, 3, 100])
    def test_must_be_a_class(self, made, given, target):
        refuses(made, ValueError, f"target_class_idx is {target}; accepted: -3 to 2", target=target, **given)

    @pytest.mark.parametrize("target", ["1", 1.0, True, [1], torch.tensor(1.0), torch.tensor([0, 1]), np.float32(1)])
    def test_must_be_an_int(self, made, given, target):
        refuses(made, TypeError, "target_class_idx is .*; accepted: an int", target=target, **given)

    @pytest.mark.parametrize("target", [2, -3])
    def test_must_be_one_of_two_for_a_single_logit(self, cases, target):
        data = cases.dataset("sequence")
        refuses(cases.model("MLP", data), ValueError, "accepted: -2 to 1", target=target, **cases.batch(data))


class Reader(BaseModel, Interpretable):
    """Reads the value of a feature whose schema has none."""

    def get_embedding_model(self):
        return None


def test_a_schema_without_a_value_has_nothing_to_attribute_to(cases):
    data = cases.dataset.__wrapped__("tensor")
    data.input_processors["tensor"].schema = lambda: ("text",)
    with pytest.raises(ValueError, match=r"schema \('text',\), which holds no 'value'"):
        DeepLift(Reader(data), use_embeddings=False).attribute(tensor=(torch.zeros(1),))
