"""Workers as MPI ranks: rank 0 is the master, every other rank a worker of that number (see `rank`).

Importing this module initialises MPI. Only bytes travel (see `post`), no pickles. No collective is ever
called: after the loss of a rank none would return. Where the launcher keeps the job alive, a lost rank is
reported as `Gone` and the others go on. A rank that is lost without MPI's knowledge ends its lease (see
`lease`), and is `Gone` too, until it is heard of again.
"""

from __future__ import annotations

import logging
import os
import time
from typing import NoReturn

from mpi4py import MPI

from fractopt.parallel import launcher
from fractopt.parallel.lease import Leases
from fractopt.parallel.message import (
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
    encode,
)
from fractopt.parallel.placement import place
from fractopt.parallel.post import EXIT, FINALIZE, MASTER, Backoff, Post, Tag, decoded, depart, flush
from fractopt.parallel.transport import GRACE_S
from fractopt.parallel.worker import STUCK_S

log = logging.getLogger(__name__)

LEAVE_S = 10.0  # for the last word of the other side, which may just be busy
LOOK_AT_LEASES_S = 0.1  # with thousands of workers a look takes milliseconds
QUIET_S = 10.0  # at the end: a rank that says nothing for so long says no goodbye either
PRINTED_S = 0.5  # for the launcher to hand on what was printed, before it is ended


def world_size() -> int:
    return MPI.COMM_WORLD.Get_size()


def library() -> str:
    """The name and version of the MPI library."""
    return MPI.Get_library_version().split(",")[0].splitlines()[0].strip("\0 ")


def is_master() -> bool:
    """Whether this rank is the one that runs the master."""
    return MPI.COMM_WORLD.Get_rank() == MASTER


