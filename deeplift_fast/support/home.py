"""Paths that begin with the home folder."""

import os
from pathlib import Path


def expanded(given: str | os.PathLike[str], argument: str) -> Path:
    """A path with `~` and `~user` replaced by the home folder, as shells do; `argument` is its name in the error.

    Raises:
        ValueError: if the home folder is unknown.
    """
    found = os.path.expanduser(given)
    if found.startswith("~"):
        raise ValueError(
            f"{argument} is {str(given)!r}, whose home folder is not known; give the whole path, or ./{found} for a "
            "file or folder of that name"
        )
    return Path(found)
