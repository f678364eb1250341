"""Ends every process of a cluster, at the latest when its test does.

    python reaper.py MARK FOLDER LIMIT_S MOST [USER ...] < PIPE

Daemons and their jobs leave every process group and session that a test could end, and no limit of the
kernel's counts the processes of root. So a process of its own looks after them. It kills all that carry the
mark in their environment, have a file of the folder open (slurmstepd writes over its environment) or belong
to one of the users (sshd hands no environment on): when nobody holds the other end of its standard input
any more (a test that was killed included), after LIMIT_S seconds, or when they are more than MOST, which is
a fork without end. Exits 1 where it was the limits.
"""

from __future__ import annotations

import os
import pwd
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MARK = "FRACTOPT_TEST_MARK"
LOOK_S = 1.0


def living(mark: str, folder: Path, users: Sequence[int] = ()) -> list[int]:
    """The processes that carry `mark`, have a file of `folder` open or belong to `users`; not this one."""
    wanted = f"{MARK}={mark}".encode()
    return [
        pid
        for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))
        if pid != os.getpid()
        and (wanted in environment(pid) or opened(pid, folder) or owner(pid) in users)
        and is_alive(pid)
    ]


def environment(pid: int) -> list[bytes]:
    """What a process was started with, as NAME=VALUE."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def opened(pid: int, folder: Path) -> list[str]:
    """The files of `folder` that a process has open, by name."""
    found = []
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = Path(os.readlink(f"/proc/{pid}/fd/{number}"))
                if target.is_relative_to(folder):
                    found.append(str(target.relative_to(folder)))
    return found


def owner(pid: int) -> int:
    """The user's number, -1 of a process that is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def reap(mark: str, folder: Path, users: Sequence[int]) -> None:
    """Kill until none is left: between a look and a kill, one more may have been forked."""
    while pids := living(mark, folder, users):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


class Reaper:
    """The test's end of it: what it starts with `environment` ends with `close`, or with the test."""

    def __init__(
        self, mark: str, folder: Path, limit_s: float, most: int = 400, users: Sequence[str] = ()
    ) -> None:
        unmarked = {name: value for name, value in os.environ.items() if name != MARK}
        self._process = subprocess.Popen(
            [sys.executable, __file__, mark, str(folder), str(limit_s), str(most), *users],
            stdin=subprocess.PIPE,
            env=unmarked,
            cwd="/",
            start_new_session=True,
        )

    def close(self) -> int:
        """Kill what is left; 1 where the limits were reached before."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait()


def main() -> int:
    mark, folder, limit_s, most = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    users = [pwd.getpwnam(name).pw_uid for name in sys.argv[5:]]
    until = time.monotonic() + limit_s
    code = 1
    while time.monotonic() < until and len(living(mark, folder, users)) <= most:
        if select.select([sys.stdin], (), (), LOOK_S)[0]:  # EOF
            code = 0
            break
    reap(mark, folder, users)
    return code


if __name__ == "__main__":
    sys.exit(main())
