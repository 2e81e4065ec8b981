"""Caches that are damaged, stale, another dataset's or not written: the dataset instead, and no other numbers."""

import errno
import os
import random
import shutil
import signal
import stat
import warnings
from collections import Counter

import pytest
from cache_cases import IDENTITY, assert_same_stretch, cached, source_of, stretches
from cohort_cases import cohort
from file_limits import files_of_at_most

from deeplift_fast.cohort.cache import CacheWriter, identity_of, open_cache, reader, unfit, where, writer
from deeplift_fast.cohort.cache.identity import file_name
from deeplift_fast.cohort.cache.layout import HEADER, TRAILER
from deeplift_fast.errors import CacheError, CacheWarning

NAME = file_name(IDENTITY)
COUNT = 23


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Stretches of a dataset, and the folder of their cache."""
    data, model = cohort("StageNet", COUNT)
    found = stretches(data, model, 8)
    folder = tmp_path_factory.mktemp("whole")
    cached(folder, found, COUNT)
    return found, folder


def read(folder, part_samples=8):
    """All stretches of a folder's cache, or the fault that the user is told."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = open_cache(folder, IDENTITY)
    said = [str(each.message) for each in told if each.category is CacheWarning]
    if found is None:
        return None, said
    try:
        with found:
            return list(found.stretches(lambda part: True, part_samples)), said
    except CacheError as error:
        return None, [*said, str(error)]


def assert_refused_or_right(folder, expected):
    """Whether the cache was refused; if not, what it reads is right."""
    found, said = read(folder)
    if found is None:
        (message,) = said
        assert str(folder) in message
        with pytest.raises(CacheError, match="the next run makes it anew"):
            list(open_cache(folder, IDENTITY, required=True).stretches(lambda part: True, 8))
        return True
    assert said == []
    for one, other in zip(found, expected, strict=True):
        assert_same_stretch(one, other)
    return False


def sections(folder):
    """Begin and end of the header, of each block, of the index and of the trailer."""
    path = folder / NAME
    with open_cache(folder, IDENTITY, required=True) as cache:
        columns = cache._index.columns
        blocks = [(int(a), int(a + n)) for a, n in zip(columns["offset"], columns["length"], strict=True)]
    size = path.stat().st_size
    begin, length, *_ = TRAILER.unpack(path.read_bytes()[-TRAILER.size :])
    named = {f"block {place}": block for place, block in enumerate(blocks)}
    return {
        "header": (0, len(HEADER)),
        **named,
        "index": (begin, begin + length),
        "trailer": (size - TRAILER.size, size),
    }


