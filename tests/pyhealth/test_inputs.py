"""What a batch may look like."""

import itertools

import pytest
import torch
from pyhealth.datasets import get_dataloader
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from pyhealth.models import AdaCare

from deeplift_fast import DeepLift

pytestmark = pytest.mark.filterwarnings("ignore:Feature .* does not have time intervals", "ignore:.*before rescaling")


@pytest.fixture
def timed(cases):
    """A StageNet on timed visits, with a data set of its own whose schema may be changed."""
    data = cases.dataset.__wrapped__("stagenet_nested")
    return cases.model("StageNet", data), cases.batch(data)["stagenet_nested"]


def with_schema(made, schema):
    made.dataset.input_processors["stagenet_nested"].schema = lambda: schema
    return DeepLift(made)


class TestSchema:
    @pytest.mark.parametrize("schema", list(itertools.permutations(("time", "value", "mask"))))
    def test_may_hold_value_time_and_mask_in_any_order(self, timed, schema):
        made, (time, value) = timed
        expected = DeepLift(made).attribute(stagenet_nested=(time, value))["stagenet_nested"]
        part = {"time": time, "value": value, "mask": value != 0}
        found = with_schema(made, schema).attribute(stagenet_nested=tuple(part[name] for name in schema))
        assert torch.equal(found["stagenet_nested"], expected)

    @pytest.mark.parametrize("schema", [("value", "time"), ("value",), ("mask", "value"), ("value", "kind", "time")])
    def test_may_lack_parts_and_hold_others(self, timed, schema):
        made, (time, value) = timed
        reference = time if "time" in schema else None
        expected = DeepLift(made).attribute(stagenet_nested=(reference, value))["stagenet_nested"]
        part = {"time": time, "value": value, "mask": (value != 0).float(), "kind": ["visit"] * len(value)}
        found = with_schema(made, schema).attribute(stagenet_nested=tuple(part[name] for name in schema))
        assert torch.equal(found["stagenet_nested"], expected)

    @pytest.mark.parametrize("kind", ["stagenet_nested", "stagenet_tensor"])
    @pytest.mark.parametrize("mask", [None, "derived"])
    def test_may_be_followed_by_a_mask(self, cases, kind, mask):
        data = cases.dataset(kind)
        made, (time, value) = cases.model("StageNet", data), cases.batch(data)[kind]
        steps = (value != 0).any(-1) if value.is_floating_point() else value != 0
        found = DeepLift(made).attribute(**{kind: (time, value, None if mask is None else steps.int())})
        assert torch.equal(found[kind], DeepLift(made).attribute(**{kind: (time, value)})[kind])

    def test_may_hold_a_mask_that_is_not_there(self, timed):
        made, (time, value) = timed
        expected = DeepLift(made).attribute(stagenet_nested=(time, value))["stagenet_nested"]
        found = with_schema(made, ("time", "value", "mask")).attribute(stagenet_nested=(time, value, None))
        assert torch.equal(found["stagenet_nested"], expected)

    def test_may_be_given_as_a_list(self, timed):
        made, (time, value) = timed
        found = DeepLift(made).attribute(stagenet_nested=[time, value])["stagenet_nested"]
        assert torch.equal(found, DeepLift(made).attribute(stagenet_nested=(time, value))["stagenet_nested"])


def test_a_tensor_is_the_same_as_a_tuple_of_one(cases):
    data = cases.dataset("sequence", "tensor")
    made, given = cases.model("MLP", data), cases.batch(data)
    found = DeepLift(made).attribute(sequence=(given["sequence"],), tensor=(given["tensor"],))
    assert torch.equal(cases.flat(found), cases.flat(DeepLift(made).attribute(**given)))


@pytest.mark.parametrize("name", ["StageNet", "StageAttentionNet"])
def test_without_times(cases, name):
    data = cases.dataset("stagenet")
    made, (_, value) = cases.model(name, data), cases.batch(data)["stagenet"]
    ones = torch.ones(value.shape)
    found = DeepLift(made).attribute(stagenet=(None, value))["stagenet"]
    assert torch.equal(found, DeepLift(made).attribute(stagenet=(ones, value))["stagenet"])


