"""How whole models are measured, on the CPU in place of a GPU; and the tables."""

import math
import warnings

import gpu_batches
import gpu_model_graphs
import gpu_models
import gpu_tables
import patients
import pytest
import torch
from gpu_compiled import compiled_rules
from model_cases import SCHEMAS, Case, first_batch, make_dataset, make_model
from model_results import COMPILED, FORWARD, PYHEALTH
from pyhealth.models import MLP, RNN, StageNet

from deeplift_fast import DeepLift

CPU = torch.device("cpu")
SIZES = {"embedding_dim": 8, "hidden_dim": 8}
SMALL = Case(MLP, SIZES, "sequence", 4, {})
RECURRENT = Case(RNN, SIZES | {"rnn_type": "GRU"}, "sequence", 4, {}, FORWARD)
STAGES = Case(StageNet, {"embedding_dim": 8, "chunk_size": 4, "levels": 2}, "StageNet", 4, {})
DRAWN = 4


@pytest.fixture(scope="module")
def row():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_models, "MANY", (1, math.inf))
        return gpu_models.measured(SMALL, 6, CPU, DRAWN)


def test_every_competitor_is_timed(row):
    assert list(row["ms"]) == ["rescale", "complete", PYHEALTH, FORWARD]
    assert row["first_ms"].keys() == row["ms"].keys()
    assert all(time > 0 for time in row["ms"].values())
    assert row["batch_size"] == 6


def test_numbers_are_compared_with_float64(row):
    assert list(row["distance"]) == ["rescale", "complete"]
    assert all(0 < distance < 1e-4 for distance in row["distance"].values())


def test_a_model_that_pyhealth_does_not_take_is_measured_without_it():
    model = make_model(RECURRENT, gpu_batches.dataset("sequence", DRAWN))
    assert list(gpu_models.competitors(RECURRENT, model, {})) == ["rescale", "complete", FORWARD]


def test_the_cpu_is_not_asked_for_its_peak():
    assert gpu_models.memory(SMALL, 4, CPU, DRAWN) == {"peak_MB": {}, "warnings": []}


