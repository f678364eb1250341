"""Workers without MPI: supervised evaluation processes on this machine, reached by pipes."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Sequence
from dataclasses import replace

from fractopt.parallel.message import Ended, Finished, FromWorker, Hello, Setup, Task, Unusable
from fractopt.parallel.placement import here, place
from fractopt.parallel.worker import COMMAND, Supervisor, end

log = logging.getLogger(__name__)


class ProcessesTransport:
    """`workers` evaluation processes, numbered from 1, that share this machine's devices and cores.

    `threads` overrides each worker's share of the cores. To be used from one thread, which must live
    as long as the transport: the kernel ends the evaluation processes with the thread that started
    them. Raises ValueError for less than one worker.
    """

    def __init__(self, workers: int, *, threads: int | None = None, command: Sequence[str] = COMMAND) -> None:
        if workers < 1:
            raise ValueError(f"expected at least 1 worker, got {workers}")
        self._workers = workers
        self._threads = threads
        self._command = tuple(command)
        self._supervisors: dict[int, Supervisor] = {}
        self._refused: list[Unusable] = []  # of which the master has not heard
        self._idle: set[int] = set()

    def start(self, setup: Setup) -> None:
        node = here(0)
        placement = place([replace(node, worker=number) for number in range(1, self._workers + 1)], setup)
        for sentence in placement.remarks:
            log.warning("%s", sentence)
        self._refused = list(placement.refused)
        for given in placement.places:
            if self._threads is not None:
                given = replace(given, threads=self._threads)
            supervisor = Supervisor(given, setup, self._command)
            self._supervisors[given.worker] = supervisor
            supervisor.start()

    def idle(self) -> list[int]:
        return sorted(self._idle)

    def expected(self) -> int:
        return self._workers

    def send(self, worker: int, task: Task) -> None:
        self._idle.remove(worker)
        self._supervisors[worker].send(task)

    def receive(self, timeout_s: float) -> list[FromWorker]:
        until = time.monotonic() + timeout_s
        while True:
            messages: list[FromWorker] = [*self._refused]
            self._refused.clear()
            messages += [message for s in self._supervisors.values() for message in s.poll()]
            now = time.monotonic()
            if messages or now >= until:
                break
            due = min([until, *(s.deadline() for s in self._supervisors.values())])
            poll = select.poll()
            for supervisor in self._supervisors.values():
                for fd in supervisor.filenos():
                    poll.register(fd, select.POLLIN)
            poll.poll(max(0.0, due - now) * 1000)  # in milliseconds, rounded up
        self._idle |= {m.worker for m in messages if isinstance(m, (Hello, Finished, Ended))}
        self._idle -= {m.worker for m in messages if isinstance(m, Unusable)}
        return messages

    def close(self, grace_s: float) -> None:
        self._idle.clear()
        end(list(self._supervisors.values()), grace_s)
        self._supervisors.clear()
