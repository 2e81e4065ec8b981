"""Buckets and home folders: what is made, and what is not."""

from typing import ClassVar

import fsspec
import pytest
from cohort_cases import cohort, contents, run
from fsspec.implementations.memory import MemoryFileSystem

from deeplift_fast.cohort import CohortError
from deeplift_fast.cohort.store import open_store
from deeplift_fast.support.home import expanded


class Elsewhere(MemoryFileSystem):
    """Memory of its own for each protocol."""

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).replace(f"{cls.protocol}://", "memory://"))


class Buckets(Elsewhere):
    """An object store as s3fs shows it: a folder to make at the top is a bucket; objects need no folders."""

    protocol = "buckets"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    there: ClassVar[set] = set()
    made: ClassVar[list] = []

    def _require_bucket(self, path):
        if self._strip_protocol(path).strip("/").partition("/")[0] not in self.there:
            raise FileNotFoundError("The specified bucket does not exist")

    def exists(self, path, **kwargs):
        return self._strip_protocol(path).strip("/") in self.there or super().exists(path, **kwargs)

    def mkdir(self, path, create_parents=True, **kwargs):
        self.made.append(path)
        self.there.add(self._strip_protocol(path).strip("/").partition("/")[0])

    def makedirs(self, path, exist_ok=False):
        self.mkdir(path)

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        self._require_bucket(path)
        super().pipe_file(path, value, mode, **kwargs)

    def ls(self, path, detail=True, **kwargs):
        self._require_bucket(path)
        return super().ls(path, detail, **kwargs)


class Folders(Elsewhere):
    """Another machine's disk, such as sftp reaches: nothing is written to a folder that is not there."""

    protocol = "folders"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = ["", "/home"]

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if not self.isdir(self._parent(path)):
            raise FileNotFoundError(path)
        super().pipe_file(path, value, mode, **kwargs)


fsspec.register_implementation("buckets", Buckets)
fsspec.register_implementation("folders", Folders)


@pytest.mark.parametrize("url", ["buckets://mistyped/run", "buckets://mistyped", "buckets://mistyped/a/b"])
def test_a_mistyped_bucket_is_not_made(whole, url):
    data, model, _ = whole
    with pytest.raises(CohortError, match=rf"out is {url}, whose 'mistyped' is not there.*it is not made here"):
        run(model, data, url)
    assert not Buckets.made
    assert not Buckets.there


def test_a_bucket_that_is_there_needs_no_folders(whole):
    data, model, _ = whole
    Buckets.there.add("bucket")
    try:
        assert run(model, data, "buckets://bucket/a/run").samples == 23
    finally:
        Buckets.there.clear()
    assert not Buckets.made
    names = {path.rsplit("/", 1)[-1] for path in Buckets.store}
    assert {"manifest.json", "failures.parquet", "part-000000.parquet"} <= names
    assert not [name for name in names if name.startswith(".tmp-")]


def test_folders_are_made_where_nothing_can_be_written_without(whole):
    data, model, _ = whole
    assert run(model, data, "folders://home/me/run").samples == 23
    with pytest.raises(CohortError, match="whose 'hme' is not there"):
        run(model, data, "folders://hme/me/run")


def test_a_place_that_cannot_be_written_is_named(whole, monkeypatch):
    def refused(*_, **__):
        raise RuntimeError("secret words of the place")

    monkeypatch.setattr(Folders, "pipe_file", refused)
    with pytest.raises(CohortError, match=r"out is folders://home/x, where .* cannot be written \(RuntimeError\)"):
        run(whole[1], whole[0], "folders://home/x")


@pytest.mark.parametrize("out", ["~/out", "file://~/out", "~/deep/er/out"])
def test_a_tilde_is_the_home_folder(whole, tmp_path, monkeypatch, out):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    data, model, _ = whole
    done = run(model, data, out)
    assert done.out == str(tmp_path / "home" / out.split("~/")[1])
    assert contents(done.out) == contents(whole[2])
    assert not (tmp_path / "~").exists()


def test_a_home_folder_that_nobody_knows_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CohortError, match=r"out is '~nobody-of-that-name/out', whose home folder is not known"):
        open_store("~nobody-of-that-name/out")
    assert not list(tmp_path.iterdir())
    assert str(expanded("./~x", "out")) == "~x"
    assert str(expanded("a/~", "out")) == "a/~"


def test_a_dask_worker_is_sent_the_whole_path(tmp_path, monkeypatch):
    distribute = pytest.importorskip("deeplift_fast.cohort.distribute")
    monkeypatch.setenv("HOME", str(tmp_path))
    data, model = cohort(count=4)
    attributor = type("A", (), {"interpreter": model, "proven": False})
    assert distribute.work_for(attributor, data, None, open_store("~/out"), "token", {}).out == f"{tmp_path}/out"
