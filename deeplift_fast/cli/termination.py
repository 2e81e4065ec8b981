"""SIGTERM, as schedulers and containers send it, ends a command as Ctrl-C does."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Terminated(KeyboardInterrupt):
    """The process was sent SIGTERM: what ends on Ctrl-C ends on this."""


class Termination:
    """Whether SIGTERM came.

    A process group that is terminated loses its reading and worker processes too, whose deaths raise errors of their
    own; this tells that they are no more than that.
    """

    came = False


@contextlib.contextmanager
def termination_raised() -> Iterator[Termination]:
    """Raises :class:`Terminated` in the main thread when SIGTERM comes, where it would have ended the process.

    Yields:
        Whether it came.
    """
    found = Termination()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield found  # whoever runs this command has an answer of its own
        return
    process = os.getpid()

    def raise_once(number: int, _: Any) -> None:
        if os.getpid() != process:  # a forked child: it ends as if this handler were not there
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if not found.came:  # a second one leaves what is being put in order alone
            found.came = True
            raise Terminated

    signal.signal(signal.SIGTERM, raise_once)
    try:
        yield found
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
