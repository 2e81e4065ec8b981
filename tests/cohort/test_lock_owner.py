"""The content of a lock's file: the run that wrote it, or an error that says what is wrong."""

import json
import socket
import time

import pytest
from cohort_cases import run
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast.cohort import CohortError, lock, lock_owner
from deeplift_fast.cohort.lock import held
from deeplift_fast.cohort.lock_owner import is_left_behind, owner_of, this_run

SOUND = {"host": "another", "pid": 7, "since": 1.0, "refreshed": 2.0}


MALFORMED = {
    "no JSON": "{",
    "text": "locked by me",
    "list": "[]",
    "number": "3",
    "deep": "[" * 3000,
    "no pid": json.dumps({name: value for name, value in SOUND.items() if name != "pid"}),
    "pid null": json.dumps(SOUND | {"pid": None}),
    "pid text": json.dumps(SOUND | {"pid": "7"}),
    "pid 0": json.dumps(SOUND | {"pid": 0}),
    "pid of a group": json.dumps(SOUND | {"pid": -1}),
    "pid too large": json.dumps(SOUND | {"pid": 1 << 40}),
    "host": json.dumps(SOUND | {"host": ["another"]}),
    "since": json.dumps(SOUND | {"since": "yesterday"}),
    "refreshed": json.dumps(SOUND | {"refreshed": {}}),
    "refreshed NaN": json.dumps(SOUND | {"refreshed": float("nan")}),
    "refreshed infinite": json.dumps(SOUND | {"refreshed": float("inf")}),
    "future": json.dumps(SOUND | {"refreshed": time.time() + 1e7}),
    "bytes": "\ufffd\udc80",
    "space": json.dumps(SOUND | {"space": 7}),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_lock_is_named(whole, store, what):
    data, model, _ = whole
    content = MALFORMED[what].encode(errors="surrogateescape")
    store.write(".lock", content)
    said = r"whose \.lock was not written by a run \(.*\); remove that file if no other run is writing"
    with pytest.raises(CohortError, match=said):
        run(model, data, store.shown)
    assert store.read(".lock") == content
    store.remove(".lock")
    assert run(model, data, store.shown).samples == 23


def test_what_a_lock_of_the_system_says_does_not_decide(whole, tmp_path):
    data, model, _ = whole
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text(MALFORMED["pid text"])
    assert run(model, data, tmp_path / "out").samples == 23
    (tmp_path / "out" / ".lock").write_text(MALFORMED["future"])
    with pytest.raises(CohortError, match=r"its time is .* in the future: a clock is wrong"):
        run(model, data, tmp_path / "out")


def test_a_lock_of_another_container_goes_by_its_age_alone(store):
    mine = {"host": socket.gethostname(), "pid": (1 << 22) + 1, "since": time.time(), "space": "boot pid:[1]"}
    store.write(".lock", json.dumps(mine | {"refreshed": time.time()}).encode())
    with pytest.raises(CohortError, match=r"process 4194305 on .* in another container, for 0 s"), held(store):
        pass
    store.write(".lock", json.dumps(mine | {"refreshed": time.time() - 2 * lock.STALE}).encode())
    with held(store):
        pass
    here = mine | {"space": this_run().space, "refreshed": time.time()}
    store.write(".lock", json.dumps(here).encode())
    with held(store):  # a process that is no more, here
        pass


def test_a_lock_names_its_host_in_one_line(store):
    store.write(".lock", json.dumps(SOUND | {"host": "a\x1b[2J\nb", "refreshed": time.time()}).encode())
    with pytest.raises(CohortError) as caught, held(store):
        pass
    assert str(caught.value).isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=9), inner, max_size=2),
    max_leaves=5,
)


@given(
    st.binary(max_size=40) | JSON.map(json.dumps) | st.fixed_dictionaries(dict.fromkeys(SOUND, JSON)).map(json.dumps)
)
def test_any_content_is_an_owner_or_an_error_that_says_why(content):
    try:
        found = owner_of(content if isinstance(content, bytes) else content.encode())
        left = is_left_behind(found, lock.STALE)
    except ValueError as error:
        if not str(error).isprintable():
            raise
        return
    assert left in (True, False)
    assert found.shown().isprintable()


def test_what_tells_a_process_is_read_where_the_system_tells(monkeypatch):
    assert len(lock_owner._space().split()) == 2

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(lock_owner.Path, "read_text", missing)
    assert lock_owner._space() == ""
