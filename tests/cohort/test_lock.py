"""Locks where the operating system has none, or where somebody else wrote them."""

import errno
import fcntl
import json
import os
import socket
import threading
import time
import warnings
from itertools import count

import pytest
from cohort_cases import contents, run, spoiled
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast.cohort import CohortError, lock, lock_owner
from deeplift_fast.cohort.lock import held
from deeplift_fast.cohort.lock_owner import is_left_behind, owner_of, this_run
from deeplift_fast.cohort.store import LocalStore, open_store
from deeplift_fast.errors import CohortWarning

WITHOUT = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES]
_NUMBERS = count()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.2)


def without_locks(monkeypatch, number=errno.ENOLCK):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path, monkeypatch):
    """A folder whose lock is a file."""
    if request.param == "local":
        without_locks(monkeypatch)
        found = LocalStore(tmp_path / "out")
    else:
        found = open_store(f"memory://lock-{next(_NUMBERS)}")
    found.make("attributions", "samples")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CohortWarning)
        yield found


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE])
def test_a_lock_that_cannot_be_written_to_names_out_and_is_let_go_of(whole, tmp_path, monkeypatch, number):
    data, model, _ = whole

    def refused(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refused)
        with pytest.raises(CohortError, match=rf"out is .*, where \.lock cannot be written \({os.strerror(number)}\)"):
            run(model, data, tmp_path / "out")
    assert not lock._HELD
    assert run(model, data, tmp_path / "out").samples == 23


@pytest.fixture(scope="module")
def sick():
    """Samples of which some cannot be attributed."""
    samples, model, _ = spoiled(16)
    return samples, model


@pytest.mark.parametrize("number", WITHOUT)
def test_a_folder_without_locks_of_the_system_has_a_lock_file_which_is_said_once(whole, tmp_path, monkeypatch, number):
    data, model, out = whole
    without_locks(monkeypatch, number)
    with pytest.warns(CohortWarning, match=rf"no locks \({os.strerror(number)}\)") as told:
        run(model, data, tmp_path / "out")
    assert len([each for each in told if each.category is CohortWarning]) == 1
    assert contents(tmp_path / "out") == contents(out)
    assert not (tmp_path / "out" / ".lock").exists()


@pytest.mark.filterwarnings("ignore::deeplift_fast.errors.CohortWarning")
def test_a_lock_file_names_its_run(whole, tmp_path, monkeypatch):
    data, model, _ = whole
    without_locks(monkeypatch)
    store = LocalStore(tmp_path)
    store.make()
    with held(store):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        with pytest.raises(CohortError, match=rf"another run is writing \(process {os.getpid()} on"):
            run(model, data, tmp_path)


def test_another_error_of_a_lock_is_no_reason_to_go_without(tmp_path, monkeypatch):
    without_locks(monkeypatch, errno.EIO)
    with (
        pytest.raises(CohortError, match=r"\.lock cannot be locked \(Input/output error\)"),
        held(LocalStore(tmp_path)),
    ):
        pass


@pytest.mark.filterwarnings("ignore::deeplift_fast.errors.CohortWarning")
def test_a_machine_that_can_lock_and_one_that_cannot_see_each_other(tmp_path, monkeypatch):
    store = LocalStore(tmp_path)
    with held(store), monkeypatch.context() as patch:
        without_locks(patch)
        with pytest.raises(CohortError, match="another run is writing"), held(store):
            pass
    with monkeypatch.context() as patch:
        without_locks(patch)
        with held(store):
            patch.undo()
            with pytest.raises(CohortError, match="another run is writing"), held(store):
                pass
    with held(store):
        pass


