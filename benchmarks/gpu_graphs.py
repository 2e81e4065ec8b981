"""CUDA graphs of single ops beside calls without one, bit for bit; two streams; pinned memory in another thread."""

import threading
from collections.abc import Callable, Sequence

import torch
from gpu_cases import CASES, Case
from gpu_timing import captured, synchronise
from torch import Tensor

PINNED_CASE = CASES["recurrent, stagenet, secant"]
ROUNDS = 5
WAIT = 60.0  # seconds


def same_bits(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether tensors have equal shapes and bits; equal NaNs are equal."""
    return len(found) == len(expected) and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(_bits(a), _bits(b))
        for a, b in zip(found, expected, strict=True)
    )


def _bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8) if x.dim() else x.reshape(1).view(torch.uint8)


def copied(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies, which later calls do not change."""
    return [each.clone() for each in tensors]


def checked(case: Case, device: torch.device) -> dict:
    """Whether a graph gives the bits of calls without one, also after its inputs have changed; and two streams."""
    row = {"replay": replay_is_eager(case, device), "two streams": streams_are_eager(case, device)}
    return row | {"right": all(row.values())}


def replay_is_eager(case: Case, device: torch.device) -> bool:
    """Whether replays of a graph give the bits of a call without one, before and after the inputs are halved."""
    call = case.call(torch.float32, device)
    replay, result = captured(lambda: case.returned(call), device)
    same = []
    for _ in range(2):
        expected = copied(case.run(call))
        for tensor in [result] if isinstance(result, Tensor) else result:
            tensor.fill_(torch.nan)
        again = replay()
        synchronise(device)
        # On the CPU the replay is a list of results.
        same.append(same_bits(call.compared(result if again is None else again[-1]), expected))
        for given in call.arguments:
            if isinstance(given, Tensor) and given.is_floating_point():
                given.mul_(0.5)
    return all(same)


def streams_are_eager(case: Case, device: torch.device) -> bool:
    """Whether two streams that make the same calls at the same time get the bits of one stream."""
    calls = [case.call(torch.float32, device) for _ in range(2)]
    expected = copied(case.run(calls[0]))
    synchronise(device)
    found: list[list[Tensor]] = []
    if device.type != "cuda":
        return all(same_bits(case.run(call), expected) for call in calls)
    streams = [torch.cuda.Stream(device) for _ in calls]
    for _ in range(ROUNDS):
        for call, stream in zip(calls, streams, strict=True):
            with torch.cuda.stream(stream):
                found.append(copied(case.run(call)))
    synchronise(device)
    return all(same_bits(each, expected) for each in found)


def pinned(device: torch.device) -> dict:
    """Whether a graph can be captured and replayed while another thread pins memory and copies it to the device."""

    def load() -> None:
        batch = torch.arange(1 << 16, dtype=torch.float32)
        held = batch.pin_memory() if device.type == "cuda" else batch
        held.to(device, non_blocking=True)

    right, loads = beside(load, lambda: replay_is_eager(PINNED_CASE, device), ROUNDS)
    return {"batches that were pinned meanwhile": loads, "right": right}


def beside(load: Callable[[], None], check: Callable[[], bool], rounds: int) -> tuple[bool, int]:
    """Whether all of `rounds` checks hold while another thread repeats `load`; and the number of its loads.

    Raises:
        BaseException: what the other thread raised.
    """
    done, loads, raised = threading.Event(), [0], list[BaseException]()
    first = threading.Event()

    def loop() -> None:
        try:
            while not done.is_set():
                load()
                loads[0] += 1
                first.set()
        except BaseException as error:  # raised again by the main thread
            raised.append(error)
            first.set()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    first.wait(WAIT)
    try:
        found = [check() for _ in range(rounds)]
    finally:
        done.set()
        thread.join(WAIT)
    if raised:
        raise raised[0]
    return all(found), loads[0]


def second_device() -> dict:
    """Whether a graph on the second device is right while the first one is the current one."""
    with torch.cuda.device(0):
        return {"right": replay_is_eager(PINNED_CASE, torch.device("cuda", 1))}
