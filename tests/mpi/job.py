"""A small master and its worker ranks, for tests that kill, crash and count.

    mpirun -n N python job.py SCENARIO TASKS

Rank 0 prints one JSON object a line: what it was told, and at the end what came of the tasks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path

from fractopt.parallel import launch

if sys.argv[1] == "absent":
    if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        sys.exit(1)
    launch.INIT_S = 2.0
launch.check_mpi()

from fractopt.parallel import mpi, rank  # noqa: E402
from fractopt.parallel.message import (  # noqa: E402
    Crashed,
    Ended,
    Finished,
    Gone,
    Hello,
    Limits,
    Setup,
    Task,
)

EVALUATING = Path(__file__).resolve().parents[1] / "parallel" / "evaluating.py"
VICTIM = 1  # the rank that comes to harm


def say(**record: object) -> None:
    print(json.dumps(record), flush=True)


def work(scenario: str) -> None:
    mine = mpi.MPI.COMM_WORLD.Get_rank()
    if scenario == "crash" and mine == VICTIM:

        def fail(*_: object) -> None:
            raise ZeroDivisionError("a mistake of ours")

        rank.Worker._obey = fail  # type: ignore[method-assign,assignment]
    if scenario == "kill" and mine == VICTIM:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
    rank.serve(command=(sys.executable, str(EVALUATING)))


def master(transport: mpi.MpiTransport, scenario: str, n: int) -> int:
    do, x = {"orphan": ("orphan", 600.0), "kill": ("sleep", 0.2)}.get(scenario, ("return", 1.0))
    transport.start(Setup({"kind": "scripted"}, "", Limits()))
    if scenario == "raise":
        raise RuntimeError("a mistake of the master's")
    todo = deque(Task(i, 0, "search", {"do": do, "x": x}, 0) for i in range(n))
    running: dict[int, Task] = {}
    done: set[int] = set()
    hellos = 0
    while len(done) < n or (scenario == "work" and hellos < transport.expected()):
        for worker in transport.idle()[: len(todo)]:
            running[worker] = todo.popleft()
            transport.send(worker, running[worker])
        for message in transport.receive(1.0):
            match message:
                case Hello():
                    hellos += 1
                    say(hello=message.worker, pid=message.pid, threads=message.threads)
                case Finished():
                    assert message.trial not in done
                    done.add(message.trial)
                    del running[message.worker]
                case Gone():
                    say(gone=message.worker, message=message.message, expected=transport.expected())
                    if message.worker in running:
                        todo.appendleft(running.pop(message.worker))
                case Ended():
                    say(ended=message.trial, how=message.how)
                case Crashed():
                    say(crashed=message.worker, host=message.host, traceback=message.traceback)
                    return 1
                case _:
                    if message.type == "progress" and message.phase == "begin":
                        say(running=message.trial)
    if scenario == "idle":
        before, started = time.process_time(), time.monotonic()
        while time.monotonic() < started + 3.0:
            transport.receive(1.0)
        say(idle_share=(time.process_time() - before) / (time.monotonic() - started))
    transport.close(5.0)
    say(done=sorted(done))
    return int(scenario) if scenario.isdigit() else 0


if __name__ == "__main__":
    if not mpi.is_master():
        work(sys.argv[1])
    end_of_rank_0 = mpi.MpiTransport()
    code = 1
    try:
        code = master(end_of_rank_0, sys.argv[1], int(sys.argv[2]))
    except Exception as error:
        say(raised=repr(error))
    finally:
        end_of_rank_0.leave(code)
