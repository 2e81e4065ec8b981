"""Paths that begin with the home folder."""

import os
from pathlib import Path


def expanded(given: str | os.PathLike[str], argument: str) -> Path:
    """A path with `~` and `~user` replaced by the home folder, as shells do.

    Args:
        given: the path.
        argument: its name, for the error.

    Raises:
        ValueError: if nobody knows that home folder; a folder called `~` would be made otherwise.
    """
    found = os.path.expanduser(given)
    if found.startswith("~"):
        raise ValueError(
            f"{argument} is {str(given)!r}, whose home folder is not known; give the whole path, or ./{found} for what "
            "has that name"
        )
    return Path(found)
