"""Writing files so that they survive a crash: write aside, fsync, rename, fsync the directory."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """A new directory that becomes `path`, durably, when the block ends; nothing is left where it raises.

    Raises FileExistsError where something is there, except for a directory with nothing in it. Directories
    above are made.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(errno.EEXIST, "there is something already", str(path))
    made = [above for above in path.absolute().parents if not above.exists()]
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        aside.mkdir(parents=True)
        yield aside
        for folder, _, files in os.walk(aside):
            for name in files:
                _sync_file(Path(folder, name))
            sync_directory(Path(folder))
        os.rename(aside, path)  # unlike `replace` of a file, fails where the directory is not empty by now
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        for above in made:
            with suppress(OSError):
                above.rmdir()
        raise
    for above in (path, *made):
        sync_directory(above.absolute().parent)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
