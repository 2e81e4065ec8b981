"""How many faults are injected, and what came of them; `make soak` injects many more than the test suite does."""

from collections import Counter

import pytest


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="200 kills, 500 flipped bits, 1,000 bad batches")


@pytest.fixture
def examples(request):
    """Chooses a number of examples: the first in the test suite, the second with `--soak`."""
    soak = request.config.getoption("--soak", default=False)
    return lambda few, many: many if soak else few


@pytest.fixture
def figures(record_property):
    """Notes how many faults of a kind were injected, and how many ended in each way."""
    return lambda kind, **ends: record_property("figures", [kind, ends])


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--soak", default=False):
        return
    kinds = {}
    for report in [each for end in ("passed", "failed") for each in terminalreporter.getreports(end)]:
        for name, value in report.user_properties:
            if name == "figures":
                kinds.setdefault(value[0], Counter()).update(value[1])
    terminalreporter.section("faults, and what came of them")
    for kind, ends in kinds.items():
        told = ", ".join(f"{end.replace('_', ' ')} {count:,}" for end, count in ends.items())
        terminalreporter.line(f"{kind}: {told}")
