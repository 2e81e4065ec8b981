"""Files in folders where others may have put something first."""

import os
import socket
import stat

import pytest

from deeplift_fast.support.guarded_files import created, opened


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("the user's own")
    return path


PLANTED = {
    "link": lambda path, victim: path.symlink_to(victim),
    "link to nothing": lambda path, _: path.symlink_to("nowhere"),
    "pipe": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
    "device": lambda path, _: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("what", PLANTED)
def test_only_regular_files_are_opened(victim, tmp_path, what, write):
    PLANTED[what](tmp_path / "planted", victim)
    with pytest.raises(OSError, match=r"is a link|no regular file|Is a directory"):
        opened(tmp_path / "planted", write=write)
    assert victim.read_text() == "the user's own"


def test_devices_and_sockets_are_no_regular_files(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="no regular file"):
        opened("/dev/zero")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(OSError, match="no regular file"):
            opened("s")


def test_a_hard_link_is_not_written_to(victim, tmp_path):
    os.link(victim, tmp_path / "planted")
    with pytest.raises(OSError, match="hard link"):
        opened(tmp_path / "planted", write=True)
    os.close(opened(tmp_path / "planted"))


@pytest.mark.parametrize("what", PLANTED)
def test_nothing_that_is_there_is_made_anew(victim, tmp_path, what):
    PLANTED[what](tmp_path / "planted", victim)
    with pytest.raises(FileExistsError):
        created(tmp_path / "planted")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
@pytest.mark.parametrize(("shared", "mode"), [(False, 0o600), (True, 0o666)])
def test_modes_are_those_asked_for(tmp_path, mask, shared, mode):
    before = os.umask(mask)
    try:
        os.close(created(tmp_path / "new", shared=shared))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == (mode & ~mask if shared else mode)
