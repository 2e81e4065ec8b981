"""Times competitors in turn, in one process, and prints the ratios of their medians."""

import random
import statistics
import time
from collections.abc import Callable

import pytest
import torch

Calls = dict[str, Callable[[], object]]
_rows = pytest.StashKey[list[str]]()


def pytest_configure(config):
    config.stash[_rows] = []


@pytest.fixture
def in_turn(request, benchmark):
    """`in_turn(calls, rounds)`: the first call is ours; pytest-benchmark stores it, the others go into extra_info.

    Returns the medians in seconds, by name.
    """

    def measure(calls: Calls, rounds: int) -> dict[str, float]:
        ours = next(iter(calls))
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values) for name, values in times.items()}
        benchmark.extra_info.update({name: 1e3 * median for name, median in medians.items()}, unit="ms, median")
        benchmark.pedantic(calls[ours], rounds=1)
        shown = ", ".join(
            f"{name} {1e3 * median:.1f} ms" + ("" if name == ours else f" ({median / medians[ours]:.2f}x)")
            for name, median in medians.items()
        )
        request.config.stash[_rows].append(f"{request.node.name}: {shown}")
        return medians

    return measure


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_rows]:
        terminalreporter.section(f"medians taken in turn (ratio to ours), {torch.get_num_threads()} threads")
        for row in config.stash[_rows]:
            terminalreporter.write_line(row)


@pytest.fixture(scope="session")
def stagenet_samples():
    """128 patients with 1 to 12 visits of 1 to 25 codes, and 5 to 120 lab steps of 10 values."""
    draw = random.Random(0)
    samples = []
    for patient in range(128):
        visits, steps = draw.randint(1, 12), draw.randint(5, 120)
        codes = [[f"c{draw.randint(0, 2000)}" for _ in range(draw.randint(1, 25))] for _ in range(visits)]
        labs = [[draw.gauss(0, 1) for _ in range(10)] for _ in range(steps)]
        samples.append(
            {
                "patient_id": f"p{patient}",
                "codes": ([24.0 * visit for visit in range(visits)], codes),
                "labs": ([float(step) for step in range(steps)], labs),
                "label": patient % 2,
            }
        )
    return samples


@pytest.fixture(scope="session")
def sequence_samples():
    """256 patients with two code sequences, of up to 40 and up to 20 codes."""
    draw = random.Random(0)
    return [
        {
            "patient_id": f"p{patient}",
            "conditions": [f"c{draw.randint(0, 2000)}" for _ in range(draw.randint(1, 40))],
            "procedures": [f"p{draw.randint(0, 500)}" for _ in range(draw.randint(1, 20))],
            "label": patient % 2,
        }
        for patient in range(256)
    ]
