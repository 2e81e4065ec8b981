"""Odd tensors as features go to the failures with a reason, and keep no other sample from being attributed."""

import pytest
import torch
from cohort_cases import cohort, run, table
from hypothesis import given
from hypothesis import strategies as st
from pyhealth.datasets import get_dataloader

from deeplift_fast.cohort.hashing import digest
from deeplift_fast.cohort.odd_tensors import Unusable, usable

ODD = {
    "bfloat16": lambda x: x.to(torch.bfloat16),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "quint8": lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8),
    "sparse": lambda x: x.to_sparse(),
    "sparse_csr": lambda x: x.reshape(1, -1).to_sparse_csr() if x.dim() < 2 else x.flatten(1).to_sparse_csr(),
    "nested": lambda x: torch.nested.nested_tensor(list(x.reshape(len(x), -1).float())),
    "meta": lambda x: x.to("meta"),
    "complex64": lambda x: x.to(torch.complex64),
    "complex64, conjugated": lambda x: torch.conj(x.to(torch.complex64)),
}
ATTRIBUTED = [i for i in range(12) if i not in (1, 7)]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("key", ["row", "a"])
def test_odd_samples_fail_with_a_reason(what, key, tmp_path):
    data, model = cohort("Transformer, one row", 12)
    samples = [dict(data[i]) for i in range(12)]
    for i in (1, 7):
        samples[i][key] = ODD[what](samples[i][key])
    done = run(model, samples, tmp_path)
    assert (done.samples, done.failures) == (10, 2)
    failed = table(tmp_path, "failures").to_pylist()
    assert [each["sample"] for each in failed] == [1, 7]
    for each in failed:
        assert f"feature {key!r} is " in each["reason"]
        assert what.split(",")[0].split("_")[0] in each["reason"]
    assert table(tmp_path, "samples")["sample"].to_pylist() == ATTRIBUTED
    run(model, samples, tmp_path)  # recognised again


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", ODD)
def test_odd_features_of_a_batch_fail_with_a_reason(what, tmp_path):
    data, model = cohort("Transformer, one row", 12)
    batches = [dict(batch) for batch in get_dataloader(data, 4)]
    batches[1]["row"] = ODD[what](batches[1]["row"])
    done = run(model, batches, tmp_path)
    assert (done.samples, done.failures) == (8, 4)
    reasons = table(tmp_path, "failures")["reason"].to_pylist()
    assert all("feature 'row' is " in each and what.split(",")[0].split("_")[0] in each for each in reasons)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_odd_part_of_a_pair_fails(tmp_path):
    data, model = cohort("StageNet", 12)
    samples = [dict(data[i]) for i in range(12)]
    samples[3]["labs"] = (samples[3]["labs"][0].to_sparse(), samples[3]["labs"][1])
    run(model, samples, tmp_path)
    (failed,) = table(tmp_path, "failures").to_pylist()
    assert failed["sample"] == 3
    assert "feature 'labs' is a sparse tensor" in failed["reason"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.sampled_from(sorted(ODD)), st.booleans())
def test_what_is_odd_is_told_and_hashed(shape, what, in_pair):
    tensor = torch.ones(shape)
    odd = ODD[what](tensor)
    found = usable((None, odd) if in_pair else odd)
    assert isinstance(found, Unusable)
    assert found.reason
    assert digest([odd]) == digest([odd])
    assert digest([odd]) != digest([tensor])
    assert usable(tensor) is tensor
