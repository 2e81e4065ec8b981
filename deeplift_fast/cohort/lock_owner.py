"""What a lock says of the run that holds it, and whether that run is still there."""

import json
import math
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deeplift_fast.support.printable import printable

_LARGEST_PID = 1 << 31
_LONGEST = 255  # characters of a name


@dataclass(frozen=True)
class Owner:
    """The run that a lock is of.

    Attributes:
        host: name of its machine.
        pid: its process.
        since: when it began, in seconds since the epoch.
        refreshed: when it last said that it is alive, in the same; `None` where a lock of the system tells.
        space: where its process has that number: the machine since it was started, and the container.
        token: what tells it from every other run.
    """

    host: str
    pid: int
    since: float
    refreshed: float | None = None
    space: str = ""
    token: str = ""

    def content(self, refreshed: bool) -> bytes:
        """What the lock says.

        Args:
            refreshed: whether to say that the run is alive now.
        """
        fields = asdict(self) | {"refreshed": time.time() if refreshed else None}
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()

    def shown(self) -> str:
        """The run, as errors name it."""
        here = self.host == socket.gethostname()
        elsewhere = " in another container" if here and self.space not in ("", _space()) else ""
        age = max(0.0, time.time() - self.since)
        return f"process {self.pid} on {printable(self.host)}{elsewhere}, for {span(age)}"


def this_run() -> Owner:
    """The run that is beginning here."""
    return Owner(socket.gethostname(), os.getpid(), time.time(), None, _space(), secrets.token_hex(16))


def owner_of(content: bytes) -> Owner:
    """What a lock says.

    Raises:
        ValueError: if it is no lock's content, naming what is wrong.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}")
    return Owner(
        host=_text(found, "host"),
        pid=_pid(found),
        since=_time(found, "since"),
        refreshed=_time(found, "refreshed") if found.get("refreshed") is not None else None,
        space=_text(found, "space", ""),
        token=_text(found, "token", ""),
    )


def is_left_behind(owner: Owner, stale: float) -> bool:
    """Whether a lock's run is gone.

    Args:
        owner: the run.
        stale: seconds without a sign of life after which it counts as gone, where nothing else tells.

    Raises:
        ValueError: if its time is so far in the future that one of two clocks is wrong.
    """
    in_this_space = owner.host == socket.gethostname() and owner.space in ("", _space())
    if in_this_space and not _is_alive(owner.pid):
        return True
    if owner.refreshed is None:
        return False
    age = time.time() - owner.refreshed
    if age < -stale:
        raise ValueError(f"its time is {span(-age)} in the future: a clock is wrong")
    return age > stale


def span(seconds: float) -> str:
    """A time, as errors tell it."""
    minutes = int(seconds) // 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _space() -> str:
    """The machine since it was started, and its space of process numbers; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _text(found: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = found.get(name, default)
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(f"{name} is no name")
    return value


def _pid(found: Mapping[str, Any]) -> int:
    value = found.get("pid")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _LARGEST_PID:
        raise ValueError("pid is no number of a process")
    return value


def _time(found: Mapping[str, Any], name: str) -> float:
    value = found.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not -math.inf < value < 1e12:
        raise ValueError(f"{name} is no time")
    return float(value)
