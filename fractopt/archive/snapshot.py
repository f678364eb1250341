"""archive.h5: the whole run in one HDF5 file that is always complete and closed.

    /evals     one compound row for each evaluation, scalar columns (see `archive.table`)
    /journal   every record of the run in order, as JSON text: this file alone can be resumed
    attributes manifest (JSON), config (TOML), schema, complete, evaluations, missing, crc32

The file is built in memory and replaces the old one in one step. HDF5 never writes to the disk
itself: a crash cannot leave half a file, and a full disk is an ordinary OSError, not a segfault.
"""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fractopt.archive.heap import broken_collection
from fractopt.archive.history import History
from fractopt.archive.journal import ArchiveError, Record
from fractopt.archive.manifest import Manifest
from fractopt.archive.table import MISSING_INT, table
from fractopt.durable import replace_file

MAX_FILE = 1 << 30  # bytes; nothing that we write comes near
_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])  # to a text, on the disk


def write_snapshot(path: Path, history: History, config: str) -> None:
    """Replace the archive at `path` by the state of `history`; raises OSError."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        rows = table(history)
        file.create_dataset("evals", data=rows)
        encode = json.JSONEncoder(allow_nan=False).encode
        lines = [encode(record) for record in history.records]
        file.create_dataset("journal", data=np.array(lines, dtype=object), dtype=h5py.string_dtype())
        file.attrs["schema"] = history.manifest.schema
        manifest = json.dumps(history.manifest.to_json(), allow_nan=False)
        file.attrs["manifest"] = manifest
        file.attrs["config"] = config
        file.attrs["crc32"] = _checksum(manifest, lines)
        file.attrs["complete"] = history.complete
        file.attrs["evaluations"] = len(rows)
        file.attrs["missing"] = f"NaN for real columns, {MISSING_INT} for integer ones, empty for text"
    replace_file(path, buffer.getvalue())


def snapshot_length(path: Path) -> int:
    """How many records the archive at `path` holds; 0 where there is none that can be read."""
    if not path.is_file():
        return 0
    try:
        with h5py.File(path, "r", locking=False) as file:
            ours = isinstance(file.get("journal", getlink=True), h5py.HardLink)
            return int(file["journal"].shape[0]) if ours else 0
    except Exception:  # whatever HDF5 makes of a file that is damaged, or somebody else's
        return 0


def read_snapshot(path: Path) -> tuple[Manifest, list[Record], str]:
    """Manifest, records and configuration text of an archive.

    Raises ArchiveError for a file that is no archive of ours. Nothing in the file is trusted: only
    text is read, links out of the file are not followed.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise ArchiveError(f"{path} is larger than any archive of ours ({MAX_FILE} bytes)")
        if not path.is_file() or not h5py.is_hdf5(path):
            raise ArchiveError(
                f"{path} cannot be read as an archive of fractopt: it is no HDF5 file. "
                f"Expected a run directory, or its archive.h5"
            )
        if (broken := broken_collection(path)) is not None:
            raise ArchiveError(
                f"{path} cannot be read as an archive of fractopt: its texts are damaged (at byte {broken})"
            )
        with h5py.File(path, "r", locking=False) as file:
            link = file.get("journal", getlink=True)
            if not isinstance(link, h5py.HardLink) or "manifest" not in file.attrs:
                raise ArchiveError(f"{path} is an HDF5 file, but no archive of fractopt")
            manifest = _attribute(file, "manifest")
            lines = _journal(path, file["journal"], size)
            if "crc32" in file.attrs and _whole_attribute(file, "crc32") != _checksum(manifest, lines):
                raise ArchiveError(f"{path} is damaged: what it holds is not what was written")
            records = [json.loads(line) for line in lines]
            if not all(isinstance(record, dict) for record in records):
                raise ArchiveError(f"{path}: /journal holds something else than records")
            return Manifest.from_json(json.loads(manifest)), records, _attribute(file, "config")
    except ArchiveError:
        raise
    except FileNotFoundError:
        raise ArchiveError(f"there is no archive at {path}") from None
    except Exception as error:  # whatever HDF5 and JSON make of a file that somebody else made
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"{path} cannot be read as an archive of fractopt: {reason}") from None


def _checksum(manifest: str, lines: list[str]) -> int:
    """Of what a run is resumed from: HDF5 itself would not notice a flipped bit there."""
    return zlib.crc32("\n".join([manifest, *lines]).encode())


def _journal(path: Path, dataset: Any, file_size: int) -> list[str]:
    """The lines of /journal, which must be what we write: one contiguous list of texts.

    No filters, no other file, and no more text than the file has room for, though many elements may refer
    to one text: a small file cannot ask for much memory.
    """
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.ndim != 1
        or dataset.chunks is not None
        or dataset.external
        or dataset.is_virtual
        or (text := h5py.check_string_dtype(dataset.dtype)) is None
        or text.length is not None
        or dataset.id.get_storage_size() != dataset.size * _REFERENCE.itemsize
        or _stored_bytes(path, dataset) > file_size
    ):
        raise ArchiveError(f"{path}: /journal is not a list of texts stored in the file itself")
    return list(dataset.asstr()[:])


def _stored_bytes(path: Path, dataset: Any) -> int:
    """Bytes that the texts of a contiguous `dataset` need in the file, by its own list of their lengths.

    A record is no empty text: without this, a file of nothing but holes would be a long list.
    """
    needed, left = 0, dataset.size
    with path.open("rb") as file:
        file.seek(dataset.id.get_offset() or 0)
        while left:
            lengths = np.fromfile(file, _REFERENCE, min(left, 1 << 16))["length"]
            if not len(lengths) or not lengths.all():
                raise ArchiveError(f"{path}: /journal refers to texts that are not there")
            needed += _REFERENCE.itemsize * len(lengths) + int(lengths.sum(dtype=np.int64))
            left -= len(lengths)
    return needed


def _attribute(file: Any, name: str) -> str:
    stored = file.attrs.get_id(name)
    # A list could say one long text many times; libhdf5 2.0 crashes on some types that no text has.
    plain = stored.shape == () and isinstance(stored.get_type(), h5py.h5t.TypeStringID)
    text = file.attrs[name] if plain else None
    if not isinstance(text, str):
        raise ArchiveError(f"the archive's attribute {name!r} is not text")
    return text


def _whole_attribute(file: Any, name: str) -> int:
    stored = file.attrs.get_id(name)
    if stored.shape != () or not isinstance(stored.get_type(), h5py.h5t.TypeIntegerID):
        raise ArchiveError(f"the archive's attribute {name!r} is no whole number")
    return int(file.attrs[name])
