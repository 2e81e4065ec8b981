"""Processes that a test starts: they end within the test's limit, with all that they started themselves.

`subprocess.run(timeout=...)` ends one process and then waits for its output, which a child of it may hold open.
"""

import contextlib
import os
import signal
import subprocess
import threading


@contextlib.contextmanager
def started(command, limit, **options):
    """A process in a group of its own, which is killed at the end of the block, or after `limit` seconds."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes | options)
    timer = threading.Timer(limit, kill_group, [process])
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        kill_group(process)
        process.communicate()


def kill_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(command, limit, **options):
    """As `subprocess.run`, its output captured as text; what is not done after `limit` seconds has the code -9."""
    with started(command, limit, **options) as process:
        out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)
