"""PyHealth models whose own logit is NaN or infinite: it is said for how many samples, at the input or the baseline."""

import warnings

import pytest
import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.models import MLP, BaseModel, LogisticRegression

from deeplift_fast import ConvergenceWarning, DeepLift
from deeplift_fast.cohort import attribute_cohort


def made(kind, schema, rows):
    samples = [{"patient_id": f"p{i}", "label": i % 2, **row} for i, row in enumerate(rows)]
    data = create_sample_dataset(samples, schema, {"label": "binary"}, in_memory=True)
    torch.manual_seed(0)
    return data, kind(data).eval(), collate_fn_dict_with_padding([data[i] for i in range(len(rows))])


def told(explainer, batch):
    """What is found of a batch, and the one warning that says what is not finite."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = explainer.explain(**batch)
    (message,) = [str(each.message) for each in caught if "not finite" in str(each.message)]
    assert all(each.category is ConvergenceWarning for each in caught if str(each.message) == message)
    return found, message


@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.parametrize(("kind", "fuse"), [(MLP, True), (MLP, False), (LogisticRegression, False)])
def test_a_record_without_codes(kind, rules, fuse):
    """Both models take the mean over no code at all."""
    rows = [{"codes": codes} for codes in (["a"], ["a", "b"], ["c", "a", "b"], ["b"])]
    _, model, batch = made(lambda data: kind(data, embedding_dim=8), {"codes": "sequence"}, rows)
    usual = DeepLift(model, rules=rules, fuse=fuse).explain("removed" if rules == "complete" else "unk", **batch)
    batch["codes"] = batch["codes"].index_fill(0, torch.tensor([1]), 0)
    assert model(**batch)["logit"][:, 0].isnan().tolist() == [False, True, False, False]
    found, message = told(DeepLift(model, rules=rules, fuse=fuse), batch)
    assert "not finite (NaN or inf) for 1 of 4 samples at the input and for 1 at the baseline" in message
    assert found.output.isnan().tolist() == [False, True, False, False]
    others = [0, 2, 3]
    torch.testing.assert_close(found.contributions["codes"][others], usual.contributions["codes"][others])


class Own(BaseModel):
    """A model of one value per sample, with a function that is not finite everywhere."""

    def __init__(self, data, function):
        super().__init__(data)
        self.scale, self.function = torch.nn.Parameter(torch.tensor(2.0)), function

    def forward(self, value, **_):
        return {"logit": self.scale * self.function(value)}


FUNCTIONS = {
    "log of 0": (lambda x: (x - 1).log(), [[1.0], [3.0], [1.0]], 2, 0),
    "square root below 0": (lambda x: (2 - x).sqrt(), [[3.0], [1.0], [0.5]], 1, 0),
    "division by the baseline": (lambda x: 1 / (x - 4), [[1.0], [3.0], [2.0]], 0, 3),
}


@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_that_are_not_defined_there(name, rules):
    function, values, at_input, at_baseline = FUNCTIONS[name]
    rows = [{"value": value} for value in values]
    _, model, batch = made(lambda data: Own(data, function), {"value": "tensor"}, rows)
    baseline = {"value": 4.0 if at_baseline else 1.5}
    explainer = DeepLift(model, rules=rules, baseline=baseline)
    _, message = told(explainer, batch)
    assert f"for {at_input} of 3 samples at the input and for {at_baseline} at the baseline" in message


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_cohorts_failures_say_the_same(name, tmp_path):
    import pyarrow.parquet as pq

    function, values, at_input, at_baseline = FUNCTIONS[name]
    rows = [{"value": value} for value in values]
    data, model, _ = made(lambda data: Own(data, function), {"value": "tensor"}, rows)
    baseline = {"value": 4.0 if at_baseline else 1.5}
    done = attribute_cohort(
        DeepLift(model, rules="complete"), data, tmp_path / "out", baseline=baseline, progress="none"
    )
    reasons = pq.read_table(tmp_path / "out" / "failures.parquet")["reason"].to_pylist()
    place = "input" if at_input else "baseline"
    assert done.failures == at_input + at_baseline
    assert set(reasons) == {f"the model's output is not finite at the {place}"}
