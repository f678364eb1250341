"""The process group of one evaluation process: started with a guard, fed, signalled, known to be gone.

What must never happen is an evaluation that outlives its rank and keeps the GPU. The evaluation
process itself asks the kernel to be killed with its parent (PR_SET_PDEATHSIG), but that signal
reaches no process it started in turn, and arrives before anything in the process could pass it on
(a thread watching a pipe for EOF lost that race in 8 of 10 trials). So the group is led by a guard:
a shell that holds the reading end of a pipe whose only writing end is ours, and kills its whole
group on EOF. It is there before the evaluation process is.

What an evaluation starts in a session of its own, as torchrun does, belongs to it all the same: a mark in its
environment tells, and it is counted, signalled and waited for, and found by the guard too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fractopt.parallel.message import MAX_BYTES

_FOREIGN_PREFIXES = (
    *("OMPI_", "PMIX_", "PRTE_", "PMI_", "MPI", "MV2_", "HYDRA_", "HYDI_"),
    *("SLURM_STEP_", "TORCHELASTIC_"),
)
_FOREIGN = {
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME"),
    *("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_PROCID", "SLURM_LOCALID"),
}
_MARK = "FRACTOPT_EVALUATION_GROUP"
# Twice: what is about to be killed may start one more. The group comes last, as the guard is one of it.
_GUARD_SCRIPT = f"""
trap '' HUP INT TERM
read -r _
for _ in 1 2; do
    for found in $(grep -lsaF "{_MARK}=${_MARK}" /proc/[0-9]*/environ); do
        pid=${{found#/proc/}} pid=${{pid%/environ}}
        [ "$pid" = $$ ] || kill -KILL "$pid" 2> /dev/null
    done
done
kill -KILL 0
"""
_GUARD = ("/bin/sh", "-c", _GUARD_SCRIPT, "fractopt-guard")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def evaluation_environment(environ: Mapping[str, str], device: str, threads: int) -> dict[str, str]:
    """The environment of an evaluation process that sees `device` only and computes on `threads`.

    Nothing of the launcher's is left in it: under these variables Lightning starts MPI a second time
    and hangs, and lm-eval returns nothing on what it takes for a rank other than zero.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_FOREIGN_PREFIXES) and name not in _FOREIGN
    }
    return {**kept, "CUDA_VISIBLE_DEVICES": device, **{name: str(threads) for name in _THREADS}}


