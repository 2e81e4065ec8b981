"""The system's limit of file sizes, in place of a full disk."""

import contextlib
import resource


@contextlib.contextmanager
def files_of_at_most(size):
    """The system's own limit (`ulimit -f`), which cuts files short for real."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
