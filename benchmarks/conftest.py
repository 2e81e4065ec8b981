"""Fixtures that time calls in turn in one process, print the ratios of their medians, and store those of models."""

from collections.abc import Mapping

import model_results
import model_tables
import patients
import pytest
import torch
from timing import Call, medians_in_turn

_rows = pytest.StashKey[list[str]]()
_results = pytest.StashKey[dict[str, dict]]()


def pytest_configure(config):
    config.stash[_rows] = []
    config.stash[_results] = {}


@pytest.fixture(scope="session", autouse=True)
def _freed_memory_stays():
    """The C library keeps freed memory once large blocks were freed, here before any case, whichever cases run.

    Otherwise a peer pays for fresh pages when its case runs first: PyHealth's MLP took 1.4 times as long.
    """
    for _ in range(3):
        blocks = [torch.ones(7 << 20) for _ in range(3)]  # 28 MiB each
        del blocks


@pytest.fixture
def in_turn(request, benchmark):
    """`in_turn(calls, rounds)` returns the medians in seconds, by name. The first call is ours.

    pytest-benchmark stores the first call, and the medians as extra_info. They are printed at the end unless
    `listed=False`.
    """

    def measure(calls: Mapping[str, Call], rounds: int, listed: bool = True) -> dict[str, float]:
        ours = next(iter(calls))
        medians = medians_in_turn(calls, rounds)
        benchmark.extra_info.update({name: 1e3 * median for name, median in medians.items()}, unit="ms, median")
        benchmark.pedantic(calls[ours], rounds=1)
        shown = ", ".join(
            f"{name} {1e3 * median:.1f} ms" + ("" if name == ours else f" ({median / medians[ours]:.2f}x)")
            for name, median in medians.items()
        )
        if listed:
            request.config.stash[_rows].append(f"{request.node.name}: {shown}")
        return medians

    return measure


@pytest.fixture
def record(request):
    """`record(section, name, row)` stores a row for `results/models.json`; see `model_results`."""

    def keep(section: str, name: str, row: dict) -> None:
        request.config.stash[_results].setdefault(section, {})[name] = row

    return keep


def pytest_sessionfinish(session):
    if session.config.stash[_results]:
        session.config.stash[_results] = model_results.update(session.config.stash[_results])


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_rows]:
        terminalreporter.section(f"medians taken in turn (ratio to ours), {torch.get_num_threads()} threads")
        for row in config.stash[_rows]:
            terminalreporter.write_line(row)
    if config.stash[_results]:
        terminalreporter.section("models")
        terminalreporter.write_line(model_tables.as_text(config.stash[_results]))


@pytest.fixture(scope="session")
def stagenet_samples():
    return patients.stagenet()


@pytest.fixture(scope="session")
def sequence_samples():
    return patients.sequences()
