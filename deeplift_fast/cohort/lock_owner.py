"""The content of a lock: the run that holds it, and whether that run is alive."""

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
    """The run that holds a lock.

    Attributes:
        host: name of its machine.
        pid: number of its process.
        since: time of its start, in seconds since the epoch.
        refreshed: time of its last sign of life, in seconds since the epoch; `None` for a lock of the system.
        space: the boot of the machine and the container in which `pid` counts.
        token: a text that no other run has.
    """

    host: str
    pid: int
    since: float
    refreshed: float | None = None
    space: str = ""
    token: str = ""

    def content(self, refreshed: bool) -> bytes:
        """The content of the lock.

        Args:
            refreshed: whether to add the present time as a sign of life.
        """
        fields = asdict(self) | {"refreshed": time.time() if refreshed else None}
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()

    def shown(self) -> str:
        """The run's name in errors."""
        here = self.host == socket.gethostname()
        elsewhere = " in another container" if here and self.space not in ("", _space()) else ""
        age = max(0.0, time.time() - self.since)
        return f"process {self.pid} on {printable(self.host)}{elsewhere}, for {span(age)}"


def this_run() -> Owner:
    """The run that starts in this process."""
    return Owner(socket.gethostname(), os.getpid(), time.time(), None, _space(), secrets.token_hex(16))


def owner_of(content: bytes) -> Owner:
    """The run in a lock's content.

    Raises:
        ValueError: if this is no lock's content; the message names the fault.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
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
    """Whether a lock's run has ended.

    Args:
        owner: the run.
        stale: seconds without a sign of life after which a run of another machine or container counts as ended.

    Raises:
        ValueError: if its time is so far in the future that a clock must be wrong.
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
    """A duration as text."""
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
    """The boot of this machine and its namespace of process numbers; empty if the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _text(found: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = found.get(name, default)
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(f"{name} is not a name")
    return value


def _pid(found: Mapping[str, Any]) -> int:
    value = found.get("pid")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _LARGEST_PID:
        raise ValueError("pid is not the number of a process")
    return value


def _time(found: Mapping[str, Any], name: str) -> float:
    value = found.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not -math.inf < value < 1e12:
        raise ValueError(f"{name} is not a time")
    return float(value)
