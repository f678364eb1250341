"""What somebody else may have put into a run directory: links to elsewhere, pipes, endless files.

A run directory itself may be reached through links, such as a home that leads to a scratch disk. What is in
it is the run's own: files and directories that it made there.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_PAGE, _PIECE = 1 << 12, 1 << 22  # bytes read at a time, at least and at most


def read_file(path: Path, most: int) -> bytes:
    """The bytes of the regular file `path`; raises OSError for another thing, or more than `most` bytes."""
    # Without waiting: a pipe that nobody writes to would be opened for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = _read(handle, most + 1, found.st_size) if found.st_size <= most else b""
    finally:
        os.close(handle)
    if found.st_size > most or len(data) > most:
        raise OSError(errno.EFBIG, f"longer than the {most} bytes that it may have", str(path))
    return data


def _read(handle: int, most: int, expected: int) -> bytes:
    """Up to `most` bytes of a file that has `expected`, or whatever it has meanwhile.

    Piece by piece, as a read takes memory for all that it might find.
    """
    parts: list[bytes] = []
    piece = min(max(expected + 1, _PAGE), _PIECE)
    while most and (part := os.read(handle, min(most, piece))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def make_directory(path: Path) -> None:
    """Create directory `path`, where it is not there yet; its parent must be.

    Raises OSError where something else has its place, a link to a directory too.
    """
    try:
        path.mkdir()
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise OSError(errno.ENOTDIR, "a link or a file, where a run has a directory", str(path)) from None


def append_to(path: Path) -> int:
    """A descriptor that appends to the regular file `path`; a link in its place is removed first."""
    if path.is_symlink():
        path.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return handle


def remove_from(directory: Path | str, name: str) -> None:
    """Remove the file `name`, where it is there, from `directory`; raises OSError.

    A link in its place is removed itself; one in the place of the directory is an error.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.unlink(name, dir_fd=handle)
    except FileNotFoundError:
        pass
    finally:
        os.close(handle)
