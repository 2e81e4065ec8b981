"""The file of a cache.

    header   64 bytes: `MAGIC`, and the version of the format (uint32)
    blocks   Arrow IPC streams, one after another, each from a multiple of 64 bytes on
    index    an Arrow IPC stream with a row per block; its metadata hold the dataset's identity as JSON
    trailer  begin and length of the index (uint64), its CRC-32 (uint32), and the CRC-32 of these (uint32)

A file is written under another name, flushed to the disk and renamed, so that it is whole or not there. A CRC-32 finds
every flipped byte; the blocks' are checked when a block is first read, since checking all would read the whole file.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

MAGIC = b"deeplift_fast cache\n"
VERSION = 1
ALIGNMENT = 64
HEADER = struct.pack("<20sI", MAGIC, VERSION).ljust(ALIGNMENT, b"\0")
TRAILER = struct.Struct("<QQII")

COLUMNS = {"begin": pa.int64(), "end": pa.int64(), "offset": pa.int64(), "length": pa.int64(), "crc": pa.uint32()}
"""Columns of the index: the samples of a block's stretch, and the block's place, bytes and CRC-32."""


class Unreadable(ValueError):
    """A file that is no whole cache; the message says why.

    Args:
        message: the reason.
        is_other_version: whether it is a cache of another version of the format.
    """

    def __init__(self, message: str, is_other_version: bool = False) -> None:
        super().__init__(message)
        self.is_other_version = is_other_version


@dataclass(frozen=True)
class Index:
    """The index of a cache, whose columns lie in the memory of the file.

    Attributes:
        columns: by name of :data:`COLUMNS`, one entry per block, in the order of the samples.
        identity: the dataset's identity.
        samples: number of samples.
    """

    columns: Mapping[str, np.ndarray]
    identity: Mapping[str, Any]
    samples: int


def written_index(rows: Mapping[str, list[int]], identity: Mapping[str, Any], samples: int) -> pa.Buffer:
    """The Arrow IPC stream of an index."""
    about = {"identity": json.dumps(identity), "samples": str(samples)}
    table = pa.record_batch([pa.array(rows[name], kind) for name, kind in COLUMNS.items()], list(COLUMNS))
    sink = pa.BufferOutputStream()
    schema = table.schema.with_metadata(about)
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(table.replace_schema_metadata(about))
    return sink.getvalue()


def read_index(content: pa.Buffer) -> Index:
    """The index in an Arrow IPC stream.

    Raises:
        Unreadable: if it is none.
    """
    try:
        with pa.ipc.open_stream(content) as stream:
            batch = stream.read_next_batch()
        about = batch.schema.metadata
        columns = {name: batch.column(name).to_numpy() for name in COLUMNS}
        return Index(columns, json.loads(about[b"identity"]), int(about[b"samples"]))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise Unreadable("its index is damaged") from error


def trailer(begin: int, length: int, crc: int) -> bytes:
    """The end of a file."""
    checked = TRAILER.pack(begin, length, crc, 0)[:-4]
    return checked + struct.pack("<I", zlib.crc32(checked))


def index_place(header: bytes, end: bytes, size: int) -> tuple[int, int, int]:
    """Begin, length and CRC-32 of the index.

    Args:
        header: the first bytes of a file.
        end: its last bytes.
        size: its length.

    Raises:
        Unreadable: if it is no cache of this version, or is damaged.
    """
    if len(header) < len(HEADER) or header[: len(MAGIC)] != MAGIC:
        raise Unreadable("it is no cache, or its first bytes are damaged")
    if header != HEADER:
        is_other = header[: len(MAGIC) + 4] != HEADER[: len(MAGIC) + 4]
        raise Unreadable(
            "it has another version of the format" if is_other else "its first bytes are damaged", is_other
        )
    if len(end) < TRAILER.size or struct.unpack("<I", end[-4:]) != (zlib.crc32(end[:-4]),):
        raise Unreadable("its last bytes are damaged, or it was cut short")
    begin, length, crc, _ = TRAILER.unpack(end)
    if begin + length + TRAILER.size != size:
        raise Unreadable("it was cut short")
    return begin, length, crc
