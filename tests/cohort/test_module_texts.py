"""What decides a model's numbers beside its weights is in a cohort's identity."""

import dataclasses
import enum
import functools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cohort_cases import cohort, contents, manifest, raw, run
from hypothesis import given
from hypothesis import strategies as st
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.models import MLP, RNN, Transformer
from torch import nn
from torch.nn.utils import parametrize

from deeplift_fast.cohort import CohortError
from deeplift_fast.cohort.module_texts import EVERY, ITSELF, of_modules

SCHEMA = {"a": "sequence", "b": "sequence"}


def data_of(count=12):
    return create_sample_dataset(raw(count, SCHEMA), SCHEMA, {"label": "binary"}, dataset_name="cohort", in_memory=True)


def made(kind, data, **sizes):
    torch.manual_seed(0)
    return kind(data, **sizes).eval()


def doubled(module, args, output):
    return 2 * output


def halved(module, args):
    return tuple(0.5 * each for each in args)


def gradients(module, given, taken):
    return tuple(None if each is None else 2 * each for each in given)


class Scale:
    def __init__(self, by):
        self.by = by

    def __call__(self, module, args, output):
        return self.by * output


def hooked(model, register, hook, path="fc"):
    getattr(model.get_submodule(path), register)(hook)
    return model


def changed(model, path, name, value):
    setattr(model.get_submodule(path), name, value)
    return model


WIDTHS = {"embedding_dim": 8}
TWO_MODELS = {
    "relu, tanh": (
        lambda data: made(MLP, data, hidden_dim=6, activation="relu"),
        lambda data: made(MLP, data, hidden_dim=6, activation="tanh"),
        r'model\.modules\.activation: "torch\.nn\.modules\.activation\.ReLU.*" there, ".*Tanh.*" now',
    ),
    "heads": (
        lambda data: made(Transformer, data, embedding_dim=8, heads=1),
        lambda data: made(Transformer, data, embedding_dim=8, heads=4),
        r"attention: .*h=1.* there, .*h=4.* now",
    ),
    "forward hook": (
        lambda data: made(MLP, data),
        lambda data: hooked(made(MLP, data), "register_forward_hook", doubled),
        r'model\.modules\.fc: .* there, ".*forward_hooks: .*doubled" now',
    ),
    "forward pre-hook": (
        lambda data: made(MLP, data),
        lambda data: hooked(made(MLP, data), "register_forward_pre_hook", halved),
        "forward_pre_hooks: .*halved",
    ),
    "backward hook": (
        lambda data: made(MLP, data),
        lambda data: hooked(made(MLP, data), "register_full_backward_hook", gradients, "mlp"),
        "backward_hooks: .*gradients",
    ),
    "hook object": (
        lambda data: hooked(made(MLP, data), "register_forward_hook", Scale(2)),
        lambda data: hooked(made(MLP, data), "register_forward_hook", Scale(3)),
        r"Scale\('by': 2\).* there, .*Scale\('by': 3\)",
    ),
    "slope": (
        lambda data: changed(made(MLP, data), "", "activation", nn.LeakyReLU(0.1)),
        lambda data: changed(made(MLP, data), "", "activation", nn.LeakyReLU(0.2)),
        "negative_slope=0.1.* there, .*negative_slope=0.2.* now",
    ),
    "function": (
        lambda data: changed(made(MLP, data), "", "act", F.relu),
        lambda data: changed(made(MLP, data), "", "act", torch.tanh),
        "act=torch.nn.functional.relu.* there, .*act=.*tanh.* now",
    ),
    "forward of an instance": (
        lambda data: made(MLP, data),
        lambda data: changed(made(MLP, data), "fc", "forward", functools.partial(F.linear, weight=torch.ones(1, 256))),
        r"fc: .* there, .*forward=partial\(torch.*linear.* now",
    ),
}


@pytest.mark.parametrize("what", TWO_MODELS)
def test_another_model_of_the_same_weights_is_refused(what, tmp_path):
    first, second, said = TWO_MODELS[what]
    data = data_of()
    run(first(data), data, tmp_path, limit=5)
    before = contents(tmp_path)
    with pytest.raises(CohortError, match=said):
        run(second(data), data, tmp_path)
    assert contents(tmp_path) == before
    run(first(data), data, tmp_path)  # made anew, it is the same model
    assert manifest(tmp_path)["finished"]


def test_hooks_of_every_module_count(tmp_path):
    model = made(MLP, data_of())
    before = of_modules(model)
    handle = nn.modules.module.register_module_forward_hook(doubled)
    try:
        assert of_modules(model) == before | {EVERY: f"forward_hooks: {__name__}.doubled"}
    finally:
        handle.remove()
    assert of_modules(model) == before


