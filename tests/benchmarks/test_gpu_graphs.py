"""How graphs are captured and compared, on the CPU and on a pretended GPU."""

import contextlib

import gpu_graphs
import gpu_timing
import pytest
import torch
from gpu_cases import CASES, Case

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)
NAMES = ("secant, tanh, rescale", "attention, every row", "recurrent, stagenet, secant", "convergence, scaled")


@pytest.mark.parametrize("name", NAMES)
def test_calls_without_a_graph_agree(name):
    assert gpu_graphs.checked(CASES[name], CPU) == {"replay": True, "two streams": True, "right": True}


def test_a_replay_of_old_inputs_is_found(monkeypatch):
    """A graph of another device's stream would be empty, and leave the first results in place."""

    def captured(call, device):
        result = call()
        return lambda: [result], result

    case = CASES["secant, tanh, rescale"]
    monkeypatch.setattr(gpu_graphs, "captured", captured)
    assert gpu_graphs.checked(case, CPU) == {"replay": False, "two streams": True, "right": False}


def test_streams_that_disturb_one_another_are_found(monkeypatch):
    calls = []

    def disturbed(self, call):
        calls.append(self)
        found = right(self, call)
        return [each + (len(calls) == 3) for each in found]

    right = Case.run
    monkeypatch.setattr(Case, "run", disturbed)
    assert not gpu_graphs.streams_are_eager(CASES["secant, tanh, rescale"], CPU)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([1.0, float("nan")], [1.0, float("nan")], True),
        ([0.0], [-0.0], False),
        ([1.0], [1.0 + 2**-20], False),
        (1.0, 1.0, True),
        ([1.0], [1.0, 2.0], False),
    ],
)
def test_bits(a, b, same):
    assert gpu_graphs.same_bits([torch.tensor(a)], [torch.tensor(b)]) is same


def test_a_load_that_fails_beside_the_checks_fails():
    def load():
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        gpu_graphs.beside(load, lambda: True, 1)


def test_pinned():
    row = gpu_graphs.pinned(CPU)
    assert row["right"]
    assert row["batches that were pinned meanwhile"] > 0


class Stream:
    """A stream that remembers what it waits for."""

    def __init__(self, device=None):
        self.device, self.waited = device, []

    def wait_stream(self, other):
        self.waited.append(other)


@pytest.fixture
def pretended(monkeypatch):
    """What is captured on a GPU that does not exist: the streams, the arguments of the capture, and the replays."""
    seen = {"streams": [], "graphs": [], "replays": [], "device": []}
    current = Stream()

    class Graph:
        def replay(self):
            seen["replays"].append(self)

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            pass

        def elapsed_time(self, other):
            return 2.0  # milliseconds

    def stream(device):
        seen["streams"].append(Stream(device))
        return seen["streams"][-1]

    @contextlib.contextmanager
    def graph(*args, **options):
        seen["graphs"].append((args, options))
        yield

    @contextlib.contextmanager
    def device(which):
        seen["device"].append(which)
        yield

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return seen


def test_a_graph_is_captured_on_a_stream_of_its_device(pretended):
    calls = []
    replay, result = gpu_timing.captured(lambda: calls.append(1) or len(calls), GPU, times=4)
    assert len(calls) == gpu_timing.WARM_UP + 4
    assert result == len(calls)
    (stream,) = pretended["streams"]
    (((graph,), options),) = pretended["graphs"]
    assert stream.device == GPU
    assert len(stream.waited) == 1
    assert options == {"stream": stream, "capture_error_mode": "thread_local"}
    assert pretended["device"] == [GPU]
    replay()
    assert pretended["replays"] == [graph]


def test_a_call_is_timed_inside_a_graph(pretended):
    calls = []
    seconds = gpu_timing.kernel_seconds(lambda: calls.append(1), GPU, 7)
    assert seconds == pytest.approx(2e-3 / gpu_timing.IN_A_GRAPH)
    assert len(calls) == gpu_timing.WARM_UP + gpu_timing.IN_A_GRAPH
    assert len(pretended["replays"]) == 1 + 7
