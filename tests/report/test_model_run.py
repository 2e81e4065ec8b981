"""What the model says without a code or a dimension: run, not inferred."""

import copy

import cohort_cases
import pytest
import torch
from pyhealth.datasets import get_dataloader
from pyhealth.datasets.utils import collate_fn_dict_with_padding

from deeplift_fast import DeepLift
from deeplift_fast.errors import SummaryError
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.model_run import CLOSE, ModelRun, outputs_without
from deeplift_fast.report.patient.rows import read_sample

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=["MLP", "Transformer, one row"])
def made(request, tmp_path_factory):
    data, model = cohort_cases.cohort(request.param)
    out = tmp_path_factory.mktemp("cohort") / "out"
    cohort_cases.run(model, data, out, rules="complete")
    return data, model, CohortFolder(out)


def names(sample):
    return list(dict.fromkeys((row.feature, row.name) for row in sample.rows))


def test_the_output_is_the_models_with_these_at_the_baseline(made):
    data, model, folder = made
    sample = read_sample(folder, 7)
    each = names(sample)
    found = outputs_without(ModelRun(model, data), folder, sample, each)
    assert len(found) == len(each) > 2
    assert len({round(output, 5) for output in found}) > 2  # they do something


def test_a_code_by_itself_is_what_at_baseline_computes(made):
    data, model, folder = made
    sample = read_sample(folder, 7)
    feature, name = next((row.feature, row.name) for row in sample.rows if row.feature == "a")
    (found,) = outputs_without(ModelRun(model, data), folder, sample, [(feature, name)])
    token = model.dataset.input_processors["a"].code_vocab[name]
    value = data[7]["a"].unsqueeze(0)
    batch = collate_fn_dict_with_padding([data[7]])
    explained = DeepLift(model, rules="complete").explain(
        "removed", sample.target, at_baseline={"a": value == token}, **batch
    )
    assert found == pytest.approx(float(explained.baseline_output), abs=1e-5)
    assert abs(found - sample.output) > CLOSE


def test_batches_serve_as_a_dataset(made):
    data, model, folder = made
    sample = read_sample(folder, 7)
    each = names(sample)[:3]
    batches = list(get_dataloader(data, batch_size=4))
    found = outputs_without(ModelRun(model, batches), folder, sample, each)
    assert found == pytest.approx(outputs_without(ModelRun(model, data), folder, sample, each), abs=1e-5)


def test_another_model_or_dataset_is_refused(made):
    data, model, folder = made
    sample = read_sample(folder, 7)
    each = names(sample)[:1]
    other_data = [dict(data[n]) for n in range(22, -1, -1)]
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    for given, said in (
        (ModelRun(other, data), "the output of sample 7 differs by"),
        (ModelRun(model, other_data), "sample 7 has another patient_id"),
        (ModelRun(model, [dict(data[n]) for n in range(5)]), "the dataset holds no sample 7"),
    ):
        with pytest.raises(SummaryError, match=said) as told:
            outputs_without(given, folder, sample, each)
        assert not any(secret in str(told.value) for secret in cohort_cases.SECRETS)
    with pytest.raises(SummaryError, match="a code of 'a' is not in the sample"):
        outputs_without(ModelRun(model, data), folder, sample, [("a", "nothing")])
    with pytest.raises(SummaryError, match="the model has no feature 'z'"):
        outputs_without(ModelRun(model, data), folder, sample, [("z", "nothing")])


def test_the_folders_baseline_is_taken(tmp_path):
    data, model = cohort_cases.cohort("Transformer, one row")
    out = tmp_path / "out"
    cohort_cases.run(model, data, out, rules="complete", baseline="typical")
    folder = CohortFolder(out)
    assert folder.baseline.startswith("typical ")
    sample = read_sample(folder, 7)
    each = names(sample)[:2]
    assert outputs_without(ModelRun(model, data), folder, sample, each) == outputs_without(
        ModelRun(model, data, baseline="typical"), folder, sample, each
    )
    given = cohort_cases.run(model, data, tmp_path / "given", rules="complete", baseline={"a": 3})
    folder = CohortFolder(given.out)
    with pytest.raises(SummaryError, match="the baseline is 'removed', there 'a: 3"):
        outputs_without(ModelRun(model, data), folder, sample, each)
    assert outputs_without(ModelRun(model, data, baseline={"a": 3}), folder, read_sample(folder, 7), each)
