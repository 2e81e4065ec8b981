"""Sums of contributions of plain tensors; those of patients are in tests/cohort/test_frames.py."""

import pytest
import torch
from torch import nn

from deeplift_fast import attribute


def explained(*inputs):
    return attribute(lambda *xs: sum(x.flatten(1).sum(1) for x in xs), inputs, target=None, rules="complete")


A, B = torch.arange(24.0).reshape(2, 3, 4), torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_by_feature_there_is_a_row_for_each_sample_and_input():
    found = explained(A, B).by("feature")
    assert list(found.columns) == ["sample", "patient_id", "visit_id", "feature", "attribution"]
    assert found["sample"].tolist() == [0, 0, 1, 1]
    assert found["feature"].tolist() == ["x0", "x1"] * 2
    assert found["attribution"].tolist() == [float(A[0].sum()), 3, float(A[1].sum()), 7]
    single = attribute(nn.Identity(), torch.ones(3), rules="complete").by("feature")
    assert single[["sample", "feature", "attribution"]].values.tolist() == [[n, "x", 1.0] for n in range(3)]


def test_by_step_an_input_needs_a_sequence_axis():
    found = explained(A, B).by("step")
    assert list(found.columns) == [
        "sample", "patient_id", "visit_id", "feature", "step", "time", "day", "stay", "attribution",
    ]  # fmt: skip
    first = found[found["sample"] == 1]
    assert first["feature"].tolist() == ["x0"] * 3 + ["x1"]
    assert first["step"].tolist() == [0, 1, 2, 0]
    assert first["attribution"].tolist() == [*A[1].sum(1).tolist(), 7]
    nested = explained(torch.ones(1, 2, 3, 4)).by("step")
    assert nested["step"].tolist() == list(range(6))
    assert nested["attribution"].tolist() == [4.0] * 6
    with pytest.raises(ValueError, match=r"no input has a sequence axis: .* {'x0': \(2, 2\)}"):
        explained(B).by("step")


def test_sums_are_those_of_the_rows():
    found = explained(A, B)
    rows = found.to_dataframe()
    for what, keys in (("feature", ["sample", "feature"]), ("step", ["sample", "feature", "step"])):
        expected = rows.groupby(keys)["attribution"].sum()
        assert found.by(what).set_index(keys)["attribution"].to_dict() == expected.to_dict()


def test_an_empty_batch_has_no_rows():
    found = explained(A[:0])
    assert len(found.by("feature")) == len(found.by("step")) == 0


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("stay", "contributions of plain tensors have no stays; accepted: 'feature', 'step'"),
        ("visit", "what is 'visit'; accepted: 'feature', 'step', 'stay'"),
        (None, "what is None; accepted"),
    ],
)
def test_other_names(what, said):
    with pytest.raises(ValueError, match=said):
        explained(A).by(what)
    with pytest.raises(ValueError, match="model and batch belong together"):
        explained(A).by("feature", model=nn.ReLU())
