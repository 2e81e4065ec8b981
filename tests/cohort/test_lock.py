"""Locks of the operating system, and lock files where it has none."""

import errno
import json
import os
import threading
import time

import pytest
from cohort_cases import contents, run
from fsspec.implementations.memory import MemoryFileSystem
from lock_cases import without_locks

from deeplift_fast.cohort import CohortError, lock
from deeplift_fast.cohort.lock import held
from deeplift_fast.cohort.store import FULL, LocalStore, open_store
from deeplift_fast.errors import CohortWarning

WITHOUT = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.2)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOSPC, errno.EDQUOT])
def test_a_lock_that_cannot_be_written_names_out_and_is_let_go_of(whole, tmp_path, monkeypatch, number):
    data, model, _ = whole
    said = "nothing more can be written" if number in FULL else r"\.lock cannot be written"

    def refused(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refused)
        with pytest.raises(CohortError, match=rf"out is .*, where {said} \({os.strerror(number)}\)"):
            run(model, data, tmp_path / "out")
    assert not lock._HELD
    assert run(model, data, tmp_path / "out").samples == 23


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


def test_a_lock_on_a_place_that_shows_files_while_they_are_written_is_never_half(monkeypatch):
    """A run that looks while another one refreshes its lock sees that it is held."""
    store = open_store("memory://lock-half")
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