def test_two_that_start_together_do_not_both_win(store):
    barrier, holding, won, lost = threading.Barrier(4), [], [], []

    class Together(type(store)):
        def read(self, name, most=None):
            found = super().read(name, most)
            if name == lock.NAME and threading.get_ident() not in holding:
                holding.append(threading.get_ident())
                barrier.wait(30)
            return found

    def attempt():
        mine = object.__new__(Together)
        mine.__dict__ = store.__dict__
        try:
            with held(mine):
                won.append(1)
                ended.wait(30)
        except CohortError as error:
            lost.append(str(error))
            if len(lost) == 3:
                ended.set()

    ended = threading.Event()
    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(won), len(lost)) == (1, 3)
    assert [each for each in lost if "another run is writing" not in each] == []


class Unreachable(RuntimeError):
    """As packages of places raise their own errors."""


@pytest.mark.parametrize("error", [OSError("away"), Unreachable(), CohortError("away"), ValueError(), KeyError("x")])
def test_a_refresh_that_fails_does_not_end_the_refreshing(store, monkeypatch, error):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    failed = threading.Event()
    with held(store):
        replace = type(store).replace

        def failing(*_, **__):
            failed.set()
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(type(store), "replace", failing)
            assert failed.wait(30)
        before = json.loads(store.read(".lock"))["refreshed"]
        assert type(store).replace is replace
        until = time.monotonic() + 30
        while json.loads(store.read(".lock"))["refreshed"] == before and time.monotonic() < until:
            time.sleep(0.01)
        assert json.loads(store.read(".lock"))["refreshed"] > before


def taken_over(store):
    """Another run's lock, which found this one's old."""
    content = {"host": "another", "pid": 7, "since": time.time(), "refreshed": time.time(), "token": "other"}
    store.replace(".lock", json.dumps(content).encode())


def test_a_lock_file_that_is_slow_to_write_is_waited_for_longer_or_refused(store, monkeypatch):
    replace, seconds = type(store).replace, [0.5, 0.0]

    def slowly(*given, **options):
        time.sleep(seconds.pop(0) if len(seconds) > 1 else seconds[0])
        replace(*given, **options)

    monkeypatch.setattr(type(store), "replace", slowly)
    monkeypatch.setattr(lock, "SETTLE", 0.3)
    monkeypatch.setattr(lock, "BEAT", 100.0)
    with held(store):
        pass
    seconds[:] = [2.0]
    monkeypatch.setattr(lock, "TRIES", 1)
    with pytest.raises(CohortError, match=r"\.lock takes \d s to write, so that two runs"), held(store):
        pass
    assert store.read(".lock") is None


def test_one_that_lost_the_lock_stops_writing(whole, store, monkeypatch):
    from deeplift_fast.cohort import run as running

    data, model, _ = whole
    written = []
    write = running.write_files

    def losing(*given):
        written.append(given[1].stretch.part)
        if len(written) == 2:
            taken_over(store)
        return write(*given)

    monkeypatch.setattr(running, "write_files", losing)
    with pytest.raises(CohortError, match=r"another run took over \(process 7 on another.*this one stops: .* are kept"):
        run(model, data, store.shown)
    assert len(written) == 2
    assert len(json.loads(store.read("manifest.json"))["parts"]) == 1
    assert json.loads(store.read(".lock"))["token"] == "other"  # which stays


@pytest.mark.parametrize("last", range(1, 6))
def test_whatever_is_written_next_one_that_lost_the_lock_does_not_write_it(sick, store, monkeypatch, last):
    """Lost while a file is being written, be it a part's, the failures or the manifest: it does not appear."""
    samples, model = sick
    replaced = LocalStore.write if isinstance(store, LocalStore) else type(store).write
    written = []

    def losing(self, name, data, require=None, *given, **options):
        if require is not None:
            written.append(name)
            if len(written) == last:
                taken_over(store)  # and then the other run writes
                before.update({each: store.read(each) for each in every})
        return replaced(self, name, data, require, *given, **options)

    every = ["manifest.json", "failures.parquet"]
    every += [f"{folder}/part-00000{part}.parquet" for folder in ("attributions", "samples") for part in range(3)]
    before = {}
    monkeypatch.setattr(type(store), "write", losing)
    with pytest.raises(CohortError, match="another run took over"):
        run(model, samples, store.shown, part_samples=6, budget=1000)
    assert len(written) == last
    assert {each: store.read(each) for each in every} == before
    assert json.loads(store.read(".lock"))["token"] == "other"


