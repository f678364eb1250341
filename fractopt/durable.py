"""Writing files so that they survive a crash: write aside, fsync, rename, fsync the directory."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make the creation or renaming of entries in directory `path` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write all of `data` to a file descriptor; a single `write` may do less."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put `data` at `path` in one step: a reader sees the old file or the new one, never a part.

    With `durable` it also survives a power loss; without, only the death of the process.
    """
    aside = _write_aside(path, data, durable=durable)
    try:
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def create_file(path: Path, data: bytes) -> None:
    """Create `path` with `data`, durably and whole at once.

    Raises FileExistsError where something is there already: of two callers one succeeds, and no
    reader ever finds a part of `data`.
    """
    aside = _write_aside(path, data, durable=True)
    try:
        os.link(aside, path)  # unlike a rename, fails where `path` exists
    finally:
        aside.unlink(missing_ok=True)
    try:
        sync_directory(path.parent)
    except OSError:
        path.unlink(missing_ok=True)  # nobody is left with what its maker believes not to be there
        raise


def _write_aside(path: Path, data: bytes, *, durable: bool) -> Path:
    """A new file with `data` beside `path`, under a name that nobody else takes.

    The name is random: processes of two hosts, or of two containers, may share a pid.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            write_all(handle, data)
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # what the user knows of
        raise
    return aside
