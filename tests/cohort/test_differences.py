"""A manifest holds how far what the model says is from what is explained; a run tells it once, wherever it was seen."""

import json
import math
import warnings

import pytest
import torch
from cohort_cases import cohort, manifest, run
from pyhealth.datasets import create_sample_dataset
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.models import RNN, StageNet

from deeplift_fast import DeepLift, PredictionWarning
from deeplift_fast.cohort import CohortError, attribute_cohort, parts
from deeplift_fast.cohort.differences import Differences
from deeplift_fast.cohort.manifest import Manifest
from deeplift_fast.pyhealth.predictions import PredictionDifference
from deeplift_fast.report import SummaryError, summarise

SIZES = {"embedding_dim": 8, "chunk_size": 4, "conv_size": 3}


def padded(count=8, kind=StageNet, label="binary", scale=1.5):
    """Patients with 1 to 4 lab steps, whose batches are padded, and a model that takes padded steps for real."""
    draw = torch.Generator().manual_seed(0)
    samples = [
        {"patient_id": f"secret-{i}", "labs": ([float(k) for k in range(1 + i % 4)], rows), "label": i % 2}
        for i in range(count)
        for rows in [torch.randn(1 + i % 4, 2, generator=draw).tolist()]
    ]
    if label == "regression":
        samples = [each | {"label": float(each["label"])} for each in samples]
    data = create_sample_dataset(samples, {"labs": "stagenet_tensor"}, {"label": label}, in_memory=True)
    torch.manual_seed(0)
    model = kind(data, **(SIZES if kind is StageNet else {"embedding_dim": 8, "hidden_dim": 8})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return data, model


def told(action):
    """The words of each PredictionWarning that an action gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(each.message) for each in caught if issubclass(each.category, PredictionWarning)]


def expected(model, data, samples):
    """What one interpreter finds of these samples in one batch."""
    explainer = DeepLift(model, rules="complete")
    batch = [data[i] for i in samples]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PredictionWarning)
        explainer.attribute(**collate_fn_dict_with_padding(batch))
    return explainer.prediction_difference


def assert_holds(out, found):
    held = manifest(out)["prediction_difference"]
    assert (held["samples"], held["differing"], held["failure"]) == (found.samples, found.differing, "")
    assert held["logit"] == pytest.approx(found.logit, rel=1e-3)
    assert held["probability"] == pytest.approx(found.probability, rel=1e-3)


def test_a_manifest_holds_the_difference_and_the_run_tells_it_once(tmp_path):
    data, model = padded()
    words = told(lambda: run(model, data, tmp_path / "out", "complete", budget=1000, part_samples=8))
    found = expected(model, data, range(8))
    assert found.differing == 6  # those with fewer than four steps
    assert found.logit > 1e-3
    assert_holds(tmp_path / "out", found)
    assert len(words) == 1
    assert "for 6 of 8 compared samples the model's logits in this batch differ from the explained ones" in words[0]
    assert f"{found.logit:.3g} in logit and {found.probability:.3g} in probability" in words[0]


@pytest.mark.parametrize("options", [{}, {"part_samples": 2}, {"part_samples": 3, "read_ahead": 0}])
def test_it_is_told_once_however_many_parts_there_are(options, tmp_path):
    data, model = padded(16)
    assert len(told(lambda: run(model, data, tmp_path / "out", "complete", **options))) == 1
    assert manifest(tmp_path / "out")["prediction_difference"]["differing"] > 0


def test_samples_of_one_length_do_not_differ(tmp_path):
    data, model = padded()
    out = tmp_path / "out"
    assert told(lambda: run(model, [data[3], data[7]], out, "complete", budget=1000)) == []
    held = manifest(out)["prediction_difference"]
    assert (held["samples"], held["differing"], held["failure"]) == (2, 0, "")
    assert held["logit"] < 1e-5


@pytest.mark.parametrize("kind", ["MLP", "Transformer"])
def test_a_model_that_never_differs(kind, tmp_path):
    data, model = cohort(kind)
    assert told(lambda: run(model, data, tmp_path / "out")) == []
    held = manifest(tmp_path / "out")["prediction_difference"]
    assert held["samples"] > 0
    assert held["differing"] == 0


def test_a_model_that_is_run_by_its_own_forward_is_not_compared(tmp_path):
    data, model = padded(kind=RNN)
    assert told(lambda: run(model, data, tmp_path / "out", "complete")) == []
    assert manifest(tmp_path / "out")["prediction_difference"] is None


def test_there_is_no_probability_in_regression(tmp_path):
    data, model = padded(label="regression")
    (words,) = told(lambda: run(model, data, tmp_path / "out", "complete", budget=1000, part_samples=8))
    assert "in logit: model(**batch)" in words
    held = manifest(tmp_path / "out")["prediction_difference"]
    assert held["probability"] is None
    assert held["logit"] > 1e-3


class TestResumed:
    def test_keeps_the_larger_of_old_and_new(self, tmp_path):
        data, model = padded()
        out = tmp_path / "out"
        run(model, data, out, "complete", budget=1000, part_samples=4, limit=4)
        first = manifest(out)["prediction_difference"]
        assert_holds(out, expected(model, data, range(4)))
        about = manifest(out)
        for change, kept in (({"logit": 9.0, "samples": 77}, True), ({"logit": 1e-7, "probability": 0.5}, False)):
            stored = about | {"prediction_difference": first | change}
            (out / "manifest.json").write_text(json.dumps(stored))
            (out / "samples" / "part-000001.parquet").unlink(missing_ok=True)
            assert len(told(lambda: run(model, data, out, "complete", budget=1000, part_samples=4))) == 1
            held = manifest(out)["prediction_difference"]
            assert (held["logit"] == 9.0, held["samples"] == 77) == (kept, kept)
            assert held["probability"] == (first["probability"] if kept else 0.5)
            assert held["logit"] == pytest.approx(9.0 if kept else expected(model, data, range(4, 8)).logit, rel=1e-3)

    def test_with_nothing_to_do_keeps_it_and_tells_nothing(self, tmp_path):
        data, model = padded()
        out = tmp_path / "out"
        run(model, data, out, "complete")
        before = manifest(out)["prediction_difference"]
        assert told(lambda: run(model, data, out, "complete")) == []
        assert manifest(out)["prediction_difference"] == before

    def test_from_the_start_forgets_it(self, tmp_path):
        data, model = padded()
        out = tmp_path / "out"
        run(model, data, out, "complete")
        run(model, [data[3], data[7]], out, "complete", force=True)
        assert manifest(out)["prediction_difference"]["differing"] == 0

    def test_an_interrupted_run_has_written_and_told_it(self, tmp_path, monkeypatch):
        data, model = padded(16)
        add, count = parts.Recorder.add, []

        def interrupted(self, *given):
            add(self, *given)
            count.append(1)
            if len(count) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(parts.Recorder, "add", interrupted)

        def stopped():
            with pytest.raises(KeyboardInterrupt):
                run(model, data, tmp_path, "complete", part_samples=4)

        assert len(told(stopped)) == 1
        assert not manifest(tmp_path)["finished"]
        assert manifest(tmp_path)["prediction_difference"]["differing"] > 0


def test_what_the_interpreter_told_before_is_held_and_not_told_again(tmp_path):
    data, model = padded()
    explainer = DeepLift(model, rules="complete")
    with pytest.warns(PredictionWarning):
        explainer.attribute(**collate_fn_dict_with_padding([data[0], data[3]]))
    words = told(lambda: attribute_cohort(explainer, data, tmp_path / "out", progress="none"))
    assert words == []
    assert_holds(tmp_path / "out", explainer.prediction_difference)


def test_the_words_of_a_models_error_are_neither_told_nor_written(tmp_path):
    class Failing(StageNet):
        def forward(self, **given):
            raise KeyError("secret-7")

    data, model = padded(kind=StageNet)
    model.__class__ = Failing
    (words,) = told(lambda: run(model, data, tmp_path / "out", "complete"))
    assert "model(**batch) fails (KeyError)" in words
    held = manifest(tmp_path / "out")["prediction_difference"]
    assert held == {"samples": 0, "differing": 0, "logit": None, "probability": None, "failure": "KeyError"}
    assert "secret" not in words


class TestLarger:
    def largest(self, *found):
        about = Manifest({}, {}, "cpu")
        differences = Differences(about, None)
        for each in found:
            differences.add(each)
        return about.prediction_difference

    def test_counts_are_those_of_the_largest_logit(self):
        found = self.largest(PredictionDifference(4, 1, 0.5, 0.1), None, PredictionDifference(8, 2, 0.4, 0.2))
        assert found == {"samples": 4, "differing": 1, "logit": 0.5, "probability": 0.2, "failure": ""}

    @pytest.mark.parametrize("odd", [math.nan, math.inf])
    def test_what_is_not_finite_is_largest_and_null(self, odd):
        for order in (1, -1):
            found = self.largest(*[PredictionDifference(4, 1, odd, 0.1), PredictionDifference(8, 2, 9.0, 0.2)][::order])
            assert (found["samples"], found["logit"], found["probability"]) == (4, None, 0.2)
            json.dumps(found, allow_nan=False)

    def test_a_failed_comparison_is_smallest(self):
        failed, made = PredictionDifference(0, 0, math.nan, None, "KeyError: 'x'"), PredictionDifference(8, 0, 0.0, 0.0)
        for order in (1, -1):
            found = self.largest(*[failed, made][::order])
            assert found == {"samples": 8, "differing": 0, "logit": 0.0, "probability": 0.0, "failure": "KeyError"}

    def test_nothing_is_nothing(self):
        assert self.largest(None) is None


ODD = [3, "x", [], {}, {"samples": 1}]
VALID = {"samples": 2, "differing": 1, "logit": 0.5, "probability": None, "failure": ""}
ODD += [VALID | {name: odd} for name, odd in [("samples", -1), ("differing", 0.5), ("logit", "x"), ("failure", None)]]
ODD += [VALID | {"logit": -1.0}, VALID | {"more": 1}, VALID | {"probability": True}]


@pytest.mark.parametrize("odd", ODD)
def test_a_manifest_with_something_else_there_is_refused(odd, copied):
    data, model, out = copied
    (out / "manifest.json").write_text(json.dumps(manifest(out) | {"prediction_difference": odd}))
    with pytest.raises(CohortError, match=r"manifest\.json in .*prediction_difference is"):
        run(model, data, out)
    with pytest.raises(SummaryError, match="prediction_difference is"):
        summarise(out)


def test_a_manifest_without_it_goes_on(copied):
    data, model, out = copied
    about = manifest(out)
    del about["prediction_difference"]
    (out / "manifest.json").write_text(json.dumps(about))
    assert summarise(out).prediction_difference is None
    assert run(model, data, out).samples == 23


@pytest.fixture(scope="module")
def in_process():
    """A cluster of two workers in this process."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


class TestOnACluster:
    @pytest.mark.parametrize("options", [{"budget": 1000}, {}], ids=["workers compare", "the run compares"])
    def test_the_manifest_holds_the_largest_and_it_is_told_once(self, in_process, tmp_path, options):
        data, model = padded(24)
        out = tmp_path / "out"
        words = told(lambda: run(model, data, out, "complete", client=in_process, part_samples=4, **options))
        assert len(words) == 1
        held = manifest(out)["prediction_difference"]
        assert held["differing"] == 3  # one of four samples has all the steps
        if options:  # each worker compared one of the parts
            each = [expected(model, data, range(i, i + 4)).logit for i in range(0, 24, 4)]
            assert min(abs(held["logit"] - one) for one in each) < 1e-6

    def test_a_model_that_never_differs(self, in_process, tmp_path):
        data, model = cohort("MLP")
        assert told(lambda: run(model, data, tmp_path, client=in_process, budget=1000)) == []
        assert manifest(tmp_path)["prediction_difference"]["differing"] == 0
