"""Events of a run as lines of JSON, one object each.

event   text  kind of the event
time    text  when it was written, ISO 8601 in UTC, to the millisecond
level   text  "info", "warning" or "error"
run     text  id of the run: one for all events of a call, and in its folder's manifest

The fields of a kind follow.
"""

import json
from typing import Any, Literal
from uuid import uuid4

from deeplift_fast.support.clock import utc_text

Level = Literal["info", "warning", "error"]


def new_run_id() -> str:
    """An id for a run, 32 hexadecimal digits."""
    return uuid4().hex


def event_line(run: str, event: str, level: Level, **fields: Any) -> str:
    """An event's line, with its end: one write keeps the lines of several threads apart."""
    return json.dumps({"event": event, "time": utc_text("milliseconds"), "level": level, "run": run, **fields}) + "\n"
