"""Rows that are equal at the baseline are computed once, and nothing else changes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplift_fast import attribute
from deeplift_fast.core import shared_rows, streams

BATCH = 6


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 24, activation="gelu", batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Flatten(), nn.Linear(80, 2))


def _convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.LazyLinear(2),
    )  # fmt: skip


def _mixing(x: Tensor) -> Tensor:
    """Every sample sees the mean of all."""
    hidden = torch.softmax(x - x.mean(0), -1) * x.clone()
    return hidden.reshape(3, 2, -1).flip(1).reshape(x.shape) @ x[:2].transpose(0, 1)


def _overwriting(x: Tensor) -> Tensor:
    hidden = torch.sigmoid(x)
    view = hidden.view(-1, 5)
    view[:, 1:3] *= 2
    hidden[0] += 1
    return F.relu(hidden.reshape(len(x), -1) + hidden.log(), inplace=True)[:, :2]


def _evading(x: Tensor) -> Tensor:
    hidden = torch.tanh(x)
    hidden.data[1:] = 0.25
    return torch.exp(hidden)[:, :2]


CASES: dict[str, tuple[Callable[[], Callable[[Tensor], Tensor]], tuple[int, ...]]] = {
    "MLP": (lambda: nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 2)), (10,)),
    "encoder": (_encoder, (5, 16)),
    "convolutions": (_convolutions, (3, 9, 9)),
    "mixing": (lambda: _mixing, (10,)),
    "overwriting": (lambda: _overwriting, (10,)),
    "evading": (lambda: _evading, (10,)),
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(shared_rows, "SMALLEST", 1)


def _of_both_kinds(monkeypatch, name: str, rules: str):
    """Attributions with rows computed once, and with all rows computed."""
    make, shape = CASES[name]
    torch.manual_seed(0)
    model = make()
    if isinstance(model, nn.Module):
        model = model.eval()
    x, x0 = torch.randn(BATCH, *shape).double(), torch.randn(shape).double()
    if isinstance(model, nn.Module):
        model = model.double()
        model(x)
    once = attribute(model, x, x0, target=1, rules=rules)
    monkeypatch.setattr(streams, "repeating", lambda _: {})
    return once, attribute(model, x, x0, target=1, rules=rules)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.parametrize("name", CASES)
def test_nothing_changes(small, monkeypatch, name, rules):
    once, all_rows = _of_both_kinds(monkeypatch, name, rules)
    for field in ("contributions", "output", "baseline_output", "convergence_delta"):
        torch.testing.assert_close(getattr(once, field), getattr(all_rows, field), rtol=1e-9, atol=1e-11)
    assert {(row.operation, row.rule): row.count for row in once.report} == {
        (row.operation, row.rule): row.count for row in all_rows.report
    }


@pytest.mark.parametrize("name", ["MLP", "encoder", "convolutions"])
def test_layers_see_one_row_of_the_baseline(small, monkeypatch, name):
    seen: list[int] = []
    spread = shared_rows.SharedRows._spread
    monkeypatch.setattr(shared_rows.SharedRows, "_spread", lambda *args: seen.append(args[1].numel()) or spread(*args))
    _of_both_kinds(monkeypatch, name, "complete")
    assert len(seen) >= 3


def test_a_model_that_needs_its_strides_runs_on_all_rows(small):
    """An error in the pass with shared rows is no error."""
    failed = []

    def model(x: Tensor) -> Tensor:
        hidden = torch.relu(x)
        if not failed:
            failed.append(True)
            raise RuntimeError("strides")
        return hidden[:, :2]

    found = attribute(model, torch.ones(BATCH, 4), rules="complete", target=0)
    assert failed
    assert found.contributions.tolist() == [[1.0, 0.0, 0.0, 0.0]] * BATCH


def test_a_path_that_diverges_is_taken_again(small):
    runs = []

    def model(x: Tensor) -> Tensor:
        runs.append(None)
        return torch.relu(x + 0 if len(runs) == 1 else torch.tanh(x))[:, :2]

    found = attribute(model, torch.ones(BATCH, 4), rules="complete", target=0)
    assert {row.rule for row in found.report} == {"linear", "secant"}
    torch.testing.assert_close(found.convergence_delta, torch.zeros(BATCH), rtol=0, atol=1e-6)


def test_only_equal_rows_repeat():
    x = torch.zeros(4, 2048)
    other = torch.zeros(4, 2048)
    other[2, 5] = 1
    found = shared_rows.repeating({"equal": x, "other": other, "few": x[:, :3], "one": x[:1]})
    assert found.keys() == {"equal"}
    assert found["equal"].stride(0) == 0