def test_parametrized_weights_count():
    model = made(MLP, data_of())
    before = of_modules(model)
    parametrize.register_parametrization(model.fc, "weight", nn.Tanh(), unsafe=True)
    after = of_modules(model)
    assert "Parametrized" in after["fc"]
    assert set(before) < set(after)


def test_training_counts():
    model = made(RNN, data_of())
    assert of_modules(model) != of_modules(model.train())


def test_what_a_pass_leaves_does_not_count():
    """Attention maps and the like: nothing before the first pass, a tensor afterwards."""
    _, model = cohort("Transformer")
    before = of_modules(model)
    for module in model.modules():
        if hasattr(module, "attn_map"):
            module.attn_map = torch.ones(2)
    assert of_modules(model) == before


def test_where_a_model_is_does_not_count():
    one, other = (made(MLP, data_of(count)) for count in (12, 12))
    one.device_name, other.device_name = "same", "same"
    for model, place in ((one, "cpu"), (other, "cuda:0")):
        model.fc.device = torch.device(place)
    assert of_modules(one) == of_modules(other)


PLAIN = st.recursive(
    st.one_of(
        st.integers(),
        st.floats(allow_nan=False),
        st.booleans(),
        st.text(max_size=5),
        st.sampled_from([math.sin, math.cos, torch.relu, F.gelu, len, np.add, np.float32, torch.float16, Scale(1)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(lambda by: functools.partial(math.pow, by), inner),
        st.builds(lambda by: SimpleNamespace(by=by), inner),
    ),
    max_leaves=4,
)


class Small(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.inner[1].value = value


@given(PLAIN, PLAIN)
def test_plain_attributes_of_any_module_count(one, other):
    first, second = of_modules(Small(one)), of_modules(Small(other))
    alike = repr(one) == repr(other)
    assert (first == second) == alike
    assert first.keys() == {ITSELF, "inner", "inner.0", "inner.1"}
    assert {key: text for key, text in first.items() if key != "inner.1"} == {
        key: text for key, text in second.items() if key != "inner.1"
    }


def test_long_texts_are_shortened_and_still_differ():
    one, other = (of_modules(Small([*range(1000), last]))["inner.1"] for last in (1, 2))
    assert one != other
    assert len(one) < 600


class Fields(enum.Enum):
    ONE = object()
    TWO = torch.relu


@dataclasses.dataclass(slots=True)
class Slotted:
    by: int


@pytest.mark.parametrize(("one", "other"), [(Fields.ONE, Fields.TWO), (Slotted(1), Slotted(2))])
def test_members_of_enumerations_and_fields_without_a_dict_count(one, other):
    first, second = (of_modules(Small(each))["inner.1"] for each in (one, other))
    assert first != second
    assert "0x" not in first + second  # no address, which is another one in each process


class Counting(nn.Module):
    """Keeps what its passes were."""

    def __init__(self, layer, by=1.0):
        super().__init__()
        self.layer, self.by, self.last = layer, by, None
        self.calls, self.started, self.sizes, self.lengths = 0, False, [], {}

    def forward(self, x):
        self.calls, self.started, self.last = self.calls + 1, True, x.dim()
        self.sizes.append(len(x))
        self.lengths[self.calls] = float(x.sum())
        return self.layer(x) * self.by


def counting(data, by=1.0):
    model = made(MLP, data)
    return changed(model, "", "fc", Counting(model.fc, by))


def test_what_every_pass_changes_does_not_count(tmp_path):
    """Counters, caches and what the last pass was; another attribute of the same module does."""
    data = data_of()
    run(counting(data), data, tmp_path, limit=5)
    used = counting(data)
    batch = next(iter(get_dataloader(data, 7)))
    for _ in range(3):
        used(**batch)
    run(used, data, tmp_path)
    assert manifest(tmp_path)["finished"]
    assert (used.fc.calls, used.fc.sizes, len(used.fc.lengths)) == (3, [7] * 3, 3)
    text = manifest(tmp_path)["identity"]["model"]["modules"]["fc"]
    assert text == f"{__name__}.Counting(by=1.0, last=2, started=True, training=False)"
    with pytest.raises(CohortError, match=r"by=1\.0.* there, .*by=2\.0.* now"):
        run(counting(data, 2.0), data, tmp_path)


def test_a_model_that_cannot_take_the_first_sample_keeps_its_attributes(tmp_path):
    def failing():
        raise RuntimeError("no")

    model = counting(data_of())
    assert of_modules(model, failing) == of_modules(model)
