"""Tensors that cannot be computed with, and models that have no logits: errors that name them."""

import types

import pytest
import torch
from pyhealth.models import GPT2, HALO, MLP, BaseModel, MedLink, TorchvisionModel

from deeplift_fast import DeepLift

UNUSUAL = {
    "float8_e4m3": (lambda t: t.to(torch.float8_e4m3fn), TypeError, "float8_e4m3fn"),
    "float8_e5m2": (lambda t: t.to(torch.float8_e5m2), TypeError, "float8_e5m2"),
    "bfloat16": (lambda t: t.bfloat16(), TypeError, "bfloat16"),
    "float16": (lambda t: t.half(), TypeError, "float16"),
    "quantized": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), TypeError, "quantized"),
    "coo": (lambda t: t.to_sparse(), TypeError, "sparse_coo"),
    "csr": (lambda t: t.to_sparse_csr(), TypeError, "sparse_csr"),
    "nested": (lambda t: torch.nested.nested_tensor(list(t)), TypeError, "nested"),
    "jagged": (lambda t: torch.nested.nested_tensor(list(t), layout=torch.jagged), TypeError, "nested"),
    "meta": (lambda t: t.to("meta"), ValueError, "on meta, which holds no numbers"),
    "complex": (lambda t: t.to(torch.complex64), TypeError, "complex64"),
    "conjugated": (lambda t: t.to(torch.complex64).conj(), TypeError, "conjugated and complex"),
    "negated": (lambda t: torch.complex(t, t).conj().imag, TypeError, "sign bit"),
}


@pytest.mark.parametrize(("change", "error", "said"), UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("where", ["feature", "baseline"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_cannot_be_computed_with(cases, change, error, said, where):
    data = cases.dataset("sequence", "tensor", patients=4)
    model, batch = cases.model("MLP", data), cases.batch(data)
    unusual = change(batch["tensor"])
    if where == "feature":
        given, baseline = {**batch, "tensor": unusual}, "removed"
    else:
        given, baseline = batch, {"tensor": unusual}
    with pytest.raises(error, match=f"'tensor'.*{said}|'tensor'.*holds continuous values as torch.{said}"):
        DeepLift(model).attribute(baseline, **given)


@pytest.mark.parametrize("kind", ["coo", "meta", "nested"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tokens_too(cases, kind):
    data = cases.dataset("sequence", patients=4)
    change, error, said = UNUSUAL[kind]
    given = {**cases.batch(data)}
    given["sequence"] = change(given["sequence"])
    with pytest.raises(error, match=f"feature 'sequence': value is .*{said}"):
        DeepLift(cases.model("MLP", data)).attribute(**given)


def test_a_model_on_meta(cases):
    data = cases.dataset("sequence", patients=4)
    with pytest.raises(ValueError, match="the model is on meta, which holds no numbers"):
        DeepLift(cases.model("MLP", data).to("meta")).attribute(**cases.batch(data))


@pytest.mark.parametrize("kind", [TorchvisionModel, GPT2, HALO, MedLink])
def test_models_without_logits(kind):
    model = kind.__new__(kind)
    torch.nn.Module.__init__(model)
    model.feature_keys, model.dataset = ["image"], types.SimpleNamespace(input_processors={})
    with pytest.raises(ValueError, match=rf"model is a {kind.__name__}: .*deeplift_fast.attribute\(model\.model, "):
        DeepLift(model)


@pytest.mark.parametrize("output", [{"y_prob": torch.zeros(4, 1)}, torch.zeros(4, 1), {"logit": None}])
@pytest.mark.parametrize("kind", [BaseModel, MLP], ids=["forward", "forward_from_embedding"])
def test_a_model_that_returns_no_logits(cases, kind, output):
    class Odd(kind):
        def forward(self, **given):
            return output

        forward_from_embedding = forward

    data = cases.dataset("tensor", patients=4)
    model = Odd(data).eval()
    model.fc = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"model is a Odd: its forward returns no tensor 'logit'.*model\.model"):
        DeepLift(model, rules="complete").attribute(**cases.batch(data))


@pytest.mark.parametrize(("kind", "count"), [("multiclass", 3), ("binary", 2)])
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "generic"])
def test_a_target_below_0_counts_from_the_last_class(cases, kind, count, fuse):
    data = cases.dataset("sequence", patients=6, label=kind)
    explainer, batch = DeepLift(cases.model("MLP", data), rules="complete", fuse=fuse), cases.batch(data)
    for target in range(count):
        found = explainer.explain(target_class_idx=target - count, **batch)
        expected = explainer.explain(target_class_idx=target, **batch)
        assert torch.equal(found.target, expected.target)
        assert torch.equal(found.contributions["sequence"], expected.contributions["sequence"])
