"""Temporary files and folders outlive only the runs that hold them."""

import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from processes import started

from deeplift_fast.demo.output import replaced
from deeplift_fast.support.temporary import MARK, temporary_file, temporary_folder

ROOT = Path(__file__).parents[1]
FOLDER = """
import sys, time
from pathlib import Path
from deeplift_fast.support.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1]), "x-") as folder:
    (folder / "inner").mkdir()
    (folder / "inner" / "patients").write_text("secret")
    print(folder, flush=True)
    time.sleep(600)
"""
FILE = """
import sys, time
from pathlib import Path
from deeplift_fast.support.temporary import temporary_file
with temporary_file(Path(sys.argv[1])) as (path, file):
    print(path, flush=True)
    time.sleep(600)
"""
DEMO = """
import os, signal, sys
from pathlib import Path
from deeplift_fast.demo.output import replaced
out = Path(sys.argv[1], "out")
rename = Path.rename
def killed(self, to):
    if self.name == "new":
        print("renaming", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, to)
Path.rename = killed
with replaced(out, True, ["mark"], "a result", "--out") as folder:
    (folder / "mark").write_text("new")
"""


def running(code, place):
    return started([sys.executable, "-c", code, str(place)], limit=60, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_a_folder_is_private_and_goes(tmp_path):
    with temporary_folder(tmp_path, "x-") as folder:
        (folder / "file").write_text("")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(tmp_path.iterdir())


def test_a_folder_goes_when_its_run_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), temporary_folder(tmp_path, "x-"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("code", "make"), [(FOLDER, lambda p: temporary_folder(p, "x-")), (FILE, temporary_file)])
def test_what_a_killed_run_left_goes_and_what_a_live_one_uses_stays(tmp_path, code, make):
    with running(code, tmp_path) as process:
        left = Path(process.stdout.readline().strip())
        with make(tmp_path):
            assert left.exists()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert left.exists()
        with make(tmp_path):
            assert not left.exists()
    assert not list(tmp_path.iterdir())


def test_what_others_made_stays(tmp_path):
    own = tmp_path / "x-abcdefgh"  # the user's, of that prefix
    own.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / MARK).write_text("")
    (tmp_path / "x-planted").symlink_to("elsewhere")
    (tmp_path / "victim").write_text("the user's own")
    (own / MARK).symlink_to(tmp_path / "victim")
    (tmp_path / ".deeplift-fast-0.part").symlink_to("victim")
    with temporary_folder(tmp_path, "x-"), temporary_file(tmp_path):
        pass
    assert (tmp_path / "victim").read_text() == "the user's own"
    assert own.is_dir()
    assert (tmp_path / "elsewhere").is_dir()


def test_where_nothing_can_be_locked_nothing_is_removed(tmp_path, monkeypatch):
    (tmp_path / "x-left").mkdir()
    (tmp_path / "x-left" / MARK).write_text("")

    def without(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", without)
    with temporary_folder(tmp_path, "x-") as folder:
        assert folder.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["x-left"]


def test_an_earlier_result_comes_back_where_a_run_was_killed_while_it_replaced_it(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mark").write_text("old")
    with running(DEMO, tmp_path) as process:
        assert process.stdout.readline() == "renaming\n"
        process.wait()
    assert not (tmp_path / "out").exists()
    with (
        pytest.raises(RuntimeError, match="stop"),
        replaced(tmp_path / "out", True, ["mark"], "a result", "--out"),
    ):
        raise RuntimeError("stop")
    assert (tmp_path / "out" / "mark").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
