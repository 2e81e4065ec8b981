"""The time that a run of `gpu.py` may take, and the parts that it leaves out."""

import time
from collections.abc import Callable

NO_TIME = "no time left"


class NotRun(Exception):
    """A part of the benchmark cannot run here; the message names the reason."""


class Budget:
    """Minutes that begin now.

    Args:
        minutes: their number.
        clock: gives seconds.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + 60 * minutes

    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self._end - self._clock())

    def at_most(self, seconds: float) -> float:
        """`seconds`, or a third of the seconds that are left if these are fewer: others come after."""
        return min(seconds, self.left() / 3)
