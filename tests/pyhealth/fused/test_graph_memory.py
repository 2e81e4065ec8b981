"""Captures, with stand-ins for PyTorch's calls that need a GPU: which calls, with which arguments."""

import contextlib
import types

import pytest
import torch

from deeplift_fast.pyhealth.fused.graph_memory import WARM_UPS, CudaGraphMemory


class Stream:
    def __init__(self, device, log):
        self.device, self.log = device, log

    def wait_stream(self, other):
        self.log.append(("wait_stream", self, other))

    def wait_event(self, event):
        self.log.append(("wait_event", self, event))


@pytest.fixture
def log(monkeypatch):
    calls, handles = [], iter(range(9))
    callers = {}

    @contextlib.contextmanager
    def entered(name, *args, **options):
        calls.append((name, *args, options))
        yield
        calls.append((f"{name} ends",))

    def event():
        made = types.SimpleNamespace(synchronize=lambda: calls.append(("synchronize", made)))
        made.record = lambda stream: calls.append(("record", made, stream))
        return made

    def graph():
        made = types.SimpleNamespace(replay=lambda: calls.append(("replay", made)))
        return made

    for name, stand_in in {
        "Stream": lambda device: Stream(device, calls),
        "Event": event,
        "CUDAGraph": graph,
        "graph_pool_handle": lambda: next(handles),
        "current_stream": lambda device: callers.setdefault(device, Stream(device, calls)),
        "device": lambda device: entered("device", device),
        "stream": lambda stream: entered("stream", stream),
        "graph": lambda *args, **options: entered("graph", *args, **options),
        "memory_reserved": lambda device: 100 * len([each for each in calls if each[0] == "run"]),
        "get_device_properties": lambda device: types.SimpleNamespace(total_memory=1000),
    }.items():
        monkeypatch.setattr(f"torch.cuda.{name}", stand_in)
    return calls


def named(log, name):
    return [each for each in log if each[0] == name]


def test_captures_share_pool_and_stream_of_their_own_device(log):
    first, second = (CudaGraphMemory(torch.device("cuda", index)) for index in range(2))
    for memory in (first, first, second):
        memory.record(lambda: log.append(("run",)) or [])
    options = [each[2] for each in named(log, "graph")]
    assert [each["pool"] for each in options] == [0, 0, 1]
    assert [each["stream"].device.index for each in options] == [0, 0, 1]
    assert options[0]["stream"] is options[1]["stream"]
    assert {each["capture_error_mode"] for each in options} == {"thread_local"}
    assert [each[1].index for each in named(log, "device")] == [0, 0, 1]
    assert first.held == 200
    assert second.held == 100
    assert first.total == 1000


def test_a_capture_follows_plain_runs_on_its_stream(log):
    memory = CudaGraphMemory(torch.device("cuda", 1))
    results = iter([["first"], ["second"], ["captured"]])
    recording, plain = memory.record(lambda: log.append(("run",)) or next(results))
    assert plain == ["second"]
    assert recording.tensors == ["captured"]
    names = [each[0] for each in log]
    before = ["device", "wait_stream", "wait_event", "stream", *["run"] * WARM_UPS, "stream ends", "wait_stream"]
    assert names == [*before, "graph", "run", "graph ends", "device ends"]
    recording.replay()
    assert log[-3:] == [("device", memory._device, {}), ("replay", named(log, "graph")[0][1]), ("device ends",)]


def test_every_replay_waits_for_the_one_before_whatever_its_graph(log):
    memory = CudaGraphMemory(torch.device("cuda", 1))
    memory.begin()
    memory.end()
    memory.wait()
    (waits,), (records,), (synchronized,) = (named(log, name) for name in ("wait_event", "record", "synchronize"))
    assert waits[2] is records[1] is synchronized[1]
    assert waits[1] is records[2]
    assert waits[1].device.index == 1