def test_a_lock_that_cannot_be_written_is_let_go_of(whole, tmp_path, monkeypatch):
    data, model, _ = whole
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "pwrite", full)
        with pytest.raises(CohortError, match=r"nothing more can be written \(No space left.* is kept"):
            run(model, data, tmp_path)
    assert run(model, data, tmp_path).samples == 23


@pytest.mark.parametrize("content", [None, "let go of", "ours", "other"])
def test_a_worker_sees_whose_lock_it_is(store, content):
    owner = this_run()
    if content == "ours":
        store.replace(".lock", owner.content(refreshed=True))
    elif content == "other":
        taken_over(store)
    elif content is not None:
        store.write(".lock", b"")
    seen = lock.SeenLock(store, owner.token)
    if content == "other":
        with pytest.raises(CohortError, match=r"another run took over \(process 7 on another"):
            seen.require()
    else:
        seen.require()


def test_one_that_lost_the_lock_does_not_refresh_it(store, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with held(store):
        taken_over(store)
        time.sleep(0.1)
        assert json.loads(store.read(".lock"))["token"] == "other"
    assert json.loads(store.read(".lock"))["token"] == "other"


def test_a_lock_file_that_was_removed_is_written_anew(store):
    with held(store) as found:
        store.remove_versions(".lock")
        found.require()
        assert json.loads(store.read(".lock"))["pid"] == os.getpid()


def test_a_lock_of_the_system_that_was_removed_is_made_anew_or_lost(tmp_path):
    store = LocalStore(tmp_path)
    with held(store) as first:
        (tmp_path / ".lock").unlink()
        first.require()
        with pytest.raises(CohortError, match="another run is writing"), held(store):
            pass
        (tmp_path / ".lock").unlink()
        with held(store), pytest.raises(CohortError, match="which another run took over"):
            first.require()


def test_a_place_out_of_reach_loses_the_lock_only_after_a_while(store, monkeypatch):
    with held(store) as found, monkeypatch.context() as patch:

        def away(*_):
            raise CohortError("out of reach")

        patch.setattr(type(store), "read", away)
        found.require()
        patch.setattr(lock, "STALE", 0.0)
        with pytest.raises(CohortError, match="out of reach"):
            found.require()


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


def test_a_lock_on_a_place_that_shows_files_while_they_are_written_is_never_half(monkeypatch):
    """A run that looks while another one refreshes its lock sees that it is held."""
    store = open_store(f"memory://lock-{next(_NUMBERS)}")
    pipe = MemoryFileSystem.pipe_file
    seen = []

    def slowly(self, path, value, mode="overwrite", **kwargs):
        for part in (b"", value[: len(value) // 2], value):
            pipe(self, path, part, mode, **kwargs)
            if path.endswith((".lock", ".lock.copy")) and watching:
                seen.append(type(attempted()))

    def attempted():
        watching.clear()
        try:
            with held(store):
                return None
        except CohortError as error:
            return error
        finally:
            watching.append(1)

    watching = []
    with held(store) as found:
        monkeypatch.setattr(MemoryFileSystem, "pipe_file", slowly)
        watching.append(1)
        found._refresh()
        watching.clear()
    assert seen == [CohortError] * 6


def test_a_manifest_is_left_alone_where_the_lock_is_not_had(whole, store):
    data, model, _ = whole
    run(model, data, store.shown, limit=10)
    before = store.read("manifest.json")
    taken_over(store)
    with pytest.raises(CohortError, match="process 7 on another"):
        run(model, data, store.shown)
    assert store.read("manifest.json") == before


def test_what_tells_a_process_is_read_where_the_system_tells(monkeypatch):
    assert len(lock_owner._space().split()) == 2

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(lock_owner.Path, "read_text", missing)
    assert lock_owner._space() == ""
