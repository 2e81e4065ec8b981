"""Makes SIGTERM, which schedulers and containers send, end a command like Ctrl-C."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM came; handlers of Ctrl-C handle it too."""


class Termination:
    """Whether SIGTERM came.

    SIGTERM to a process group also ends reading and worker processes, whose deaths raise other errors. `came` shows
    their cause.
    """

    came = False


@contextlib.contextmanager
def termination_raised() -> Iterator[Termination]:
    """Raises :class:`Terminated` in the main thread when SIGTERM comes, unless the caller handles SIGTERM.

    Yields:
        Whether it came.
    """
    found = Termination()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield found
        return
    process = os.getpid()

    def raise_once(number: int, _: Any) -> None:
        if os.getpid() != process:  # a forked child ends at once
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if not found.came:  # a second SIGTERM does not interrupt cleaning up
            found.came = True
            raise Terminated

    signal.signal(signal.SIGTERM, raise_once)
    try:
        yield found
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
