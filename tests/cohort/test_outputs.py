"""A model is told from another one by its outputs, where its weights and attributes do not tell."""

import json

import numpy as np
import pytest
import torch
from cohort_cases import cohort, contents, manifest, run, spoiled
from hypothesis import assume, given
from hypothesis import strategies as st
from pyhealth.datasets import get_dataloader

from deeplift_fast import DeepLift
from deeplift_fast.cohort import CohortError
from deeplift_fast.cohort.outputs import check_same_outputs, difference, outputs_of
from deeplift_fast.cohort.reading import open_source


def of(model, data):
    return outputs_of(DeepLift(model), open_source(data, model).examples())


@pytest.mark.parametrize("kind", ["MLP", "Transformer", "StageNet"])
def test_they_are_the_models_own(kind, untouched):
    data, model = cohort(kind)
    with untouched(model):
        found = of(model, data)
    spread = np.unique(np.linspace(0, 22, 16).astype(int))
    for index, logits in zip(spread, found, strict=True):
        batch = next(iter(get_dataloader([data[int(index)]], 1)))
        with torch.no_grad():
            assert logits == pytest.approx(model(**batch)["logit"].flatten().tolist(), rel=1e-5)


def test_samples_that_the_model_cannot_take_have_none(tmp_path):
    samples, model, reasons = spoiled()
    found = of(model, samples)
    spread = np.unique(np.linspace(0, 22, 16).astype(int)).tolist()
    assert [each is None for each in found] == [index in reasons for index in spread]
    run(model, samples, tmp_path)
    run(model, samples, tmp_path)


class Scaled(torch.nn.Module):
    """A last layer whose numbers hang on what neither weights nor plain attributes tell."""

    def __init__(self, layer, by):
        super().__init__()
        self.layer = layer
        self.register_buffer("by", torch.tensor(by), persistent=False)

    def forward(self, x):
        return self.layer(x) * self.by


def scaled(by):
    data, model = cohort()
    model.fc = Scaled(model.fc, by)
    return data, model


def shifted(by):
    data, model = cohort()
    model.fc.register_forward_hook(lambda module, args, output: output + by)  # of one name, whatever it adds
    return data, model


def tensor(by):
    data, model = cohort()
    model.fc.scale = torch.tensor(by)
    model.fc.forward = lambda x: torch.nn.functional.linear(x, model.fc.weight, model.fc.bias) * model.fc.scale
    return data, model


@pytest.mark.parametrize("change", [scaled, shifted, tensor])
@pytest.mark.parametrize("as_batches", [False, True])
def test_another_model_is_refused_by_its_outputs(change, as_batches, tmp_path):
    def given(by):
        data, model = change(by)
        return model, list(get_dataloader(data, 6)) if as_batches else data

    run(*given(1.0), tmp_path, limit=5)
    before = contents(tmp_path)
    with pytest.raises(CohortError, match=r"another model: .*outputs for \d+ samples .* differ by up to .*accepted"):
        run(*given(1.001), tmp_path)
    assert contents(tmp_path) == before
    run(*given(1.0 + 2e-6), tmp_path)  # as another processor rounds


ROUNDED = st.floats(-1e-6, 1e-6)
LOGITS = st.lists(st.lists(st.floats(-50, 50), min_size=2, max_size=2), min_size=1, max_size=16)


@given(LOGITS, st.data())
def test_what_is_rounded_otherwise_is_the_same(logits, draw):
    other = [[each * (1 + draw.draw(ROUNDED)) for each in one] for one in logits]
    assert difference(logits, other) <= 1e-5
    check_same_outputs(logits, other, "out")


@given(LOGITS, st.data(), st.floats(2e-4, 2))
def test_a_difference_of_any_one_output_is_seen(logits, draw, by):
    place, column = draw.draw(st.integers(0, len(logits) - 1)), draw.draw(st.integers(0, 1))
    size = max(np.abs(np.array(logits)).max(1).tolist())
    assume(size > 1e-3)
    other = [list(one) for one in logits]
    other[place][column] += by * size * (1 if draw.draw(st.booleans()) else -1)
    assume(difference([[0.0]], [[by]]) > 0)
    with pytest.raises(CohortError, match="another model"):
        check_same_outputs(logits, [[each * 1.0 for each in one] for one in other], "out", eps=0.0)


@pytest.mark.parametrize("now", [[[1.0], None], [[1.0]], [[1.0, 2.0], [2.0]], [[1.0], [2.0], [3.0]]])
def test_missing_outputs_and_other_classes_are_differences(now):
    assert difference([[1.0], [2.0]], now) == np.inf


def test_random_outputs_are_not_compared():
    data, model = cohort("Transformer")
    interpreter = DeepLift(model)
    model.train()
    assert outputs_of(interpreter, open_source(data, model).examples()) is None
    check_same_outputs(None, [[1.0]], "out")
    check_same_outputs([[1.0]], None, "out")


@pytest.mark.parametrize("outputs", [3, "x", [1], [["x"]], [[True]], {"a": []}])
def test_a_manifest_with_other_things_for_outputs_is_refused(outputs, copied):
    data, model, out = copied
    (out / "manifest.json").write_text(json.dumps(manifest(out) | {"outputs": outputs}))
    with pytest.raises(CohortError, match=r"manifest\.json in .*outputs holds"):
        run(model, data, out)