@pytest.mark.parametrize("name", ["StageNet", "Transformer", "MLP"])
@pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
def test_tokens_may_be_int32(cases, name, rules):
    data = cases.dataset("sequence")
    interpreter, tokens = DeepLift(cases.model(name, data), rules=rules), cases.batch(data)["sequence"]
    found = interpreter.attribute(sequence=tokens.int())
    assert torch.equal(found["sequence"], interpreter.attribute(sequence=tokens)["sequence"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_a_baseline_may_hold_tokens_of_any_integer_dtype(cases, dtype):
    data = cases.dataset("sequence")
    interpreter, tokens = DeepLift(cases.model("MLP", data)), cases.batch(data)["sequence"]
    baseline = tokens.flip(1)
    found = interpreter.attribute({"sequence": baseline.to(dtype)}, sequence=tokens)["sequence"]
    assert torch.equal(found, interpreter.attribute({"sequence": baseline}, sequence=tokens)["sequence"])


def test_labels_and_metadata_are_ignored(cases):
    data = cases.dataset("sequence", "tensor")
    made = cases.model("MLP", data)
    given = next(iter(get_dataloader(data, batch_size=len(data))))
    assert {"label", "patient_id", "visit_id"} <= set(given)
    found = DeepLift(made).attribute(**given)
    again = DeepLift(made).attribute(sequence=given["sequence"], tensor=given["tensor"])
    wrong = DeepLift(made).attribute(**{**given, "label": float("nan"), "note": object()})
    assert torch.equal(cases.flat(found), cases.flat(again))
    assert torch.equal(cases.flat(found), cases.flat(wrong))
    assert set(found) == {"sequence", "tensor"}


@pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
@pytest.mark.parametrize("name", ["StageNet", "Transformer, 2 layers", "MLP"])
def test_attributions_have_the_values_shapes(cases, name, rules):
    data = cases.dataset(*cases.MIXED[name])
    made, given = cases.model(name, data), cases.batch(data)
    found = DeepLift(made, rules=rules).attribute(**given)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in cases.values(made, given).items()}
    assert all(v.dtype == torch.float32 and not v.requires_grad for v in found.values())


@pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
@pytest.mark.parametrize("name", ["StageNet", "Transformer", "MLP"])
def test_an_empty_batch_gives_empty_attributions(cases, name, rules):
    data = cases.dataset(*cases.MIXED[name])
    made, given = cases.model(name, data), cases.batch(data)
    none = {k: tuple(t[:0] for t in v) if isinstance(v, tuple) else v[:0] for k, v in given.items()}
    found, delta = DeepLift(made, rules=rules).attribute(None, None, True, **none)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in cases.values(made, none).items()}
    assert all(v.dtype == torch.float32 for v in (*found.values(), delta))
    assert delta.shape == (0,)


@pytest.mark.parametrize("kinds", [("tensor",), ("multi_hot", "tensor_with_zeros")])
def test_transformers_take_unordered_values_which_pyhealths_class_cannot_mask(cases, kinds):
    data = cases.dataset(*kinds)
    made, given = cases.model("Transformer", data), cases.batch(data)
    with pytest.raises(RuntimeError):
        PyHealthDeepLift(made).attribute(**given)
    found = DeepLift(made).explain(**given)
    torch.testing.assert_close(found.output, made(**given)["logit"].squeeze(1))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(cases, context):
    data = cases.dataset(*cases.MIXED["Transformer"])
    made, given = cases.model("Transformer", data), cases.batch(data)
    expected = cases.flat(DeepLift(made).attribute(**given))
    with context():
        cloned = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        inside = cases.flat(DeepLift(made).attribute(**cloned))
    assert torch.equal(inside, expected)
    assert torch.equal(cases.flat(DeepLift(made).attribute(**cloned)), expected)


def test_labels_may_be_made_in_inference_mode(cases):
    """AdaCare computes the loss of the labels in its forward pass."""
    data = cases.dataset("sequence")
    made, given = AdaCare(data, embedding_dim=8).eval(), cases.batch(data)
    deeplift = DeepLift(made, rules="complete")
    expected, pairs = deeplift.attribute(**given), deeplift.interactions(**given)
    with torch.inference_mode():
        cloned = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        inside = deeplift.interactions(**given)
    torch.testing.assert_close(inside.values, pairs.values, equal_nan=True)
    torch.testing.assert_close(deeplift.attribute(**cloned), expected)


@pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
@pytest.mark.parametrize("fuse", [True, False])
def test_a_model_may_be_made_in_inference_mode(cases, rules, fuse):
    data = cases.dataset(*cases.MIXED["StageNet"])
    expected = cases.flat(
        DeepLift(cases.model("StageNet", data), rules=rules, fuse=fuse).attribute(**cases.batch(data))
    )
    with torch.inference_mode():
        made, given = cases.model("StageNet", data), cases.batch(data)
    assert torch.equal(cases.flat(DeepLift(made, rules=rules, fuse=fuse).attribute(**given)), expected)


@pytest.mark.parametrize("name", ["StageNet", "MLP"])
def test_frozen_parameters_do_not_matter(cases, name):
    data = cases.dataset(*cases.MIXED[name])
    made, given = cases.model(name, data), cases.batch(data)
    expected = cases.flat(DeepLift(made).attribute(**given))
    made.requires_grad_(False)
    assert torch.equal(cases.flat(DeepLift(made).attribute(**given)), expected)
