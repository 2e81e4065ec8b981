"""How whole models are measured, on the CPU in place of a GPU; and the tables."""

import gpu_models
import gpu_tables
import patients
import pytest
import torch
from model_cases import Case, make_dataset
from model_results import FORWARD, PYHEALTH
from pyhealth.models import MLP, RNN


@pytest.fixture(scope="module")
def dataset():
    return make_dataset(patients.sequences(4), "sequence")


@pytest.fixture(scope="module")
def row(dataset):
    case = Case(MLP, {"embedding_dim": 8, "hidden_dim": 8}, "sequence", 4, {"rescale": 1, "complete": 1})
    return gpu_models.measured(case, dataset, torch.device("cpu"), rounds=1)


def test_every_competitor_is_timed(row):
    assert list(row["ms"]) == ["rescale", "complete", PYHEALTH, FORWARD]
    assert row["first_ms"].keys() == row["ms"].keys()
    assert all(time > 0 for time in row["ms"].values())
    assert row["peak_MB"] == {}  # which the CPU is not asked for
    assert row["batch_size"] == 4


def test_numbers_are_compared_with_float64(row):
    assert all(0 < distance < 1e-4 for distance in row["distance"].values())


def test_a_model_that_pyhealth_does_not_take_is_measured_without_it(dataset):
    case = Case(RNN, {"embedding_dim": 8, "hidden_dim": 8}, "sequence", 4, {"rescale": 1}, FORWARD)
    assert list(gpu_models.measured(case, dataset, torch.device("cpu"), rounds=1)["ms"]) == ["rescale", FORWARD]


ON_A_GPU = {
    "numbers": {
        "gelu, secant": {"backend": "Triton", "errors": {"float32, small": 0.25, "float64, small": 0.5}, "right": True},
        "secant, tanh": {"backend": "Triton", "errors": {"float32, small": 3.0}, "right": False},
    },
    "speed": {
        "gelu, secant": {"ms": 0.5, "MB": 1000, "GB/s": 2000, "copy, ms": 0.4, "share of a copy's speed": 0.8},
        "recurrent, lstm": {
            "ms": 2, "MB": 100, "GB/s": 50, "copy, ms": 0.04, "share of a copy's speed": 0.02, "TFLOP/s": 21.5,
        },
    },
    "models": {
        "StageNet": {
            "batch_size": 128,
            "ms": {"rescale": 8.0, "rescale, graphs": 4.0, "complete": 9.0, PYHEALTH: 400.0, FORWARD: 100.0},
            "first_ms": {"rescale": 50.0, "rescale, graphs": 90.0, "complete": 60.0, PYHEALTH: 500.0, FORWARD: 110.0},
            "peak_MB": {"rescale": 100, "complete": 110, PYHEALTH: 2000},
            "distance": {"rescale": 1e-5, "complete": 2e-5},
            "warnings": ["no graph for this one"],
        }
    },
}  # fmt: skip


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_tables():
    lines = gpu_tables.as_text(ON_A_GPU).splitlines()
    rows = {found[0]: found[1:] for found in map(cells, lines) if found}
    assert rows["gelu, secant"] == ["0.5", "1000", "2000", "80 %", "–"]
    assert rows["recurrent, lstm"][-1] == "21.5"
    assert rows["secant, tanh"] == ["Triton", "3 (float32, small)", "WRONG"]
    # The faster of both ways: 128 samples in 4 ms, 100 times as fast as 400 ms.
    assert rows["StageNet, rescale"] == [
        "8", "4", "50", "32000", "400", "100", "100", "100", "2000", "1.0e-05",
    ]  # fmt: skip
    assert rows["StageNet, complete"][:2] == ["9", "–"]
    assert lines[-1] == "no graph for this one"


def test_tables_of_nothing():
    assert gpu_tables.as_text({}) == ""


def test_a_row_that_was_measured_fits_the_tables(row):
    assert "MLP, rescale" in gpu_tables.as_text({"models": {"MLP": row}})
