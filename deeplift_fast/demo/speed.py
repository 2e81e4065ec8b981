"""Times two interpreters on the same batches."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from deeplift_fast.cohort.attributing import to_device
from deeplift_fast.support.bars import bar

Attribute = Callable[..., Any]


@dataclass(frozen=True)
class Speed:
    """Speeds of two interpreters.

    Attributes:
        samples: number of timed samples.
        ours: samples per second of the first.
        theirs: samples per second of the second.
        where: device of both.
    """

    samples: int
    ours: float
    theirs: float
    where: str


def compare_speed(
    ours: Attribute,
    theirs: Attribute,
    loader: Iterable[Mapping[str, Any]],
    device: torch.device | str,
    most_samples: int,
    most_seconds: float,
) -> Speed:
    """Times two interpreters in turn on the same batches.

    The first batch also loads code. It counts only if it is the only one.

    Args:
        ours: first interpreter, called with a batch as keyword arguments.
        theirs: second interpreter, called in the same way.
        loader: yields at least one batch; all have the same size, except the last, which may be smaller.
        device: device of the batches.
        most_samples: number of samples after which timing stops.
        most_seconds: seconds after which timing stops.
    """
    rounds: list[tuple[int, float, float]] = []  # samples, our seconds, their seconds
    with bar(total=most_samples, desc="Timing", unit=" samples", delay=1) as shown:
        for batch in loader:
            moved = to_device(batch, torch.device(device))
            # The order alternates, because the second one finds the batch in the processor's cache.
            order = (ours, theirs) if len(rounds) % 2 else (theirs, ours)
            seconds = {attribute: _timed(attribute, moved) for attribute in order}
            rounds.append((len(batch["patient_id"]), seconds[ours], seconds[theirs]))
            shown.update(rounds[-1][0])
            samples, *spent = (sum(column) for column in zip(*rounds, strict=True))
            if samples >= most_samples or sum(spent) >= most_seconds:
                break
    counted = rounds[1:] or rounds
    samples, our_seconds, their_seconds = (sum(column) for column in zip(*counted, strict=True))
    threads = torch.get_num_threads()
    cpu = f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    where = cpu if torch.device(device).type == "cpu" else str(device)
    return Speed(int(samples), samples / our_seconds, samples / their_seconds, where)


def _timed(attribute: Attribute, batch: Mapping[str, Any]) -> float:
    """Seconds of one call, until the device has finished."""
    _finish()
    start = time.perf_counter()
    attribute(**batch)
    _finish()
    return time.perf_counter() - start


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
