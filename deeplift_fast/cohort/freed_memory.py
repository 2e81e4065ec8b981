"""Memory that a Dask worker keeps for the next batch, in place of returning it to the system after each one.

Dask starts workers with MALLOC_TRIM_THRESHOLD_=65536. The C library then returns every freed tensor of 128 KiB or more,
and the next batch takes fresh pages, which costs a fifth of StageNet's time. Only processes with that value change.
"""

import ctypes
import os

_TRIM_VARIABLE, _MMAP_VARIABLE = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"
_DASKS = 65536

_TRIM, _MMAP = -1, -3  # numbers of mallopt's options, from malloc.h
_KEPT = 128 * 2**20
_FROM_HEAP = 32 * 2**20  # the largest value that the C library takes
_FROM_HEAP_BEFORE = 128 * 2**10  # its default


def keep() -> bool:
    """Keeps up to 128 MiB of freed memory, and serves blocks of up to 32 MiB from it; returns whether it does."""
    return _set(_KEPT, _FROM_HEAP)


def give_back() -> bool:
    """Restores Dask's setting, and returns the kept memory to the system; returns whether it did."""
    done = _set(_DASKS, _FROM_HEAP_BEFORE)
    if done:
        ctypes.CDLL(None).malloc_trim(0)
    return done


def _set(trim: int, mmap: int) -> bool:
    library = ctypes.CDLL(None)
    is_dasks = os.environ.get(_TRIM_VARIABLE) == str(_DASKS) and _MMAP_VARIABLE not in os.environ
    if not is_dasks or not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(_TRIM, trim) and library.mallopt(_MMAP, mmap))
