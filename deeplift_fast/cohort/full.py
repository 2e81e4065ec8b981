"""What a run says where nothing more can be written: the disk is full, or a quota or a limit is reached."""

import contextlib
from collections.abc import Callable, Iterator

from deeplift_fast.cohort.store import FULL
from deeplift_fast.errors import CohortError


@contextlib.contextmanager
def told_if_full(shown: str, kept: Callable[[], str]) -> Iterator[None]:
    """Turns such an error into one that names `out`.

    Args:
        shown: the output folder, as messages name it.
        kept: says what is kept.

    Raises:
        CohortError: where nothing more can be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise CohortError(
            f"out is {shown}, where nothing more can be written ({error.strerror}); {kept()}: free space there, or "
            "raise the limit, and run the same again to go on"
        ) from error
