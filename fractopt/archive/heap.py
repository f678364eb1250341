"""HDF5's global heap, where texts are: looked through before HDF5 itself does.

libhdf5 2.0 walks a collection of texts by the sizes that stand in it, and for ever where one of them is zero
or too large to be added: a single damaged byte of an archive would hang whoever opens it. The format: HDF5
File Format Specification, III.E.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

_SIGNATURE = b"GCOL\x01"  # no text of ours holds a byte 1
_HEADER = 16  # bytes before the first object of a collection, and before each object's data
_CHUNK = 1 << 24


def broken_collection(path: Path) -> int | None:
    """Where the first collection stands that cannot be walked through; None where all of them can."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return next((start for start in _collections(handle) if not _is_whole(handle, start)), None)
    finally:
        os.close(handle)


def _collections(handle: int) -> Iterator[int]:
    """Where each collection begins."""
    position = 0
    while chunk := os.pread(handle, _CHUNK, position):
        found = chunk.find(_SIGNATURE)
        while found >= 0:
            yield position + found
            found = chunk.find(_SIGNATURE, found + 1)
        if len(chunk) < _CHUNK:
            return
        position += len(chunk) - len(_SIGNATURE) + 1


def _is_whole(handle: int, start: int) -> bool:
    """Whether a walk through the objects of a collection comes to its end."""
    header = os.pread(handle, _HEADER, start)
    if len(header) < _HEADER:
        return False
    end = start + int.from_bytes(header[8:], "little")
    position = start + _HEADER
    while position + _HEADER <= end:
        entry = os.pread(handle, _HEADER, position)
        if len(entry) < _HEADER:
            return False
        index, _, size = struct.unpack("<HH4xQ", entry)
        # The object 0 is the room that is free; its size counts its own header.
        needed = _HEADER + (size + 7) // 8 * 8 if index else size
        if not _HEADER <= needed <= end - position:
            return False
        position += needed
    return position <= end
