"""Samples and batches that cannot be attributed, or not even read."""

import os
import signal
import traceback

import numpy as np
import pytest
import torch
from cohort_cases import SECRETS, cohort, manifest, run, spoiled, table
from pyhealth.datasets import get_dataloader
from pyhealth.datasets.utils import collate_fn_dict_with_padding

from deeplift_fast import DeepLift
from deeplift_fast.cohort import CohortError, attribute_cohort


@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_samples_that_cannot_be_attributed_are_set_aside_with_a_reason(rules, tmp_path):
    samples, model, reasons = spoiled()
    done = run(model, samples, tmp_path, rules, part_samples=10)
    assert (done.samples, done.failures) == (17, 6)
    failed = table(tmp_path, "failures").to_pylist()
    assert [row["sample"] for row in failed] == list(reasons)
    assert [row["part"] for row in failed] == [0, 0, 0, 0, 0, 1]
    for row in failed:
        assert reasons[row["sample"]] in row["reason"]
        assert "secret" not in row["reason"]
        assert "99999" not in row["reason"].replace("_", "")
    good = [i for i in range(23) if i not in reasons]
    assert table(tmp_path, "samples")["sample"].to_pylist() == good
    assert set(table(tmp_path, "attributions")["sample"].to_pylist()) == set(good)
    run(model, [samples[i] for i in good], tmp_path / "good", rules, part_samples=10)
    for name in ("output", "convergence_delta"):
        got, expected = (table(out, "samples")[name].to_numpy() for out in (tmp_path, tmp_path / "good"))
        np.testing.assert_allclose(got, expected, atol=1e-5)


class Hazardous(torch.utils.data.Dataset):
    """Samples of which one cannot be read, in one way or another."""

    def __init__(self, data, at, harm):
        self.data, self.at, self.harm = data, at, harm

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        if index == self.at:
            self.harm(self.data[index])
        return self.data[index]


def break_off(sample):
    raise KeyError(f"{sample['patient_id']}")


def die(sample):
    if torch.utils.data.get_worker_info():
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("harm", "said", "processes"),
    [
        (break_off, r"sample 12 of the dataset cannot be read \(KeyError\)", 0),
        (break_off, r"sample 12 of the dataset cannot be read \(KeyError\)", 1),
        (die, "a reading process died", 1),
    ],
)
def test_what_cannot_be_read_stops_the_run_and_keeps_what_is_there(harm, said, processes, tmp_path):
    data, model = cohort()
    with pytest.raises(CohortError, match=said) as caught:
        run(model, Hazardous(data, 12, harm), tmp_path, read_ahead=processes)
    assert "run the same again" in str(caught.value)
    assert not any(secret in "".join(traceback.format_exception(caught.value)) for secret in SECRETS)
    if harm is break_off:
        assert sorted(manifest(tmp_path)["parts"]) == ["0", "1"]
    run(model, Hazardous(data, -1, harm), tmp_path)
    assert table(tmp_path, "samples").num_rows == 23


def test_samples_that_fail_in_a_loaders_batches_are_set_aside(tmp_path):
    samples, model, reasons = spoiled()
    keep = [i for i in range(23) if i not in (8, 9)]  # a loader cannot even collate these
    loader = torch.utils.data.DataLoader([samples[i] for i in keep], 4, collate_fn=collate_fn_dict_with_padding)
    done = run(model, loader, tmp_path)
    assert (done.samples, done.failures) == (17, 4)
    failed = {keep[row["sample"]]: row["reason"] for row in table(tmp_path, "failures").to_pylist()}
    assert set(failed) == set(reasons) - {8, 9}
    assert all(reasons[sample] in reason for sample, reason in failed.items())


def test_a_result_that_is_not_finite_is_a_failure(tmp_path):
    data, model = cohort()
    with torch.no_grad():
        next(iter(model.embedding_model.embedding_layers.values())).weight[5] = float("inf")
    has = [5 in data[i]["a"] for i in range(23)]
    assert 0 < sum(has) < 23
    done = run(model, data, tmp_path)
    assert done.failures == sum(has)
    assert {row["reason"] for row in table(tmp_path, "failures").to_pylist()} == {
        "the model's output is not finite at the input"
    }
    assert np.isfinite(table(tmp_path, "attributions")["attribution"].to_numpy()).all()


def test_an_interpreter_that_never_works_is_no_list_of_failures(tmp_path, monkeypatch):
    data, model = cohort()
    interpreter = DeepLift(model)

    def broken(*_, **batch):
        raise RuntimeError(f"of {batch['patient_id']}")

    monkeypatch.setattr(interpreter, "explain", broken)
    with pytest.raises(CohortError, match=r"none of the first 8 samples.*RuntimeError") as caught:
        attribute_cohort(interpreter, data, tmp_path, progress="none")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_run_with_no_failures_has_an_empty_table_of_them(tmp_path):
    data, model = cohort(count=4)
    run(model, data, tmp_path)
    assert len(table(tmp_path, "failures")) == 0
    assert table(tmp_path, "failures").schema.names == ["sample", "part", "reason"]


@pytest.mark.parametrize("empty", [torch.empty(0), torch.empty(0, 3), torch.empty(0, 3, dtype=torch.int64)])
def test_a_part_of_nothing_but_empty_sequences_is_a_part_of_failures(empty, tmp_path):
    data, model = cohort(count=7)
    samples = [dict(data[i]) for i in range(7)]
    for sample in samples[5:]:
        sample["a"] = empty
    done = run(model, samples, tmp_path)
    assert (done.samples, done.failures, done.parts) == (5, 2, 2)
    assert {row["reason"] for row in table(tmp_path, "failures").to_pylist()} == {"feature 'a' is an empty sequence"}


def test_a_vector_of_another_length_is_no_shorter_one_padded(tmp_path):
    samples, model, _ = spoiled()
    samples = [samples[i] for i in (0, 1, 4)]
    samples[1]["row"] = samples[1]["row"][:2]
    assert run(model, samples, tmp_path).failures == 1
    (failed,) = table(tmp_path, "failures").to_pylist()
    assert failed["sample"] == 1
    assert "'row' has another number of values than the model takes" in failed["reason"]


def test_a_batch_that_cannot_be_read_is_told_without_its_words(tmp_path):
    data, model = cohort()

    def breaking():
        for number, batch in enumerate(get_dataloader(data, 5)):
            if number == 3:
                raise KeyError(batch["patient_id"][0])
            yield batch

    with pytest.raises(
        CohortError, match=r"a batch of the dataset cannot be read \(KeyError at .*test_failures"
    ) as caught:
        run(model, breaking(), tmp_path)
    assert not any(secret in "".join(traceback.format_exception(caught.value)) for secret in SECRETS)
    assert sorted(manifest(tmp_path)["parts"]) == ["0", "1", "2"]
    assert run(model, iter(get_dataloader(data, 5)), tmp_path, force=True).samples == 23
