"""The budget of padded steps that a budget of memory allows."""

import os

import pytest
import torch
from cohort_cases import cohort, manifest, run

from deeplift_fast import ops
from deeplift_fast.cohort import budget as budgets
from deeplift_fast.pyhealth.fused import buffers


def costing(per_step, fixed=0):
    """Attributes batches of `n` samples of 10 steps each, at so many bytes per step."""

    def attribute(count):
        steps = 10 * count
        held = torch.empty(fixed + per_step * steps, dtype=torch.uint8)
        del held
        return steps

    return attribute


@pytest.mark.parametrize(("per_step", "fixed"), [(1 << 10, 0), (1 << 14, 0), (1 << 12, 1 << 20)])
@pytest.mark.parametrize("allowed", [1 << 22, 1 << 26])
def test_a_batch_of_the_budget_stays_within_the_memory(per_step, fixed, allowed):
    budget = budgets.find_budget(costing(per_step, fixed), allowed, torch.device("cpu"), 16)
    assert budget & (budget - 1) == 0
    assert budget * per_step + fixed <= allowed or budget == budgets.LEAST_STEPS
    most = budgets.MOST_STEPS["cpu"]
    assert budget == most or 4 * budget * per_step + fixed > budgets.SAFETY * allowed


def test_memory_that_calls_hand_on_counts_too():
    def attribute(count):
        x = torch.zeros(count << 18)  # 1 MiB each, kept from the call before
        ops.secant(x, x, "tanh")
        buffers.give(buffers.take((count << 18,), torch.float32))
        return count

    per_step = 4 << 20  # the argument, two results, and the buffer after them
    budget = budgets.find_budget(attribute, 512 * per_step, torch.device("cpu"), 16)
    assert budget == 256


def test_light_models_get_twice_as_many_steps():
    few, many = (budgets.find_budget(costing(n), 1 << 40, torch.device("cpu"), 16) for n in (1024, 128))
    assert many == 2 * few == 2 * budgets.MOST_STEPS["cpu"]


def test_one_sample_is_enough_to_measure_with():
    assert budgets.find_budget(costing(1 << 14), 1 << 24, torch.device("cpu"), 1) <= 1 << 10


def test_measuring_leaves_the_environment_and_standard_error_alone(capfd):
    before = dict(os.environ)
    budgets.find_budget(costing(1), 1 << 20, torch.device("cpu"), 4)
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def test_less_memory_makes_smaller_batches_and_the_manifest_keeps_the_budget(tmp_path):
    data, model = cohort("StageNet")
    small = run(model, data, tmp_path / "small", memory=1 << 18, limit=5)
    large = run(model, data, tmp_path / "large", memory=1 << 30)
    assert small.budget < large.budget
    assert run(model, data, tmp_path / "small", memory=1 << 30).budget == small.budget
    assert {part["budget"] for part in manifest(tmp_path / "small")["parts"].values()} == {small.budget}


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        ("1000", ("memory.max", "memory.current", "inactive_file")),
        ("1000", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
        ("max", ("memory.max", "memory.current", "inactive_file")),
    ],
)
def test_a_containers_cached_files_count_as_free(tmp_path, monkeypatch, limit, names):
    maximum, current, cached = names
    for name, text in ((maximum, limit), (current, "900"), ("memory.stat", f"anon 1\n{cached} 500\n")):
        (tmp_path / name).write_text(f"{text}\n")
    before = budgets.available(torch.device("cpu"))
    monkeypatch.setattr(budgets, "_CGROUPS", ((str(tmp_path), *names),))
    found = budgets.available(torch.device("cpu"))
    assert found == 600 * budgets.SHARE if limit == "1000" else found >= before // 2


def test_what_is_free_is_positive_and_what_ran_out_is_known():
    assert budgets.available(torch.device("cpu")) > 0
    assert budgets.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."))
    assert budgets.is_out_of_memory(torch.OutOfMemoryError())
    assert not budgets.is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not budgets.is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert budgets.is_out_of_memory(caught.value)