def test_a_competitor_that_needs_too_much_memory_is_left_out(monkeypatch):
    def large(**batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    monkeypatch.setattr(gpu_models, "competitors", lambda case, model, batch: {PYHEALTH: large, FORWARD: lambda: 1})
    monkeypatch.setattr(gpu_models, "COMPARED", 0)
    monkeypatch.setattr(gpu_models, "MANY", (1, math.inf))
    row = gpu_models.measured(SMALL, 4, CPU, DRAWN)
    assert (list(row["ms"]), row["warnings"]) == ([FORWARD], ["PyHealth: out of memory"])
    assert gpu_models.memory(SMALL, 4, CPU, DRAWN)["warnings"] == ["PyHealth: out of memory"]
    assert len(emptied) == 2


def test_a_batch_of_any_size_repeats_the_drawn_patients():
    (drawn, large, small) = (gpu_batches.batch_of(STAGES, size, DRAWN) for size in (4, 10, 3))
    for key in ("codes", "labs"):
        for part, more, fewer in zip(drawn[key], large[key], small[key], strict=True):
            assert torch.equal(more, torch.cat([part, part, part[:2]]))
            assert torch.equal(fewer, part[:3, : fewer.shape[1]].reshape(fewer.shape)) or fewer.shape[1] < part.shape[1]
    assert len(large["label"]) == len(large["patient_id"]) == 10
    assert large["patient_id"][4:6] == drawn["patient_id"][:2]


def test_rules_under_torch_compile_give_the_kernels_numbers():
    dataset = make_dataset(patients.stagenet(3, steps=3), "StageNet")
    model, batch = make_model(STAGES, dataset), first_batch(dataset, 3)
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = DeepLift(model, rules="complete").attribute(**batch)
        with compiled_rules(backend):
            found = DeepLift(model, rules="complete").attribute(**batch)
        count = len(graphs)
        again = DeepLift(model, rules="complete").attribute(**batch)
    assert count > 1
    assert len(graphs) == count  # the kernels are back
    for key, exact in expected.items():
        assert torch.equal(again[key], exact)
        torch.testing.assert_close(found[key], exact, rtol=1e-3, atol=1e-5)
    torch.compiler.reset()


@pytest.mark.parametrize("data", ["StageNet", "sequence"])
def test_graphs_need_no_padding_for_even_patients(data):
    dataset = make_dataset(gpu_model_graphs.even(data, 5), data)
    batch = first_batch(dataset, 5)
    values = [part for key in SCHEMAS[data] for part in (batch[key] if isinstance(batch[key], tuple) else [batch[key]])]
    steps = {part.shape[1] for part in values}
    assert steps == ({16, 64} if data == "StageNet" else {16})
    assert all(part.shape[2] in (10, 16) for part in values if part.dim() > 2)


def test_graphs_of_models_are_compared_bit_for_bit():
    row = gpu_model_graphs.checked(SMALL, CPU, samples=4)
    assert row["right"]
    assert [row[key] for key in ("replay", "two streams", "pinned loader")] == [True] * 3
    assert "only CUDA has graphs" in row["warnings"][0]


def test_a_graph_that_gives_another_batch_is_found(monkeypatch):
    attributed = gpu_model_graphs.attributed
    first = []

    def stale(interpreter, batch):
        if interpreter.cuda_graphs:
            first[:] = first or attributed(interpreter, batch)
            return first
        return attributed(interpreter, batch)

    monkeypatch.setattr(gpu_model_graphs, "attributed", stale)
    row = gpu_model_graphs.checked(SMALL, CPU, samples=4)
    assert [row[key] for key in ("replay", "two streams", "pinned loader", "right")] == [False] * 4


ON_A_GPU = {
    "compiles": {
        "first calls": {"processes": 16, "calls": 200, "seconds": 31.5, "failed": []},
        "others": {"processes": 1, "calls": 2, "seconds": 3, "failed": [{"call": "gelu", "error": "no memory"}] * 2},
    },
    "numbers": {
        "gelu, secant": {"backend": "Triton", "errors": {"float32, small": 0.25, "float64, small": 0.5}, "right": True},
        "secant, tanh": {"backend": "Triton", "errors": {"float32, small": 3.0}, "right": False},
        "secant, relu": {"error": "RuntimeError: no memory", "right": False},
    },
    "graphs": {
        "gelu, secant": {"replay": True, "two streams": False, "right": False},
        "MLP": {"replay": True, "warnings": ["no graph for this one"], "right": True},
    },
    "speed": {
        "gelu, secant": {"ms": 0.5, "MB": 1000, "GB/s": 2000, "copy, ms": 0.4, "share of a copy's speed": 0.8},
        "recurrent, lstm": {
            "ms": 2, "MB": 100, "GB/s": 50, "copy, ms": 0.04, "share of a copy's speed": 0.02, "TFLOP/s": 21.5,
        },
    },
    "steps": {
        "recurrent, stagenet, batch 128": {"us a step": 8.1, "us on paper": 7.2},
        "recurrent, gru, batch 128": {"us a step": 4},
    },
    "models": {
        "StageNet": {
            "batch_size": 128,
            "ms": {"rescale": 8.0, "rescale, graphs": 4.0, "complete": 9.0, PYHEALTH: 400.0, FORWARD: 100.0},
            "first_ms": {"rescale": 50.0, "rescale, graphs": 90.0, "complete": 60.0, PYHEALTH: 500.0, FORWARD: 110.0},
            "distance": {"rescale": 1e-5, "complete": 2e-5},
            "warnings": ["no graph for this one"],
        },
        "StageNet, torch.compile": {"batch_size": 128, "ms": {COMPILED: 64.0}, "first_ms": {COMPILED: 30000.0}},
    },
    "memory": {"StageNet": {"peak_MB": {"rescale": 100, "complete": 110, "complete, graphs": 220, PYHEALTH: 2000}}},
    "races": {"attention": {"summary": "0 hazards displayed (0 errors, 0 warnings)", "right": True}},
    "not run": {"races: lockstep": {"reason": "no time left"}},
}  # fmt: skip


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_tables():
    shown = gpu_tables.as_text(ON_A_GPU)
    lines = [cells(line) for line in shown.splitlines()]
    assert ["first calls", "16", "200", "31.5", "none"] in lines
    assert ["others", "1", "2", "3", "2, the first: gelu: no memory"] in lines
    assert ["secant, tanh", "Triton", "3 (float32, small)", "WRONG"] in lines
    assert ["gelu, secant", "replay, two streams FAILED", "WRONG"] in lines
    assert ["gelu, secant", "0.5", "1000", "2000", "80 %", "–"] in lines
    assert ["recurrent, lstm", "2", "100", "50", "2 %", "21.5"] in lines
    assert ["recurrent, stagenet, batch 128", "8.1", "7.2"] in lines
    assert ["recurrent, gru, batch 128", "4", "–"] in lines
    # The faster of both ways: 128 samples in 4 ms, 100 times as fast as 400 ms.
    assert ["StageNet, rescale", "8", "4", "50", "32000", "400", "100", "100", "1.0e-05"] in lines
    assert ["StageNet, complete", "9", "–"] in [line[:3] for line in lines]
    assert ["StageNet, torch.compile", "64", "–", "30000", "2000", "–", "–", "–", "–"] in lines
    assert ["StageNet", "100", "–", "110", "220", "2000", "–"] in lines
    assert ["attention", "0 hazards displayed (0 errors, 0 warnings)", "right"] in lines
    assert ["races: lockstep", "no time left"] in lines
    assert shown.splitlines()[-3:] == ["numbers, secant, relu: RuntimeError: no memory", "", "no graph for this one"]


def test_tables_of_nothing():
    assert gpu_tables.as_text({}) == ""


def test_a_row_that_was_measured_fits_the_tables(row):
    assert "MLP, rescale" in gpu_tables.as_text({"models": {"MLP": row}})
