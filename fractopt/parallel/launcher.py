"""What a rank can do to the other processes of its job on its node: end one, or end them all.

For the end of a job that lost ranks. One that is stopped, or hangs, would keep the launcher waiting for
ever; MPI_Abort does not end a job that Open MPI keeps alive through losses. Open MPI names the job and the
rank in the environment of every process that it starts, and of no other: no process number is trusted, it
may long be another's. Without these names nothing here does anything.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

_JOB, _RANK = "PMIX_NAMESPACE", "PMIX_RANK"


def end_rank(rank: int) -> bool:
    """Kill rank `rank` of our job where it lives on this node; whether there was one to kill."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        environment = _environment(pid)
        if pid != os.getpid() and _is_ours(environment) and environment.get(_RANK) == str(rank):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                found.append(pid)
    return bool(found)


def end_job() -> bool:
    """Ask our launcher to end the whole job, us included; whether there is one to ask."""
    pid = os.getppid()
    while pid > 1 and _is_ours(_environment(pid)):  # a shell, say, between the launcher and us
        pid = _parent(pid)
    if _JOB not in os.environ or pid <= 1:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _is_ours(environment: dict[str, str]) -> bool:
    return _JOB in os.environ and environment.get(_JOB) == os.environ[_JOB]


def _environment(pid: int) -> dict[str, str]:
    """What `pid` was started with; empty for a zombie, a stranger's, and where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
