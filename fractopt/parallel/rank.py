"""All that a worker rank does: it follows the master's orders and supervises an evaluation process.

It knows nothing of the run but the messages; it reads no configuration and writes no file. Importing
this module initialises MPI.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from fractopt.parallel.lease import RENEW_S
from fractopt.parallel.message import (
    MAX_BYTES,
    Crashed,
    Message,
    Place,
    Progress,
    Setup,
    Stop,
    Task,
    encode,
)
from fractopt.parallel.mpi import LEAVE_S, fault_tolerant_job
from fractopt.parallel.placement import here
from fractopt.parallel.post import EXIT, FINALIZE, MASTER, Backoff, Post, Tag, decoded, depart
from fractopt.parallel.worker import COMMAND, STUCK_S, Supervisor, end

MOST_WAITING = 64  # messages that a master which does not listen lets pile up, those that matter aside


class LostMasterError(Exception):
    """The master is gone: nothing is left to work for."""


def serve(command: Sequence[str] = COMMAND) -> NoReturn:
    """All that a worker rank does, to its end: an uncaught exception of ours is its last message.

    `command` starts an evaluation process, see `evaluation.main`.
    """
    if threading.current_thread() is threading.main_thread():
        # The launcher passes signals on to every rank, but only the master decides what becomes of
        # the run. Handlers, as an ignored signal would stay ignored in the evaluation process.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda *_: None)
    worker = Worker(Post(), command)
    code = 0
    try:
        worker.work()
    except LostMasterError:
        worker.end(0.0)
        depart(False, 1)
    except BaseException:
        code = 1
        worker.crash(traceback.format_exc())
    orderly = worker.last_word() == FINALIZE
    # A rank that is given up in a job that goes on must not give that job its exit code.
    depart(orderly, code if orderly else 0)


class Worker:
    """The worker's end of the post, and its evaluation process."""

    def __init__(self, post: Post, command: Sequence[str]) -> None:
        self._post = post
        self._command = command
        self._backoff = Backoff()
        self._place = Place(post.rank, "", 1)
        self._supervisor: Supervisor | None = None
        self._stop_by: float | None = None
        self._leave: bytes | None = None
        self._renewed_at = time.monotonic()

    def work(self) -> None:
        """Follow orders until told to stop and no evaluation process is left."""
        self._post.send(MASTER, Tag.NODE, encode(here(self._post.rank)))
        while not self._done():
            self._take_orders()
            for message in self._supervisor.poll() if self._supervisor else ():
                self._backoff.reset()
                if isinstance(message, Progress) and self._post.waiting >= MOST_WAITING:
                    continue  # the next one says as much
                self._post.send(MASTER, Tag.REPORT, encode(message))
            self._renew()
            self._wait()
        self.end(0.0)
        self._post.send(MASTER, Tag.GOODBYE)

    def _renew(self) -> None:
        """Renew the lease, if it is time to: whatever the evaluation process does, this rank is there."""
        if time.monotonic() >= self._renewed_at + RENEW_S:
            self._renewed_at = time.monotonic()
            if self._post.settle():
                self._post.send(MASTER, Tag.ALIVE)

    def crash(self, text: str) -> None:
        """Say what went wrong, to the master and on stderr, and leave no evaluation process."""
        rank, host = self._post.rank, socket.gethostname()
        print(f"### worker {rank} of {self._post.size} on {host}\n{text}", file=sys.stderr, flush=True)
        try:
            self.end(0.0)
            self._post.send(MASTER, Tag.REPORT, encode(Crashed(rank, host, text[-MAX_BYTES // 4 :])))
            self._post.send(MASTER, Tag.GOODBYE)
        except Exception:
            traceback.print_exc()

    def last_word(self) -> bytes:
        """Wait for the master's leave. Where it does not come, ends a job that loses no ranks by force."""
        until = time.monotonic() + LEAVE_S + STUCK_S
        try:
            while time.monotonic() < until:
                mail = self._post.receive()
                if mail is not None and mail[1] is Tag.LEAVE:
                    self._leave = mail[2]
                if MASTER in self._post.lost:
                    return EXIT
                if self._leave is not None and self._post.settle():
                    return self._leave
                if mail is None:
                    time.sleep(0.002)
        except Exception:  # MPI itself fails
            traceback.print_exc()
        if not fault_tolerant_job():
            self._post.abort(1)
        return EXIT

    def end(self, grace_s: float) -> None:
        if self._supervisor is not None:
            end([self._supervisor], grace_s)

    def _done(self) -> bool:
        if self._leave is not None:
            return True
        if self._stop_by is None:
            return False
        return self._supervisor is None or self._supervisor.closed or time.monotonic() > self._stop_by

    def _take_orders(self) -> None:
        while (mail := self._post.receive()) is not None:
            self._backoff.reset()
            rank, tag, data = mail
            if tag is Tag.LEAVE:
                self._leave = data
            else:
                self._obey(decoded(rank, tag, data))
        if MASTER in self._post.lost:
            raise LostMasterError

    def _obey(self, message: Message) -> None:
        match message:
            case Place():
                self._place = message
            case Setup() | Task() if self._stop_by is not None:
                pass  # after its end the run has no use for it
            case Setup():
                self._supervisor = Supervisor(self._place, message, self._command)
                self._supervisor.start()
            case Task() if self._supervisor is not None:
                self._supervisor.send(message)
            case Stop():
                self._stop_by = time.monotonic() + message.grace_s + STUCK_S
                if self._supervisor is not None:
                    self._supervisor.stop(message.grace_s)
            case _:
                raise ValueError(f"the master sent a {message.type!r} message out of turn")

    def _wait(self) -> None:
        """Until the evaluation process has something, or it is time to look at MPI again."""
        wait_s, fds = self._backoff.sleep_s(), []
        if wait_s == 0.0:
            os.sched_yield()  # the next order may be near
            return
        if self._supervisor is not None:
            wait_s = min(wait_s, max(0.0, self._supervisor.deadline() - time.monotonic()))
            fds = self._supervisor.filenos()
        select.select(fds, (), (), wait_s)  # unlike poll, it counts in microseconds