@contextmanager
def _bound_to(cores: Collection[int]) -> Iterator[None]:
    """What this thread starts meanwhile runs on `cores`.

    A child inherits them from the thread that starts it, before its first thread is there: set in the child
    itself, they would be its main thread's alone, not those of a BLAS that is loaded already.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    with suppress(OSError):  # not these any more, a scheduler moved us: it runs where we do
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


class ProcessGroup:
    """An evaluation process, its guard, and all they start.

    `command` is an argv, completed by the numbers of the control and result pipe and our own pid;
    `log` takes what the process prints where it does not redirect it itself. It, and all that it starts,
    runs on these `cores`; on any where there are none.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: IO[bytes],
        cores: Collection[int] = (),
    ) -> None:
        mark = uuid.uuid4().hex
        self._mark = f"{_MARK}={mark}".encode()
        environment = {**environment, _MARK: mark}
        life_read, self._life = os.pipe()
        control_read, self._control = os.pipe()
        self._results, results_write = os.pipe()
        self._pending = b""
        self._ended = False
        self._pidfd = -1
        try:
            self._guard = subprocess.Popen(
                _GUARD,
                stdin=life_read,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,  # it is no rank: who looks for one by its environment must not find it
                process_group=0,
            )
            self.id = self._guard.pid
            with _bound_to(cores):
                self._process = subprocess.Popen(
                    [*command, str(control_read), str(results_write), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    pass_fds=(control_read, results_write),
                    process_group=self.id,
                )
        except BaseException:
            os.close(self._life)  # ends the guard, where it was started
            os.close(self._control)
            os.close(self._results)
            raise
        finally:
            for fd in (life_read, control_read, results_write):
                os.close(fd)
        for fd in (self._control, self._results):
            os.set_blocking(fd, False)
        with suppress(OSError, AttributeError):  # an old kernel: the death is seen at the next poll
            self._pidfd = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        """The evaluation process's own."""
        return self._process.pid

    def filenos(self) -> list[int]:
        """What becomes readable when a result arrives or the evaluation process dies."""
        results = -1 if self._ended else self._results  # at EOF it would be readable for ever
        return [fd for fd in (results, self._pidfd) if fd >= 0]

    @property
    def death_is_seen(self) -> bool:
        """Whether `filenos` tells of a death; where not, somebody has to ask."""
        return self._pidfd >= 0

    def write(self, data: bytes) -> None:
        """Queue `data` for the control pipe; `flush` goes on where the pipe is full."""
        self._pending += data
        self.flush()

    def flush(self) -> bool:
        """Whether all that was written is in the pipe, or the process no longer reads."""
        while self._pending:
            try:
                self._pending = self._pending[os.write(self._control, self._pending) :]
            except BlockingIOError:
                return False
            except BrokenPipeError:
                self._pending = b""
        return True

    def read(self) -> bytes:
        """What is on the result pipe, at most MAX_BYTES of it, without waiting."""
        chunks = []
        room = MAX_BYTES
        while room > 0:
            try:
                chunk = os.read(self._results, min(room, 1 << 16))
            except BlockingIOError:
                break
            if not chunk:  # EOF, which a forked grandchild can delay: it is never taken for a death
                self._ended = True
                break
            chunks.append(chunk)
            room -= len(chunk)
        return b"".join(chunks)

    def returncode(self) -> int | None:
        """Of the evaluation process, negative for a signal; None while it lives."""
        return self._process.poll()

    def resident(self) -> int:
        """Bytes of memory that the evaluation process holds; 0 where that is not known."""
        return _resident(self.pid)

    def resident_of_all(self) -> int:
        """Bytes of memory that the processes of the group hold, what they share counted for each."""
        return sum(map(_resident, _members(self.id, self._mark) or ()))

    def dismiss(self) -> None:
        """Ask an idle evaluation process to leave by itself, through EOF on its control pipe."""
        if self._control >= 0:
            os.close(self._control)
            self._control, self._pending = -1, b""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group, and to those it started outside."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.id, number)
        for pid, group in (_members(self.id, self._mark) or {}).items():
            if group != self.id:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)

    def deserted(self) -> bool:
        """Whether the guard is all that is left."""
        members = _members(self.id, self._mark)
        return self.returncode() is not None and (members is None or set(members) <= {self.id})

    def gone(self) -> bool:
        """Whether no process of the group is left alive; true some time after it got SIGKILL."""
        self._process.poll()
        self._guard.poll()
        members = _members(self.id, self._mark)
        if members is not None:
            # A zombie whose new parent does not reap it (PID 1 of many containers) stays for ever and
            # keeps its group in existence, but holds no memory and no device.
            return not members
        try:
            os.killpg(self.id, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def close(self) -> None:
        """Release the pipes of a group that is gone, and its process numbers."""
        self._process.wait()
        self._guard.wait()
        self.dismiss()
        for fd in (self._life, self._results, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._life = self._results = self._pidfd = -1


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where it is gone, or there is no /proc to tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _members(group: int, mark: bytes) -> dict[int, int] | None:
    """The process groups of the processes that are in `group` or have the `mark` in their environment.

    Zombies are none; None where there is no /proc to tell.
    """
    entries = list(Path("/proc").glob("[0-9]*/stat"))
    if not entries:
        return None
    members = {}
    for entry in entries:
        with suppress(OSError):  # it ended while we looked, or is another user's
            state, _, of = entry.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if state in "ZX":
                continue
            if int(of) == group or mark in (entry.parent / "environ").read_bytes().split(b"\0"):
                members[int(entry.parent.name)] = int(of)
    return members