@pytest.mark.parametrize("section", ["header", "block 0", "block 1", "block 2", "index", "trailer"])
def test_a_flipped_byte_is_always_found(whole, tmp_path, examples, figures, section):
    expected, source = whole
    begin, end = sections(source)[section]
    content, draw = (source / NAME).read_bytes(), random.Random(section)
    places = range(begin, end) if end - begin < 100 else [draw.randrange(begin, end) for _ in range(examples(40, 500))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        (tmp_path / NAME).write_bytes(changed)
        assert assert_refused_or_right(tmp_path, expected)
    figures("flipped bits of a cache", refused=len(places), other_numbers=0)


def test_the_other_blocks_of_a_damaged_cache_are_read(whole, tmp_path):
    expected, source = whole
    content = bytearray((source / NAME).read_bytes())
    content[sections(source)["block 1"][1] - 1] ^= 1
    (tmp_path / NAME).write_bytes(content)
    with open_cache(tmp_path, IDENTITY) as cache:
        assert_same_stretch(cache.stretch(0, 8, 0), expected[0])
        assert_same_stretch(cache.stretch(16, 23, 2), expected[2])
        with pytest.raises(CacheError, match="damaged at samples 8 to 15"):
            cache.stretch(7, 9, 0)
        with pytest.raises(CacheError, match="damaged at samples 8 to 15"):
            cache.verify()


def test_a_truncated_file_is_refused(whole, tmp_path, examples, figures):
    expected, source = whole
    content, draw = (source / NAME).read_bytes(), random.Random(0)
    for length in [
        0,
        1,
        len(HEADER),
        len(content) - 1,
        *(draw.randrange(len(content)) for _ in range(examples(20, 200))),
    ]:
        (tmp_path / NAME).write_bytes(content[:length])
        assert assert_refused_or_right(tmp_path, expected)
    for changed in (content + b"\0", content[:100] + content[200:], content[:100] + b"\0" * 64 + content[100:]):
        (tmp_path / NAME).write_bytes(changed)
        assert assert_refused_or_right(tmp_path, expected)
    figures("truncated caches", refused=examples(27, 207), other_numbers=0)


@pytest.mark.parametrize("size", [0, 5000, 1_000_000])
def test_a_file_that_changes_its_size_while_it_is_read_is_refused(whole, tmp_path, size):
    shutil.copy(whole[1] / NAME, tmp_path)
    with open_cache(tmp_path, IDENTITY) as cache:
        assert_same_stretch(cache.stretch(0, 8, 0), whole[0][0])
        os.truncate(tmp_path / NAME, size)
        with pytest.raises(CacheError, match="has changed its size while it was read"):
            cache.stretch(8, 16, 1)
        with pytest.raises(CacheError, match="has changed its size while it was read"):
            cache.verify()


def test_another_version_is_refused(whole, tmp_path, monkeypatch):
    shutil.copy(whole[1] / NAME, tmp_path)
    monkeypatch.setattr("deeplift_fast.cohort.cache.layout.HEADER", HEADER.replace(b"\1", b"\2"))
    found, (message,) = read(tmp_path)
    assert found is None
    assert "another version" in message


def test_another_datasets_cache_is_refused(whole, tmp_path):
    _, source = whole
    other = IDENTITY | {"content": "of other samples"}
    assert file_name(other) == NAME
    with pytest.warns(CacheWarning, match="earlier state of this dataset, or of another one"):
        assert open_cache(source, other) is None
    with pytest.raises(CacheError, match="cannot be used"):
        open_cache(source, other, required=True)
    assert open_cache(source, IDENTITY | {"class": "another"}) is None  # which has another name, and none is there


def test_none_is_no_fault_unless_it_was_asked_for(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_cache(tmp_path / "nowhere", IDENTITY) is None
    with pytest.raises(CacheError, match="there is none"):
        open_cache(tmp_path, IDENTITY, required=True)


@pytest.mark.parametrize("change", ["touched", "rewritten", "a file more"])
def test_a_changed_dataset_makes_its_cache_stale_and_replaces_it(change):
    data, model = cohort("MLP", in_memory=False)
    identity = identity_of(data, source_of(data, model).identity())
    folder = where(data)
    expected = stretches(data, model, 8)
    cached(folder, expected, COUNT, identity).close()
    (chunk,) = list(folder.parent.glob("*.bin"))
    if change == "touched":
        os.utime(chunk, ns=(0, 1))
    elif change == "rewritten":
        content = bytearray(chunk.read_bytes())
        chunk.write_bytes(content)
    else:
        (folder.parent / "chunk-0-1.bin").write_bytes(b"")
    changed = identity_of(data, source_of(data, model).identity())
    with pytest.warns(CacheWarning, match="earlier state"):
        assert open_cache(folder, changed) is None
    with cached(folder, expected, COUNT, changed) as cache:
        assert_same_stretch(cache.stretch(0, 8, 0), expected[0])
    assert [path.name for path in folder.iterdir()] == [file_name(changed)]
    data.close()


def test_subsets_of_a_dataset_have_their_own_caches():
    data, model = cohort("MLP", in_memory=False)
    few = [data.subset(list(range(begin, begin + 5))) for begin in (0, 1)]
    identities = [identity_of(each, source_of(each, model).identity()) for each in few]
    names = {file_name(each) for each in identities}
    assert len(names) == 2
    assert {where(each) for each in few} == {where(data)}
    data.close()


@pytest.mark.parametrize("obstacle", ["no rights", "a link", "a pipe", "a folder"])
def test_a_file_that_cannot_be_opened(whole, tmp_path, monkeypatch, obstacle):
    path = tmp_path / NAME
    if obstacle == "a link":
        path.symlink_to(whole[1] / NAME)
    elif obstacle == "a pipe":
        os.mkfifo(path)
    elif obstacle == "a folder":
        path.mkdir()
    else:  # root has all rights

        def refuse(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        monkeypatch.setattr(reader, "opened", refuse)
    with pytest.warns(CacheWarning, match="it cannot be read"):
        assert open_cache(tmp_path, IDENTITY) is None
    with pytest.raises(CacheError, match="it cannot be read"):
        open_cache(tmp_path, IDENTITY, required=True)


def written(folder, given):
    """The path that writing gives, and the messages of its warnings; adding never raises."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with CacheWriter(folder, IDENTITY, COUNT) as made:
            for stretch in given:
                made.add(stretch)
            found = made.finish()
    return found, [str(each.message) for each in told if each.category is CacheWarning]


def test_a_disk_without_room(whole, tmp_path, examples, figures):
    given, _ = whole
    size, count = written(tmp_path, given)[0].stat().st_size, examples(8, 60)
    ends = Counter()
    for number in range(count):
        folder = tmp_path / str(number)
        with files_of_at_most(size * number // count):
            found, said = written(folder, given)
        assert found is None
        (message,) = said
        assert f"{folder / NAME} cannot be written (File too large)" in message
        assert list(folder.iterdir()) == []
        ends["refused"] += 1
    figures("caches on a full disk", **ends, files_left=0)


@pytest.mark.parametrize("failing", ["fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_at_the_end_keeps_the_old_cache(whole, tmp_path, monkeypatch, failing, number):
    given, source = whole
    shutil.copy(source / NAME, tmp_path)

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writer.os, failing, fail)
    found, (message,) = written(tmp_path, given)
    assert found is None
    assert os.strerror(number) in message
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert not assert_refused_or_right(tmp_path, given)


def test_a_folder_that_cannot_be_made(whole, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path / "file", tmp_path / "link", tmp_path / "file" / "inner"):
        found, (message,) = written(folder, whole[0])
        assert found is None
        assert "no cache is made" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_of_two_writers_at_once_one_wins_and_both_go_on(whole, tmp_path):
    given, _ = whole
    with CacheWriter(tmp_path, IDENTITY, COUNT) as one, CacheWriter(tmp_path, IDENTITY, COUNT) as other:
        for stretch in given:
            one.add(stretch)
            other.add(stretch)
        assert one.finish() == tmp_path / NAME
        with open_cache(tmp_path, IDENTITY) as early:
            assert other.finish() == tmp_path / NAME
            assert_same_stretch(early.stretch(8, 16, 1), given[1])  # the replaced file
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert not assert_refused_or_right(tmp_path, given)


def test_a_killed_writer_leaves_nothing_that_counts(whole, tmp_path):
    given, _ = whole

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if child == 0:
        try:
            made = CacheWriter(tmp_path, IDENTITY, COUNT)
            made.add(given[0])
            made._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name != NAME
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    assert open_cache(tmp_path, IDENTITY) is None
    assert written(tmp_path, given) == (tmp_path / NAME, [])
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_files_are_private_whatever_the_umask(whole, tmp_path):
    before = os.umask(0)
    try:
        written(tmp_path / "new" / "folder", whole[0])
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new", tmp_path / "new" / "folder")]
    assert modes == [0o700, 0o700]
    assert stat.S_IMODE((tmp_path / "new" / "folder" / NAME).stat().st_mode) == 0o600


def test_datasets_whose_changes_no_file_shows_are_unfit():
    data, _ = cohort("MLP")
    assert "no files" in unfit(data)
    assert "no files" in unfit([data[0]])
    on_disk, _ = cohort("MLP", in_memory=False)
    assert unfit(on_disk) is None
    on_disk.transform = lambda sample: sample
    assert "pass through code" in unfit(on_disk)
    on_disk.close()