class MpiTransport:
    """The master's end. `leave` must be the last thing rank 0 does, whatever happened before.

    A rank that says nothing for as long as its lease is `Gone`, and what it did is done elsewhere. Once it
    is heard of again, it is taken up again with the same device, which nobody else was given: it says
    `Hello`, and gets its next task when it has ended the one it had.
    """

    def __init__(
        self,
        comm: MPI.Comm = MPI.COMM_WORLD,
        *,
        fault_tolerant: bool | None = None,
    ) -> None:
        self._post = Post(comm)
        self._backoff = Backoff()
        self._fault_tolerant = fault_tolerant_job() if fault_tolerant is None else fault_tolerant
        self._workers = set(range(1, self._post.size))  # not lost, and not said goodbye
        self._leases = Leases(self._workers)
        self._nodes: dict[int, Node] = {}
        self._setup: Setup | None = None
        self._placed: set[int] = set()  # were given a device, cores and the setup
        self._idle: set[int] = set()
        self._busy: set[int] = set()  # were sent a task whose end was not heard of
        self._refused: list[Unusable] = []  # of which the master has not heard
        self._introduced: dict[int, Hello | Unusable] = {}
        self._silent: set[int] = set()  # their lease ended, and nothing was heard of them since
        self._gone: set[int] = set()  # for good
        self._farewells: set[int] = set()
        self._closed = False
        self._leases_at = 0.0  # when they are looked at next

    def start(self, setup: Setup) -> None:
        self._setup = setup
        self._leases = Leases(range(1, self._post.size), setup.lease_s)
        self._place()

    def idle(self) -> list[int]:
        return sorted(self._idle)

    def expected(self) -> int:
        return len(self._workers)

    def send(self, worker: int, task: Task) -> None:
        self._idle.remove(worker)
        self._busy.add(worker)
        self._order(worker, task)
        self._backoff.reset()

    def receive(self, timeout_s: float) -> list[FromWorker]:
        until = time.monotonic() + timeout_s
        while True:
            messages = self._take()
            left = until - time.monotonic()
            if messages or left <= 0:
                return messages
            self._backoff.pause(left)

    def close(self, grace_s: float) -> None:
        """As in `Transport`. The ranks stay until `leave`."""
        if self._closed:
            return
        self._closed = True
        self._idle.clear()
        for worker in self._workers | self._silent:
            self._order(worker, Stop("the run ends", grace_s))
        until = time.monotonic() + grace_s + STUCK_S
        while any(self._leases.silent_s(worker) < QUIET_S for worker in self._workers):
            if time.monotonic() > until:
                break
            self._take()
            self._backoff.pause()
        if self._workers:
            log.error("ranks %s did not say goodbye", sorted(self._workers))

    def leave(self, code: int) -> NoReturn:
        """End this rank, and with it the job, with exit code `code`; stops the workers first.

        Ends ranks that do not answer by force, with the whole job where they cannot be reached alone.
        Where ranks were lost, MPI_Finalize is left out, and with it everything that Python does at exit:
        close what must be closed before.
        """
        self.close(GRACE_S)
        ranks = set(range(1, self._post.size))
        mute = ranks - self._farewells - self._post.lost
        orderly = not self._gone and not mute
        for worker in ranks:
            self._post.send(worker, Tag.LEAVE, FINALIZE if orderly else EXIT)
        until = time.monotonic() + LEAVE_S
        while not self._post.settle(but=mute) and time.monotonic() < until:
            time.sleep(0.001)
        if mute and not self._fault_tolerant:
            self._post.abort(code or 1)
        # Not left to a launcher that waits for every process it started. A rank of which nothing is found
        # on this node is dead, or on another one, from where its launcher alone can end it.
        if [worker for worker in sorted(mute) if not launcher.end_rank(worker)]:
            flush()
            time.sleep(PRINTED_S)
            launcher.end_job()
        depart(orderly, code)

    def _take(self) -> list[FromWorker]:
        """All that has arrived, and what the silence of the others means."""
        messages: list[FromWorker] = []
        while (mail := self._post.receive()) is not None:
            rank, tag, data = mail
            self._leases.renew(rank)
            if rank in self._silent:
                messages += self._take_up_again(rank)
            if tag is Tag.ALIVE:
                continue  # nothing follows from it: no reason to look again soon
            self._backoff.reset()
            if tag is Tag.GOODBYE:
                self._farewells.add(rank)
                self._workers.discard(rank)
            else:
                messages += self._hear(rank, decoded(rank, tag, data))
        while self._refused:
            refusal = self._refused.pop()
            messages += self._hear(refusal.worker, refusal)
        self._leases.look()
        for rank in sorted(self._post.lost - self._gone):
            messages += self._lose(rank, "its rank died")
        if time.monotonic() >= self._leases_at:
            self._leases_at = time.monotonic() + LOOK_AT_LEASES_S
            for rank in sorted(worker for worker in self._workers if self._leases.ended(worker)):
                why = f"nothing was heard of its rank for {self._leases.silent_s(rank):.0f} s"
                messages += self._miss(rank, why)
                self._silent.add(rank)
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
            case Hello():
                self._introduced[rank] = message
                self._rest(rank)
            case Finished() | Ended():
                self._busy.discard(rank)
                self._rest(rank)
            case Unusable():
                self._introduced[rank] = message
                self._idle.discard(rank)
            case Progress() | Crashed():
                pass
            case _:
                raise ValueError(f"rank {rank} sent a {message.type!r} message to the master")
        return [message]

    def _rest(self, rank: int) -> None:
        """The rank can take a task, unless it has one."""
        if not self._closed and rank not in self._busy:
            self._idle.add(rank)

    def _take_up_again(self, rank: int) -> list[FromWorker]:
        """A rank that was silent said something."""
        self._silent.discard(rank)
        if self._placed and rank not in self._placed:
            # The devices and cores of its node were given out without it.
            log.warning("rank %d is heard of again, but the run began without it: it leaves", rank)
            self._gone.add(rank)
            self._post.send(rank, Tag.LEAVE, EXIT)
            return []
        log.warning("rank %d is heard of again", rank)
        self._workers.add(rank)
        introduced = self._introduced.get(rank)
        if introduced is None:
            return []
        if isinstance(introduced, Hello):
            self._rest(rank)
        return [introduced]

    def _lose(self, rank: int, why: str) -> list[FromWorker]:
        """The rank is lost for good."""
        self._gone.add(rank)
        self._silent.discard(rank)
        return self._miss(rank, why)

    def _miss(self, rank: int, why: str) -> list[FromWorker]:
        self._idle.discard(rank)
        if rank not in self._workers:
            return []  # it was silent, or said goodbye
        self._workers.discard(rank)
        self._place()
        host = f" on {self._nodes[rank].host}" if rank in self._nodes else ""
        return [Gone(rank, f"rank {rank}{host}: {why}")]

    def _place(self) -> None:
        """Once it is known where every rank runs: give each its device, its cores, and the setup."""
        if self._placed or self._closed or self._setup is None or not self._workers <= self._nodes.keys():
            return
        ranks = sorted(self._workers)
        self._placed.update(ranks)
        placement = place([self._nodes[rank] for rank in ranks], self._setup)
        for sentence in placement.remarks:
            log.warning("%s", sentence)
        self._refused += placement.refused
        for given in placement.places:
            self._order(given.worker, given)
            self._order(given.worker, self._setup)

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
