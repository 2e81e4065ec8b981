import json
import re
import runpy
import time
from datetime import UTC, datetime

from deeplift_fast.support import clock
from deeplift_fast.support.events import event_line, new_run_id


def test_an_event_is_one_line_with_its_time_level_and_run():
    line = event_line("1f", "part", "info", done=3, message="a\nb\u2028\ud800")
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert json.loads(line) == {
        "event": "part", "time": "2026-01-31T12:00:00.000Z", "level": "info", "run": "1f",
        "done": 3, "message": "a\nb\u2028\ud800",
    }  # fmt: skip


def test_the_time_is_the_present_one_in_utc():
    """The tests' clock stands still; this is the module as others find it."""
    before = time.time()
    now = runpy.run_path(clock.__file__)["now"]()
    assert before <= now.timestamp() <= time.time()
    assert now.tzinfo is UTC


def test_times_are_iso_8601(monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: datetime(2026, 7, 1, 0, 0, 0, 1999, tzinfo=UTC))
    assert clock.utc_text() == "2026-07-01T00:00:00Z"
    assert clock.utc_text("milliseconds") == "2026-07-01T00:00:00.001Z"


def test_no_two_runs_have_one_id():
    first, second = new_run_id(), new_run_id()
    assert first != second
    assert re.fullmatch("[0-9a-f]{32}", first)
