"""A small master and its worker ranks, some of which fall silent without MPI's knowledge.

    mpirun -n N python silence.py TASKS HOW...

Rank i does the i-th HOW: `far` stops in the middle of a task, where nobody but its launcher can end it,
`large` before a long message to it, `half` in the middle of a long message from it, `exit` ends with an
error, `pause` stops until it was given up, and comes back; `busy` does nothing unusual, but the master
listens to nobody for longer than the lease. Rank 0 prints one JSON object a line: what it was told.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import deque
from itertools import count, islice
from pathlib import Path

from fractopt.parallel import launch

launch.check_mpi()

from fractopt.parallel import launcher, mpi, post, rank  # noqa: E402
from fractopt.parallel.message import (  # noqa: E402
    Finished,
    Gone,
    Hello,
    Limits,
    Progress,
    Setup,
    Task,
    Unusable,
    encode,
)

EVALUATING = Path(__file__).resolve().parents[1] / "parallel" / "evaluating.py"
LEASE_S = 3.0
LONG = "x" * 900_000  # far more than MPI sends before the other side asks for it


def say(**record: object) -> None:
    print(json.dumps(record), flush=True)


def work(how: str, number: int) -> None:
    send = post.Post.send

    def send_and_fall_silent(self: post.Post, to: int, tag: post.Tag, data: bytes = b"") -> None:
        if how == "half" and b'"finished"' in data:
            send(self, to, tag, encode(Unusable(number, LONG)))
            os.kill(os.getpid(), signal.SIGSTOP)
        send(self, to, tag, data)
        if how == "exit" and b'"begin"' in data:
            os._exit(1)

    post.Post.send = send_and_fall_silent  # type: ignore[method-assign]
    rank.serve(command=(sys.executable, str(EVALUATING)))


def master(transport: mpi.MpiTransport, n: int, how: dict[int, str]) -> None:
    params = {"do": "sleep", "x": 0.2, "pad": LONG if "large" in how.values() else ""}
    tasks = (Task(i, 0, "search", params, 0) for i in count())
    todo = deque(islice(tasks, n))
    running: dict[int, Task] = {}
    done: set[int] = set()
    pids: dict[int, int] = {}
    begun: set[int] = set()
    gone: set[int] = set()
    still_to_serve = {worker for worker in how if how[worker] == "pause"}
    transport.start(Setup({"kind": "scripted"}, "", Limits(), LEASE_S))
    while not done >= set(range(n)) or still_to_serve:
        if not todo and still_to_serve:
            todo.append(next(tasks))
        for worker in transport.idle()[: len(todo)]:
            running[worker] = todo.popleft()
            transport.send(worker, running[worker])
        for message in transport.receive(1.0):
            worker = message.worker
            match message:
                case Hello():
                    say(hello=worker)
                    pids[worker] = message.pid
                    if how.get(worker) == "large":
                        os.kill(message.pid, signal.SIGSTOP)
                case Progress() if message.phase == "begin" and worker not in begun:
                    begun.add(worker)
                    if how.get(worker) in ("far", "pause"):
                        os.kill(pids[worker], signal.SIGSTOP)
                    if how.get(worker) == "busy":
                        time.sleep(1.5 * LEASE_S)
                case Finished() if worker in running:
                    if worker in gone:
                        still_to_serve.discard(worker)
                    del running[worker]
                    done.add(message.trial)
                case Finished():
                    say(late=message.trial, worker=worker)
                case Gone():
                    say(gone=worker, message=message.message, expected=transport.expected())
                    gone.add(worker)
                    todo.appendleft(running.pop(worker))
                    if how.get(worker) == "pause":
                        os.kill(pids[worker], signal.SIGCONT)
    say(done=sorted(done))


if __name__ == "__main__":
    harmed = dict(enumerate(sys.argv[2:], start=1))
    if not mpi.is_master():
        mine = mpi.MPI.COMM_WORLD.Get_rank()
        work(harmed.get(mine, ""), mine)
    end_rank = launcher.end_rank
    launcher.end_rank = lambda number: harmed.get(number) != "far" and end_rank(number)
    end_of_rank_0 = mpi.MpiTransport()
    code = 1
    try:
        master(end_of_rank_0, int(sys.argv[1]), harmed)
        code = 0
    finally:
        end_of_rank_0.leave(code)
