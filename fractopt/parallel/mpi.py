"""Workers as MPI ranks: rank 0 is the master, every other rank a worker of that number (see `rank`).

Importing this module initialises MPI. Only bytes travel, no pickles, and nobody blocks in MPI: sends
are Isend with kept buffers, receives are Improbe and Mrecv with sleeps in between, because every
blocking wait of every MPI is a spin. No collective is ever called: after the loss of a rank none
would return. Where the launcher keeps the job alive, a lost rank is reported as `Gone` and the others
go on.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from enum import IntEnum
from typing import NoReturn

from mpi4py import MPI

from fractopt.parallel import gpu
from fractopt.parallel.message import (
    MAX_BYTES,
    Crashed,
    Ended,
    Finished,
    FromWorker,
    Gone,
    Hello,
    Message,
    Node,
    Place,
    Progress,
    Setup,
    Stop,
    Task,
    Unusable,
    decode,
    encode,
)
from fractopt.parallel.worker import STUCK_S

log = logging.getLogger(__name__)

MASTER = 0
SPIN_S = 0.0002  # after a message, as the next one may be near
LONGEST_SLEEP_S = 0.02  # 0.3 % of a core when idle, for at most 20 ms of delay
WAITED_SHARE = 32  # a sleep is this part of the time already waited: it delays a message by 3 %
LOOK_FOR_LOST_S = 0.5
LEAVE_S = 10.0  # for the last word of the other side, which may just be busy
_LOST_CLASSES = {
    getattr(MPI, name, -1) for name in ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED")
}


class Tag(IntEnum):
    """Every kind of MPI message, and who sends it to whom."""

    NODE = 1  # worker to master, first: `Node`, where the rank runs
    ORDER = 2  # master to worker: `Place`, `Setup`, `Task`s, `Stop`
    REPORT = 3  # worker to master: `Hello`, `Progress`, `Finished`, `Ended`, `Unusable`, `Crashed`
    GOODBYE = 4  # worker to master, its last, empty: no evaluation process is left
    LEAVE = 5  # master to worker, its last: how to leave, `FINALIZE` or `EXIT`


FINALIZE, EXIT = b"finalize", b"exit"  # MPI_Finalize can hang once a rank was lost


def world_size() -> int:
    return MPI.COMM_WORLD.Get_size()


def library() -> str:
    """The name and version of the MPI library."""
    return MPI.Get_library_version().split(",")[0].splitlines()[0].strip("\0 ")


def is_master() -> bool:
    """Whether this rank is the one that runs the master."""
    return MPI.COMM_WORLD.Get_rank() == MASTER


class Backoff:
    """How long to sleep between two looks at MPI: a share of the time already waited."""

    def __init__(self, longest_s: float = LONGEST_SLEEP_S) -> None:
        self._longest_s = longest_s
        self._since = time.monotonic()

    def reset(self) -> None:
        """Something happened; more may follow at once."""
        self._since = time.monotonic()

    def sleep_s(self) -> float:
        waited = time.monotonic() - self._since
        return 0.0 if waited < SPIN_S else min(waited / WAITED_SHARE, self._longest_s)


class Post:
    """Sends and receives byte strings without ever blocking, and keeps book of lost ranks."""

    def __init__(self, comm: MPI.Comm = MPI.COMM_WORLD) -> None:
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        self._comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.lost: set[int] = set()
        self._can_tell_lost = hasattr(comm, "Get_failed")
        self._looked_at = 0.0
        self._on_the_way: list[tuple[MPI.Request, bytes]] = []
        self._source = MPI.ANY_SOURCE if self.rank == MASTER else MASTER

    def send(self, rank: int, tag: Tag, data: bytes = b"") -> None:
        """Start sending; `data` is kept until it has arrived. To a lost rank: nothing happens."""
        self.settle()
        if rank in self.lost:
            return
        try:
            self._on_the_way.append((self._comm.Isend([data, MPI.BYTE], rank, tag), data))
        except MPI.Exception as error:
            self._look_for_lost(error)

    def settle(self) -> bool:
        """Forget what has arrived; whether nothing is on the way any more."""
        still = []
        for request, data in self._on_the_way:
            try:
                if not request.Test():
                    still.append((request, data))
            except MPI.Exception as error:
                self._look_for_lost(error)
        self._on_the_way = still
        return not still

    def receive(self) -> tuple[int, Tag, bytes] | None:
        """The next message as (rank, tag, bytes), or None where there is none now."""
        status = MPI.Status()
        try:
            if time.monotonic() >= self._looked_at + LOOK_FOR_LOST_S:
                self._look_for_lost(None)
            message = self._comm.Improbe(self._source, MPI.ANY_TAG, status)
            if message is None:
                self.settle()  # also lets MPI make progress
                return None
            data = bytearray(status.Get_count(MPI.BYTE))
            message.Recv([data, MPI.BYTE], status)  # MPI_Mrecv
        except MPI.Exception as error:
            self._look_for_lost(error)
            return None
        if len(data) > MAX_BYTES:
            raise ValueError(f"rank {status.Get_source()} sent {len(data)} bytes, more than {MAX_BYTES}")
        return status.Get_source(), Tag(status.Get_tag()), bytes(data)

    def abort(self, code: int) -> None:
        """End the whole job by force; returns where MPI itself is stuck."""
        _flush()
        self._comm.Abort(code)

    def _look_for_lost(self, error: MPI.Exception | None) -> None:
        """Update `lost`; raises `error` where it is not about a lost rank."""
        self._looked_at = time.monotonic()
        if error is not None and error.Get_error_class() not in _LOST_CLASSES:
            raise error
        if not self._can_tell_lost:
            return
        try:
            self._comm.Ack_failed()  # or every receive from any source would fail from now on
            failed, everybody = self._comm.Get_failed(), self._comm.Get_group()
            self.lost.update(failed.Translate_ranks(None, everybody))
            failed.Free()
            everybody.Free()
        except (MPI.Exception, NotImplementedError):  # an MPI without fault tolerance
            self._can_tell_lost = False


class MpiTransport:
    """The master's end. `leave` must be the last thing rank 0 does, whatever happened before."""

    def __init__(self, comm: MPI.Comm = MPI.COMM_WORLD, *, fault_tolerant: bool | None = None) -> None:
        self._post = Post(comm)
        self._backoff = Backoff()
        self._fault_tolerant = fault_tolerant_job() if fault_tolerant is None else fault_tolerant
        self._workers = set(range(1, self._post.size))  # not lost, and not said goodbye
        self._nodes: dict[int, Node] = {}
        self._setup: Setup | None = None
        self._placed = False
        self._idle: set[int] = set()
        self._gone: set[int] = set()
        self._closed = False

    def start(self, setup: Setup) -> None:
        self._setup = setup
        self._place()

    def idle(self) -> list[int]:
        return sorted(self._idle)

    def expected(self) -> int:
        return len(self._workers)

    def send(self, worker: int, task: Task) -> None:
        self._idle.remove(worker)
        self._order(worker, task)
        self._backoff.reset()

    def receive(self, timeout_s: float) -> list[FromWorker]:
        until = time.monotonic() + timeout_s
        while True:
            messages = self._take()
            left = until - time.monotonic()
            if messages or left <= 0:
                return messages
            time.sleep(max(0.0, min(self._backoff.sleep_s(), left)))

    def close(self, grace_s: float) -> None:
        """As in `Transport`. The ranks stay until `leave`."""
        if self._closed:
            return
        self._closed = True
        self._idle.clear()
        for worker in self._workers:
            self._order(worker, Stop("the run ends", grace_s))
        until = time.monotonic() + grace_s + STUCK_S
        while self._workers and time.monotonic() < until:
            self._take()
            time.sleep(self._backoff.sleep_s())
        if self._workers:
            log.error("ranks %s did not say goodbye", sorted(self._workers))

    def leave(self, code: int) -> NoReturn:
        """End this rank, and with it the job, with exit code `code`; stops the workers first.

        Ends the whole job by force where ranks do not answer. Where ranks were lost, MPI_Finalize is
        left out, and with it everything that Python does at exit: close what must be closed before.
        """
        self.close(grace_s=2.0)
        orderly = not self._gone and not self._workers
        for worker in range(1, self._post.size):
            self._post.send(worker, Tag.LEAVE, FINALIZE if orderly else EXIT)
        until = time.monotonic() + LEAVE_S
        while not self._post.settle() and time.monotonic() < until:
            time.sleep(0.001)
        if self._workers and not self._fault_tolerant:
            self._post.abort(code or 1)
        depart(orderly, code)

    def _take(self) -> list[FromWorker]:
        """All that has arrived."""
        messages: list[FromWorker] = []
        while (mail := self._post.receive()) is not None:
            self._backoff.reset()
            rank, tag, data = mail
            if tag is Tag.GOODBYE:
                self._workers.discard(rank)
            else:
                messages += self._hear(rank, decoded(rank, tag, data))
        for rank in sorted(self._post.lost - self._gone):
            messages += self._lose(rank, "its rank died")
        return messages

    def _hear(self, rank: int, message: Message) -> list[FromWorker]:
        if rank in self._gone:
            return []
        match message:
            case Node():
                self._nodes[rank] = message
                self._place()
                return []
            case Crashed() if self._fault_tolerant:
                self._post.send(rank, Tag.LEAVE, EXIT)
                return self._lose(rank, f"it crashed:\n{message.traceback}")
            case Hello() | Finished() | Ended():
                if not self._closed:
                    self._idle.add(rank)
            case Unusable():
                self._idle.discard(rank)
            case Progress() | Crashed():
                pass
            case _:
                raise ValueError(f"rank {rank} sent a {message.type!r} message to the master")
        return [message]

    def _lose(self, rank: int, why: str) -> list[FromWorker]:
        self._gone.add(rank)
        self._idle.discard(rank)
        if rank not in self._workers:
            return []  # it died after its goodbye
        self._workers.discard(rank)
        self._place()
        host = f" on {self._nodes[rank].host}" if rank in self._nodes else ""
        return [Gone(rank, f"rank {rank}{host}: {why}")]

    def _place(self) -> None:
        """Once it is known where every rank runs: give each its device, its cores, and the setup."""
        if self._placed or self._closed or self._setup is None or not self._workers <= self._nodes.keys():
            return
        self._placed = True
        ranks = sorted(self._workers)
        places = [self._nodes[rank] for rank in ranks]
        nodes = [place.node for place in places]
        devices = gpu.assign(nodes, [place.visible for place in places])
        threads = gpu.threads(nodes, [place.cores for place in places])
        for sentence in gpu.crowded(nodes, devices):
            log.warning("%s", sentence)
        for rank, device, share in zip(ranks, devices, threads, strict=True):
            self._order(rank, Place(rank, device, share))
            self._order(rank, self._setup)

    def _order(self, worker: int, message: Place | Setup | Task | Stop) -> None:
        self._post.send(worker, Tag.ORDER, encode(message))


def fault_tolerant_job() -> bool:
    """Whether the job survives the loss of a rank, as far as the environment tells.

    mpirun --with-ft ulfm leaves a trace there; its recoverable mode does not, so jobs/env.sh adds one,
    which means nothing to any other MPI.
    """
    name, _, version = library().partition(" v")
    if name != "Open MPI" or int(version.split(".")[0]) < 5:
        return False
    return any(os.environ.get(name) == "1" for name in ("OMPI_MCA_mpi_ft_enable", "FRACTOPT_FAULT_TOLERANT"))


def decoded(rank: int, tag: Tag, data: bytes) -> Message:
    """The message in `data`; raises ValueError, naming the sender, where it is none."""
    try:
        return decode(data)
    except ValueError as error:
        raise ValueError(f"rank {rank}, {tag.name.lower()}: {error}") from None


def depart(orderly: bool, code: int) -> NoReturn:
    """End this process, without MPI_Finalize and all that Python does at exit unless `orderly`."""
    _flush()
    if not orderly:
        os._exit(code)
    MPI.Finalize()
    sys.exit(code)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
