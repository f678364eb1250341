"""What an idle master costs, and what handing out a task costs, against mpi4py.futures in the same run.

    . jobs/env.sh; python bench/idle_and_dispatch.py [--repeats 3]

prints a table and writes bench/results/idle_and_dispatch.md. A task does nothing. Ours travels from
the master to a worker, from there to the evaluation process, and back; mpi4py.futures calls the
function in the worker rank itself, and would go down with it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

from fractopt.parallel.message import Finished, Hello, Limits, Setup, Task
from fractopt.parallel.transport import Transport

RESULTS = Path(__file__).parent / "results" / "idle_and_dispatch.md"
WORKERS = (2, 4, 8)
TASKS = 2000
SINGLE_TASKS = 200
IDLE_S = 5.0
IDLE_WORKERS = 4
PARAMS = {"learning_rate": 1e-4, "rank": 16, "alpha": 32, "dropout": 0.1, "weight_decay": 1e-3}
COMMAND = (sys.executable, str(Path(__file__).resolve()), "evaluate")


def evaluate(argv: list[str]) -> int:
    from fractopt.parallel import evaluation
    from fractopt.trial import Outcome

    nothing = Outcome.of(0.5)
    return evaluation.main(argv, lambda spec: lambda task, report: nothing)


def _timed(run: Callable[[int], None], tasks: int) -> dict[str, float]:
    cpu, started = time.process_time(), time.perf_counter()
    run(tasks)
    seconds = time.perf_counter() - started
    return {"us": 1e6 * seconds / tasks, "cpu_us": 1e6 * (time.process_time() - cpu) / tasks}


def _ready(transport: Transport, workers: int) -> None:
    transport.start(Setup({}, "", Limits()))
    hellos = 0
    while hellos < workers:
        hellos += sum(isinstance(message, Hello) for message in transport.receive(1.0))


def measure_ours(transport: Transport, workers: int) -> dict[str, Any]:
    _ready(transport, workers)

    def keep_busy(tasks: int) -> None:
        todo = deque(Task(i, 0, "search", PARAMS, i) for i in range(tasks))
        done = 0
        while done < tasks:
            for worker in transport.idle()[: len(todo)]:
                transport.send(worker, todo.popleft())
            done += sum(isinstance(message, Finished) for message in transport.receive(1.0))

    def one_at_a_time(tasks: int) -> None:
        for i in range(tasks):
            transport.send(transport.idle()[0], Task(i, 0, "search", PARAMS, i))
            while not any(isinstance(message, Finished) for message in transport.receive(1.0)):
                pass

    keep_busy(100)
    return {"busy": _timed(keep_busy, TASKS), "single": _timed(one_at_a_time, SINGLE_TASKS)}


def measure_idle(transport: Transport, workers: int) -> dict[str, Any]:
    _ready(transport, workers)
    time.sleep(0.5)
    cpu, started = time.process_time(), time.perf_counter()
    while time.perf_counter() < started + IDLE_S:
        transport.receive(1.0)
    share = (time.process_time() - cpu) / (time.perf_counter() - started)
    return {"idle_percent": 100 * share}


def nothing(task: dict[str, Any]) -> float:
    return 0.5


def measure_futures(workers: int) -> dict[str, Any]:
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(workers) as executor:
        executor.bootup(wait=True)

        def keep_busy(tasks: int) -> None:
            """As a master does: as many tasks out as there are workers, a new one for each that is back."""
            todo = deque({**PARAMS, "id": i} for i in range(tasks))
            running: set[Future[float]] = set()
            while todo or running:
                while todo and len(running) < workers:
                    running.add(executor.submit(nothing, todo.popleft()))
                _, running = wait(running, return_when=FIRST_COMPLETED)

        def all_at_once(tasks: int) -> None:
            for _ in executor.map(nothing, [{**PARAMS, "id": i} for i in range(tasks)], chunksize=1):
                pass

        def one_at_a_time(tasks: int) -> None:
            for i in range(tasks):
                executor.submit(nothing, {**PARAMS, "id": i}).result()

        keep_busy(100)
        return {
            "busy": _timed(keep_busy, TASKS),
            "map": _timed(all_at_once, TASKS),
            "single": _timed(one_at_a_time, SINGLE_TASKS),
        }


def role(name: str, workers: int) -> None:
    """One process of a measurement; whoever hands out tasks prints the figures as JSON."""
    if name == "futures":
        print(json.dumps(measure_futures(workers)))
        return
    measure = measure_idle if name.startswith("idle") else measure_ours
    if name.endswith("processes"):
        from fractopt.parallel.processes import ProcessesTransport

        processes = ProcessesTransport(workers, command=COMMAND)
        print(json.dumps(measure(processes, workers)))
        processes.close(5.0)
        return
    from fractopt.parallel import mpi, rank

    if not mpi.is_master():
        rank.serve(COMMAND)
    transport = mpi.MpiTransport()
    print(json.dumps(measure(transport, workers)))
    transport.leave(0)


def run(name: str, workers: int) -> dict[str, Any]:
    command = [sys.executable, *(["-m", "mpi4py.futures"] if name == "futures" else [])]
    command += [str(Path(__file__).resolve()), "role", name, str(workers)]
    if not name.endswith("processes"):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        mpirun = shutil.which("mpirun", path=path)
        if mpirun is None:
            raise SystemExit("no mpirun found: pip install 'fractopt[mpi]'")
        command = [mpirun, "-n", str(workers + 1), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed; was jobs/env.sh sourced?\n{done.stderr}")
    figures = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(figures, dict)
    return figures


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(repeats: int) -> None:
    collected: dict[tuple[str, int], list[dict[str, Any]]] = {}
    # The systems take turns, so that what else the machine does meets all of them.
    for _ in range(repeats):
        for workers in WORKERS:
            for name in ("mpi", "processes", "futures"):
                collected.setdefault((name, workers), []).append(run(name, workers))
        for name in ("idle-mpi", "idle-processes"):
            collected.setdefault((name, IDLE_WORKERS), []).append(run(name, IDLE_WORKERS))

    def median(name: str, workers: int, how: str, what: str = "us") -> float:
        return statistics.median(figures[how][what] for figures in collected[name, workers])

    def row(title: str, name: str, how: str, what: str = "us") -> str:
        return _row([title, *(f"{median(name, n, how, what):.0f}" for n in WORKERS)])

    def ratio(how: str, against: str) -> str:
        return _row(
            ["**ours over MPI : MPIPoolExecutor**"]
            + [f"**{median('mpi', n, how) / median('futures', n, against):.2f}**" for n in WORKERS]
        )

    def idle(name: str) -> str:
        found = [figures["idle_percent"] for figures in collected[name, IDLE_WORKERS]]
        return f"{statistics.median(found):.2f} % (highest {max(found):.2f} %)"

    head = [_row(["", *(f"{n} workers" for n in WORKERS)]), "|---" * (1 + len(WORKERS)) + "|"]
    lines = [
        "# Idle master and dispatch",
        "",
        f"`python bench/idle_and_dispatch.py --repeats {repeats}`, {time.strftime('%Y-%m-%d')}, "
        f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[1]:.1f}, "
        f"Python {platform.python_version()}, median of {repeats}.",
        "",
        f"Idle master, {IDLE_WORKERS} workers, {IDLE_S:g} s, share of a core from CPU counters: "
        f"over MPI {idle('idle-mpi')}, over pipes {idle('idle-processes')}.",
        "",
        f"Microseconds per no-op task, every worker kept busy, {TASKS} tasks. Ours crosses to a supervised",
        "process that may die; mpi4py.futures calls the function in the rank itself.",
        "",
        *head,
        row("fractopt over MPI", "mpi", "busy"),
        row("fractopt over pipes", "processes", "busy"),
        row("MPIPoolExecutor, submit as results arrive", "futures", "busy"),
        row("MPIPoolExecutor, map of all at once", "futures", "map"),
        ratio("busy", "busy"),
        row("master CPU, fractopt over MPI", "mpi", "busy", "cpu_us"),
        row("master CPU, MPIPoolExecutor", "futures", "busy", "cpu_us"),
        "",
        f"Microseconds from sending one task to its result, nothing else going on, {SINGLE_TASKS} tasks.",
        "",
        *head,
        row("fractopt over MPI", "mpi", "single"),
        row("fractopt over pipes", "processes", "single"),
        row("MPIPoolExecutor", "futures", "single"),
        ratio("single", "single"),
        "",
    ]
    text = "\n".join(lines)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["evaluate"]:
        sys.exit(evaluate(sys.argv[2:]))
    if sys.argv[1:2] == ["role"]:
        role(sys.argv[2], int(sys.argv[3]))
    else:
        parser = ArgumentParser(description=__doc__)
        parser.add_argument("--repeats", type=int, default=3)
        main(parser.parse_args().repeats)
