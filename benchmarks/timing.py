"""Medians of calls taken in turn."""

import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping

Call = Callable[[], object]

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
SETTLE = 0.05  # seconds; OpenMP's threads spin for some milliseconds after their last parallel region
SHORT = 0.1  # seconds; a shorter call is repeated for this time


def seconds(call: Call) -> float:
    """Seconds of one call, after garbage is collected and no thread spins any more."""
    gc.collect()
    time.sleep(SETTLE)
    return _timed(call)


def seconds_in_a_loop(call: Call) -> float:
    """As :func:`seconds`, but for a short call the mean over :data:`SHORT`, after a first call that wakes threads."""
    first = seconds(call)
    if first >= SHORT:
        return first
    times = round(SHORT / first)

    def loop() -> None:
        for _ in range(times):
            call()  # its result is freed before the next call, as in a loop over batches

    return _timed(loop) / times


def _timed(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians_in_turn(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Medians in seconds by name, after one uncounted call of each.

    Each round has a random order, because a call after a call of many seconds takes up to a tenth longer.
    """
    draw = random.Random(0)
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in draw.sample(list(calls), len(calls)):
            times[name].append(seconds_in_a_loop(calls[name]))
    return {name: statistics.median(values) for name, values in times.items()}
