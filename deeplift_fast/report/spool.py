"""Many numbers of many rows, kept in a temporary file, so that memory need not hold them."""

import tempfile
from types import TracebackType

import numpy as np

_AT_ONCE = 1 << 20


class Spool:
    """Pairs of a row and some bits, sorted once they are all there; a context manager.

    Eight bytes of a temporary file hold a pair.

    Args:
        width: number of bits; the other bits of the eight bytes hold the row.
    """

    def __init__(self, width: int = 32) -> None:
        self._width = np.uint64(width)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rows: np.ndarray, bits: np.ndarray, once: bool = False) -> None:
        """Adds pairs.

        Args:
            rows: numbers, `[pairs]`.
            bits: unsigned integers, `[pairs]`; only the lowest `width` bits count.
            once: whether to add equal pairs once; those of different calls stay apart.
        """
        kept = bits.astype(np.uint64) & ((np.uint64(1) << self._width) - np.uint64(1))
        pairs = (rows.astype(np.uint64) << self._width) | kept
        self._file.write(np.unique(pairs) if once else pairs)

    def quantiles(self, rows: int, shares: np.ndarray) -> np.ndarray:
        """The quantiles of each row's numbers, interpolated linearly as by NumPy; for bits from :func:`bits_of`.

        Args:
            rows: number of rows.
            shares: positions of the quantiles, each in [0, 1].

        Returns:
            float64 `[rows, shares]`; NaN for a row without numbers.
        """
        pairs = self._sorted()
        edges = np.searchsorted(pairs, np.arange(rows + 1, dtype=np.uint64) << self._width)
        counts = np.diff(edges)
        known = counts > 0
        places = (counts[known, None] - 1) * shares
        low, high = (
            numbers_of(pairs[edges[:-1][known, None] + at.astype(np.int64)]).astype(np.float64)
            for at in (np.floor(places), np.ceil(places))
        )
        found = np.full((rows, len(shares)), np.nan)
        found[known] = low + (high - low) * (places % 1)
        return found

    def distinct(self, rows: int) -> np.ndarray:
        """The number of different bits of each row, int64 `[rows]`."""
        pairs, counts = self._sorted(), np.zeros(rows, np.int64)
        for first in range(0, len(pairs), _AT_ONCE):
            piece = np.asarray(pairs[first : first + _AT_ONCE])
            new = np.append(first == 0 or piece[0] != pairs[first - 1], piece[1:] != piece[:-1])
            counts += np.bincount((piece[new] >> self._width).astype(np.int64), minlength=rows)
        return counts

    def _sorted(self) -> np.ndarray:
        """All pairs, uint64, ascending by row and then by bits; mapped, not read into memory."""
        self._file.flush()
        if not self._file.tell():
            return np.zeros(0, np.uint64)
        pairs = np.memmap(self._file, np.uint64, "r+")
        pairs.sort()
        return pairs


def bits_of(numbers: np.ndarray) -> np.ndarray:
    """Bits that sort as the numbers do, uint32; numbers are rounded to float32."""
    bits = (numbers.astype(np.float32) + np.float32(0)).view(np.uint32)  # −0 becomes 0
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))


def numbers_of(bits: np.ndarray) -> np.ndarray:
    """The numbers of such bits, float32."""
    bits = bits.astype(np.uint32)
    return np.where(bits >> np.uint32(31), bits & np.uint32((1 << 31) - 1), ~bits).astype(np.uint32).view(np.float32)
