"""Progress of a run as a bar, plain lines or JSON lines: counts of samples, never a patient's values."""

import contextlib
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, ClassVar, Literal, TextIO, override

import numpy as np

from deeplift_fast.errors import CohortError
from deeplift_fast.support.bars import bar, in_notebook
from deeplift_fast.support.events import Level, event_line, new_run_id

KINDS = ("auto", "bar", "lines", "json", "none")
EVERY = 10.0
"""Seconds between plain lines."""

_SHOWN_ON: ContextVar[tuple[TextIO, str] | None] = ContextVar("_SHOWN_ON", default=None)

_DECADES = (-12.0, 6.0)
_BINS = 7200


class RunningMedian:
    """The median of absolute values to 1 %, in bounded memory: a histogram of logarithms."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS + 2, np.int64)
        self._edges = np.logspace(*_DECADES, _BINS + 1)

    def add(self, values: np.ndarray) -> None:
        """Counts the finite values."""
        finite = np.abs(values[np.isfinite(values)])
        self._counts += np.bincount(np.searchsorted(self._edges, finite), minlength=_BINS + 2)

    def median(self) -> float | None:
        """The median so far; `None` before the first value, 0 if it is below 1e-12."""
        total = int(self._counts.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self._counts), (total + 1) // 2))
        if place == 0:
            return 0.0
        return float(np.sqrt(self._edges[place - 1] * self._edges[min(place, _BINS)]))


@contextlib.contextmanager
def shown_on(file: TextIO, run: str) -> Iterator[None]:
    """Shows progress on this file instead of standard error, and gives the run this id."""
    token = _SHOWN_ON.set((file, run))
    try:
        yield
    finally:
        _SHOWN_ON.reset(token)


def run_id() -> str:
    """The id given by :func:`shown_on`, or else a new one."""
    shown = _SHOWN_ON.get()
    return new_run_id() if shown is None else shown[1]


class Progress:
    """Shows a run; a context manager.

    Args:
        kind: one of :data:`KINDS`; `"auto"` is a bar on a terminal and in a notebook, and lines elsewhere.
        run: id of the run.
        total: number of all samples; `None` if it is unknown before the end.
        done: number of samples in parts of earlier runs.
        failures: number of those samples that could not be attributed.
        file: the file to write to; `None` for the file of :func:`shown_on`, or else standard error.
    """

    what: ClassVar[str] = "Attributing"

    def __init__(
        self, kind: str, run: str, total: int | None, done: int = 0, failures: int = 0, file: TextIO | None = None
    ) -> None:
        shown = _SHOWN_ON.get()
        self._file = file or (sys.stderr if shown is None else shown[0])
        if kind == "auto":
            kind = "bar" if self._file.isatty() or (self._file is sys.stderr and in_notebook()) else "lines"
        self._kind, self._run = kind, run
        self._total, self._before, self._done, self._failures = total, done, done, failures
        self._median = RunningMedian()
        self._started = self._said = time.monotonic()
        self._work, self._lanes = 0.0, 1
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if self._kind == "bar":
            options = {"desc": self.what, "unit": " samples", "file": self._file, "dynamic_ncols": True}
            self._bar = bar(total=self._total, initial=self._done, **options)
        self._show("start")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> Literal[False]:
        if self._bar is not None:
            self._bar.close()
        self._show("end" if kind is None else "stopped")
        return False

    def worked(self, seconds: float, lanes: int) -> None:
        """Counts the work on a part of a cluster, before :meth:`add`.

        The time left is then estimated from the work alone, without the time in which the workers started.

        Args:
            seconds: duration of the work.
            lanes: number of parts that are attributed side by side; 0 if it is unknown.
        """
        if self._bar is not None and not self._bar.disable and not self._work:  # TQDM_DISABLE
            self._bar.last_print_t += max(0.0, time.monotonic() - self._started - seconds)  # the bar's speed, too
        self._work += seconds
        self._lanes = lanes or self._lanes

    def add(self, samples: int, failures: int, deltas: np.ndarray) -> None:
        """Counts a part.

        Args:
            samples: number of its samples.
            failures: number of its samples that could not be attributed.
            deltas: convergence deltas of the others.
        """
        self._done += samples
        self._failures += failures
        self._median.add(deltas)
        if self._bar is not None:
            self._bar.set_postfix_str(self._postfix(), refresh=False)
            self._bar.update(samples)
        elif self._kind == "json" or time.monotonic() - self._said >= EVERY:
            self._show("part")

    def _show(self, event: str) -> None:
        self._said = time.monotonic()
        seconds = self._said - self._started
        rate = (self._done - self._before) / seconds if seconds > 0 else 0.0
        left = self._left(rate)
        median = self._median.median()
        if self._kind == "json":
            about = {
                "done": self._done,
                "total": self._total,
                "failures": self._failures,
                "samples_per_second": round(rate, 2),
                "eta_seconds": None if left is None else round(left, 1),
                "median_abs_delta": median,
                "seconds": round(seconds, 3),
            }
            level: Level = "warning" if event == "stopped" else "info"
            self._file.write(event_line(self._run, event, level, **about))
            self._file.flush()
        elif self._kind == "lines":
            of = "" if self._total is None else f" of {self._total:,}"
            eta = "" if left is None or event != "part" else f", {_span(left)} left"
            numbers = f"{rate:,.0f} samples/s{eta}{self._further()}"
            line = f"{self._done:,}{of} samples" + ("" if event == "start" else f", {numbers}")
            print(f"{self.what}: {line}" + (", stopped" if event == "stopped" else ""), file=self._file, flush=True)

    def _left(self, rate: float) -> float | None:
        """Seconds left; `None` if unknown."""
        if self._total is None or not rate:
            return None
        if self._work:
            rate = (self._done - self._before) / self._work * self._lanes
        return max(0, self._total - self._done) / rate

    def _postfix(self) -> str:
        """The facts beside a bar."""
        return f"failures {self._failures:,}, median |delta| {_number(self._median.median())}"

    def _further(self) -> str:
        """The facts at the end of a line, after a comma."""
        return f", {self._failures:,} failures, median |delta| {_number(self._median.median())}"


class CachingProgress(Progress):
    """Shows that a cache is made; nothing of a sample can fail."""

    what = "Caching"

    @override
    def _postfix(self) -> str:
        return ""

    @override
    def _further(self) -> str:
        return ""


def check_kind(kind: Any) -> None:
    """Raise CohortError unless this is one of :data:`KINDS`."""
    if kind not in KINDS:
        raise CohortError(f"progress is {kind!r}; accepted: {', '.join(map(repr, KINDS))}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
