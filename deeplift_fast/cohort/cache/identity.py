"""The identity of the dataset that a cache is of, the name of its file, and the folder that it lies in."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deeplift_fast.cohort.hashing import digest
from deeplift_fast.cohort.reading_ahead import is_on_disk
from deeplift_fast.support.home import expanded

FOLDER = "deeplift_fast_cache"
"""Name of the folder beside a dataset's own files."""

_NAMED_BY = ("class", "input_schema", "output_schema", "selection")


def unfit(dataset: Any) -> str | None:
    """The reason why a dataset is not cached, or `None`.

    A cache serves only while the dataset stays as it was. The files of a PyHealth dataset on disk show a change by
    their sizes and times. Samples in memory, and those that a user's own code makes, show none.

    Example:
        >>> unfit(dataset)  # of files on disk
        >>> unfit([{"codes": ["I10"]}])
        'a list has no files that would show a change of its samples'
    """
    from pyhealth.datasets import SampleDataset

    if not is_on_disk(dataset):
        return f"a {type(dataset).__name__} has no files that would show a change of its samples"
    if type(dataset).__getitem__ is not SampleDataset.__getitem__ or hasattr(dataset, "transform"):
        return f"the samples of this {type(dataset).__name__} pass through code whose changes no file shows"
    return None


def identity_of(dataset: Any, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a dataset for its cache: that of the source, and the state of its files.

    Args:
        dataset: a PyHealth dataset on disk, or any other.
        identity: from `DatasetSource.identity`: class, length, schemas, processors and content of some samples.

    Returns:
        `identity` with `selection`, the digest of the samples that a subset takes, and `files`, the digest of names,
        sizes and times of the dataset's files; both "none" for a dataset that is unfit. It depends on neither model,
        rules nor target.

    Example:
        >>> from deeplift_fast.cohort.reading import open_source
        >>> sorted(identity_of(dataset, open_source(dataset, model).identity()))
        ['class', 'content', 'files', 'input_schema', 'length', 'output_schema', 'processors', 'selection']
    """
    is_known = unfit(dataset) is None
    about = {"selection": _selection(dataset), "files": _files(Path(dataset.path))} if is_known else {}
    return {**identity, "selection": "none", "files": "none", **about}


def file_name(identity: Mapping[str, Any]) -> str:
    """The name of a dataset's cache in its folder; a changed dataset keeps the name, so that its cache is replaced."""
    return f"{digest({key: identity.get(key) for key in _NAMED_BY})[:16]}.arrow"


def where(dataset: Any) -> Path:
    """The folder of a dataset's caches: beside its own files if they may be written to, or else the user's.

    The user's is `deeplift_fast` in `$XDG_CACHE_HOME`, or in `~/.cache` without that, and in it a folder per dataset.
    The path is absolute, since workers may have another working directory.

    Raises:
        ValueError: if the home folder is needed and unknown.

    Example:
        >>> where(dataset).name
        'deeplift_fast_cache'
    """
    path = getattr(dataset, "path", None)
    if isinstance(path, str | os.PathLike) and _is_writable(beside := Path(path).absolute() / FOLDER):
        return beside
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification has relative paths ignored.
    root = Path(home) if os.path.isabs(home) else expanded("~/.cache", "the user's cache folder")
    return own_folder(root / "deeplift_fast", dataset)


def own_folder(root: Path, dataset: Any) -> Path:
    """The folder of one dataset's caches in a folder for several datasets, so that none replaces another's cache."""
    path = getattr(dataset, "path", None)
    return root / digest(str(path and Path(path).resolve()))[:16]


def make_folder(folder: Path) -> None:
    """Makes a folder that only its owner may enter, with the folders above it.

    Raises:
        OSError: if it cannot be made, or is a link.
    """
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        with contextlib.suppress(FileExistsError):
            missing.mkdir(mode=0o700)
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise NotADirectoryError(f"{folder} is a link or no folder")


def _is_writable(folder: Path) -> bool:
    """Whether a folder is there, or can be made, and may be written to."""
    found = folder if folder.exists() else folder.parent
    return found.is_dir() and not folder.is_symlink() and os.access(found, os.R_OK | os.W_OK | os.X_OK)


def _selection(dataset: Any) -> str:
    """The digest of the samples that a subset takes of its files, in order."""
    hasher = hashlib.sha256("\n".join(map(str, dataset.subsampled_files)).encode(errors="surrogatepass"))
    hasher.update(np.asarray(dataset.region_of_interest, np.int64).tobytes())
    return hasher.hexdigest()


def _files(folder: Path) -> str:
    """The digest of a dataset's files by name, size and time of the last change."""
    with os.scandir(folder) as entries:
        found = {each.name: each.stat() for each in entries if each.is_file()}
    return digest({name: [about.st_size, about.st_mtime_ns] for name, about in found.items()})
