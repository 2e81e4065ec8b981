"""Stops the command in each way once its first part is there, in forked processes: imports take seconds.

Run as `stopping.py FOLDER`. Each way has a folder of its own with the run in `cut` and standard error in `told`. It
prints the exit codes by way.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from cohort_cases import cohort

from deeplift_fast.cli import app, main  # noqa: F401  (imported before the forks)
from deeplift_fast.cohort import attribute_cohort  # noqa: F401

LIMIT = 300.0
"""Seconds until the first part, or from the signal to the end, on a machine that has much else to do."""

BLOCKED = 40
"""The sample that is never read once the run has begun, so that no run ends before it is stopped."""

OPTIONS = ["--rules", "rescale", "--part-samples", "10"]


def build():
    """The model and its dataset; `BLOCKED` stops the reading of its parts, but not the checks before them."""
    data, model = cohort(count=120)
    read = type(data).__getitem__

    def blocking(self, number):
        while number == BLOCKED and Path("cut/manifest.json").exists():
            time.sleep(0.1)
        return read(self, number)

    type(data).__getitem__ = blocking
    return model, data


def to_all(process):
    os.killpg(process, signal.SIGTERM)


def to_the_reader_later(process):
    """As where the reading process, which gives way to all others, gets no core to die on for a while."""
    children = Path(f"/proc/{process}/task/{process}/children")
    reader = int(children.read_text().split()[0])
    os.kill(process, signal.SIGTERM)
    time.sleep(0.5)
    with contextlib.suppress(ProcessLookupError):
        os.kill(reader, signal.SIGTERM)


WAYS = {
    "Ctrl-C": (lambda process: os.kill(process, signal.SIGINT), "0"),
    "SIGTERM": (lambda process: os.kill(process, signal.SIGTERM), "0"),
    "SIGTERM to all its processes": (to_all, "1"),
    "SIGTERM, and later to the reading process": (to_the_reader_later, "1"),
}
"""By way: how to stop a run, and the number of its reading processes."""


def begun(folder, ahead):
    """The process of a run, which ends as the command does."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    os.chdir(folder)
    for stream, name in ((1, "said"), (2, "told")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream)
    sys.exit(main(["run", "stopping:build", "--out", "cut", *OPTIONS, "--read-ahead", ahead]))


def wait_for(there):
    until = time.monotonic() + LIMIT
    while not there():
        assert time.monotonic() < until, "a run hangs"
        time.sleep(0.01)


def stopped(folder, stop, ahead):
    """The exit code of a run that was stopped."""
    process, status = begun(folder, ahead), []

    def ended():
        found, code = os.waitpid(process, os.WNOHANG)
        status.extend([code] if found else [])
        return status

    try:
        wait_for(lambda: ended() or list(folder.glob("cut/samples/part-*")))
        assert not status, (folder / "told").read_text()
        stop(process)
        wait_for(ended)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status[0])


if __name__ == "__main__":
    sys.modules["stopping"] = sys.modules["__main__"]  # of the command's recipe
    codes = {}
    for way, (stop, ahead) in WAYS.items():
        folder = Path(sys.argv[1]) / way
        folder.mkdir()
        codes[way] = stopped(folder, stop, ahead)
    print(json.dumps(codes))
