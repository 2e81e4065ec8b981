"""Two interpreters timed on the same batches."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from deeplift_fast.demo.model import to_device

Attribute = Callable[..., Any]


@dataclass(frozen=True)
class Speed:
    """Samples per second of two interpreters.

    Attributes:
        samples: samples that both attributed.
        ours: samples per second.
        theirs: samples per second.
        where: what both ran on.
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
    """Times two interpreters on the same batches, taken in turn.

    Where more than one batch is timed, the first one does not count: it pays for loading code.

    Args:
        ours: called with a batch as keyword arguments.
        theirs: the other one, called alike.
        loader: yields batches of equal size, the last one perhaps smaller; it must yield one at least.
        device: where the batches go.
        most_samples: samples after which no further batch is taken.
        most_seconds: time after which no further batch is taken.
    """
    rounds: list[tuple[int, float, float]] = []  # samples, our seconds, their seconds
    with tqdm(total=most_samples, desc="Timing", unit=" samples", delay=1) as bar:
        for batch in loader:
            moved = to_device(batch, device)
            # Who goes first changes from batch to batch: the second one finds the batch in the cache.
            order = (ours, theirs) if len(rounds) % 2 else (theirs, ours)
            seconds = {attribute: _timed(attribute, moved) for attribute in order}
            rounds.append((len(batch["patient_id"]), seconds[ours], seconds[theirs]))
            bar.update(rounds[-1][0])
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
    """Seconds of one call, with what the device still has to do."""
    _finish()
    start = time.perf_counter()
    attribute(**batch)
    _finish()
    return time.perf_counter() - start


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
