"""Byte strings between MPI ranks, sent and received without ever blocking.

Every blocking wait of every MPI is a spin, and one for a rank that is stopped would never end. So sends are
Isend with kept buffers, receives are Improbe and Imrecv, with sleeps in between. Importing this module
initialises MPI.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Collection
from enum import IntEnum
from typing import NoReturn

from mpi4py import MPI

from fractopt.parallel.message import MAX_BYTES, Message, decode

MASTER = 0
SPIN_S = 0.001  # after a message, as the next one may be near; any sleep takes 0.1 ms
LONGEST_SLEEP_S = 0.02  # 0.3 % of a core when idle, for at most 20 ms of delay
WAITED_SHARE = 32  # a sleep is this part of the time already waited: it delays a message by 3 %
LOOK_FOR_LOST_S = 0.5
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
    ALIVE = 6  # worker to master, every RENEW_S, empty: its loop turns


FINALIZE, EXIT = b"finalize", b"exit"  # MPI_Finalize can hang once a rank was lost


class Backoff:
    """How long to sleep between two looks at MPI: a share of the time already waited."""

    def __init__(self, longest_s: float = LONGEST_SLEEP_S) -> None:
        self._longest_s = longest_s
        self._since = time.monotonic()

    def reset(self) -> None:
        """Something happened; more may follow at once."""
        self._since = time.monotonic()

    def pause(self, longest_s: float = LONGEST_SLEEP_S) -> None:
        """Until it is time to look at MPI again, at most `longest_s`."""
        if sleep_s := min(self.sleep_s(), longest_s):
            time.sleep(sleep_s)
        else:
            os.sched_yield()  # a sleep of nothing takes 50 us and more

    def sleep_s(self) -> float:
        waited = time.monotonic() - self._since
        return 0.0 if waited < SPIN_S else min(waited / WAITED_SHARE, self._longest_s)


class Post:
    """Sends and receives byte strings without ever blocking, and keeps book of lost ranks.

    What a rank does not take, because it is stopped, is kept here for ever. It is little: the master
    sends it nothing that it has not asked for, and a worker says less where much is `waiting`.
    """

    def __init__(self, comm: MPI.Comm = MPI.COMM_WORLD) -> None:
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        self._comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.lost: set[int] = set()
        self._can_tell_lost = hasattr(comm, "Get_failed")
        self._looked_at = 0.0
        self._on_the_way: list[tuple[int, MPI.Request, bytes]] = []
        self._arriving: list[tuple[int, Tag, MPI.Request, bytearray]] = []
        self._status = MPI.Status()
        self._source = MPI.ANY_SOURCE if self.rank == MASTER else MASTER

    def send(self, rank: int, tag: Tag, data: bytes = b"") -> None:
        """Start sending; `data` is kept until it has arrived. To a lost rank: nothing happens."""
        self.settle()
        if rank in self.lost:
            return
        try:
            request = self._comm.Isend([data, MPI.BYTE], rank, tag)
            if not request.Test():  # a short one is on its way at once
                self._on_the_way.append((rank, request, data))
        except MPI.Exception as error:
            self._look_for_lost(error)

    @property
    def waiting(self) -> int:
        """How many messages have not arrived."""
        return len(self._on_the_way)

    def settle(self, but: Collection[int] = ()) -> bool:
        """Forget what has arrived; whether nothing is on the way any more, to any rank `but` these."""
        if not self._on_the_way:
            return True
        still = []
        for rank, request, data in self._on_the_way:
            try:
                if not request.Test():
                    still.append((rank, request, data))
            except MPI.Exception as error:
                self._look_for_lost(error)
        self._on_the_way = still
        return all(rank in but or rank in self.lost for rank, _, _ in still)

    def receive(self) -> tuple[int, Tag, bytes] | None:
        """The next message as (rank, tag, bytes), or None where there is none now.

        Raises ValueError for one longer than MAX_BYTES.
        """
        if time.monotonic() >= self._looked_at + LOOK_FOR_LOST_S:
            self._look_for_lost(None)
        status = self._status
        try:
            message = self._comm.Improbe(self._source, MPI.ANY_TAG, status)
            if message is None:
                self.settle()  # also lets MPI make progress
            else:
                rank, size = status.Get_source(), status.Get_count(MPI.BYTE)
                if size > MAX_BYTES:
                    raise ValueError(f"rank {rank} sent {size} bytes, more than {MAX_BYTES}")
                data = bytearray(size)
                request = message.Irecv([data, MPI.BYTE])  # MPI_Imrecv
                self._arriving.append((rank, Tag(status.Get_tag()), request, data))
        except MPI.Exception as error:
            self._look_for_lost(error)
        return self._arrived()

    def _arrived(self) -> tuple[int, Tag, bytes] | None:
        """The first whole message of those found, in the order of each sender.

        A sender that stops, or dies, in the middle of a long one holds up nobody but itself.
        """
        if not self._arriving:
            return None
        incomplete: set[int] = set()
        for index, (rank, tag, request, data) in enumerate(self._arriving):
            try:
                if rank not in incomplete and request.Test():
                    del self._arriving[index]
                    return rank, tag, bytes(data)
            except MPI.Exception as error:
                del self._arriving[index]
                self._look_for_lost(error)
                return None
            incomplete.add(rank)
        return None

    def abort(self, code: int) -> None:
        """End the whole job by force; returns where MPI itself is stuck."""
        flush()
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


def decoded(rank: int, tag: Tag, data: bytes) -> Message:
    """The message in `data`; raises ValueError, naming the sender, where it is none."""
    try:
        return decode(data)
    except ValueError as error:
        raise ValueError(f"rank {rank}, {tag.name.lower()}: {error}") from None


def depart(orderly: bool, code: int) -> NoReturn:
    """End this process, without MPI_Finalize and all that Python does at exit unless `orderly`."""
    flush()
    if not orderly:
        os._exit(code)
    MPI.Finalize()
    sys.exit(code)


def flush() -> None:
    """Hand on all that was printed and logged."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
