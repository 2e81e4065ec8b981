"""Runs in forked processes: one process imports everything once, as imports take seconds, and none of them hangs."""

import os
import signal
import time

LIMIT = 120.0
"""Seconds that a run of a tenth of a second may take, on a machine that has much else to do."""


def forked(call):
    """The process of a call, which leads a group of its own; what the call gives is its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()  # reading processes die with it
            code = call() or 0
        finally:
            os._exit(code)
    return child


def ended(child):
    """The status of a process once it has ended; one that hangs is killed, and an error."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.002)
    killed(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("a run hangs")


def killed(child, number):
    """Sends a process and its children a signal."""
    try:
        own_group = os.getpgid(child) == child
        os.killpg(child, number) if own_group else os.kill(child, number)
    except ProcessLookupError:
        pass


def quietly():
    """Drops what this process writes."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
