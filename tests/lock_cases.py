"""Places without locks of the operating system, and locks that another run took."""

import errno
import fcntl
import json
import os
import time


def without_locks(monkeypatch, number=errno.ENOLCK):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)


def taken_over(store):
    """Another run's lock, which found this one's old."""
    content = {"host": "another", "pid": 7, "since": time.time(), "refreshed": time.time(), "token": "other"}
    store.replace(".lock", json.dumps(content).encode())
