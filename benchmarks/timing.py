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
SHORT = 0.1  # seconds; a shorter call is timed over and over for as long, as in a loop over batches


def seconds(call: Call) -> float:
    """One call, with garbage collected and no thread left spinning before it."""
    gc.collect()
    time.sleep(SETTLE)
    return _timed(call)


def seconds_in_a_loop(call: Call) -> float:
    """As :func:`seconds`; of a short call the mean over :data:`SHORT`, after the first one, which wakes the threads."""
    first = seconds(call)
    if first >= SHORT:
        return first
    times = round(SHORT / first)

    def loop() -> None:
        for _ in range(times):
            call()  # whose result goes before the next one, as in a loop over batches: its memory is taken again

    return _timed(loop) / times


def _timed(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians_in_turn(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Medians in seconds by name, after one call of each that is not counted.

    Every round goes in another order: a call that follows one of many seconds takes up to a tenth longer, matrix
    products too, and none may always be that one.
    """
    draw = random.Random(0)
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in draw.sample(list(calls), len(calls)):
            times[name].append(seconds_in_a_loop(calls[name]))
    return {name: statistics.median(values) for name, values in times.items()}
