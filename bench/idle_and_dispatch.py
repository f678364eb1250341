"""What an idle master costs, and what handing out a task costs, against peers in the same run.

    . jobs/env.sh; python bench/idle_and_dispatch.py [--repeats 3] [--libensemble PYTHON]

prints tables and writes bench/results/idle_and_dispatch.md. A task does nothing. `libensemble` is the Python
of an environment that has it, and mpi4py for the same MPI.

Ours is measured three times: the transport alone, rank to rank, as the peers are; with the evaluation process
that each worker supervises, which the peers do not have; and as a whole run, with its journal on the disk.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import deque
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":  # run as a file, by a Python that may know of no fractopt
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.dispatch_peers import MEASURES, PARAMS, SINGLE_TASKS, TASKS, timed
from bench.reference import reference_us

RESULTS = Path(__file__).parent / "results" / "idle_and_dispatch.md"
WORKERS = (2, 4, 8)
IDLE_S = 5.0
IDLE_WORKERS = RUN_WORKERS = 8
RUN_TASKS, WARM = 2000, 200
WANTED_US, WANTED_CPU_US = 100, 300
COMMAND = (sys.executable, str(Path(__file__).resolve()), "evaluate")
SYSTEMS = {
    "raw": "mpi4py: send, recv",
    "alone": "**fractopt, the transport alone**",
    "futures": "MPIPoolExecutor, submit as results arrive",
    "libensemble": "libEnsemble, one batch",
    "mpi": "fractopt over MPI, with evaluation processes",
    "processes": "fractopt over pipes, with evaluation processes",
}


def evaluate(argv: list[str]) -> int:
    from fractopt.parallel import evaluation
    from fractopt.trial import Outcome

    nothing = Outcome.of(0.5)
    return evaluation.main(argv, lambda spec: lambda task, report: nothing)


# --- ours


def answer_at_once() -> None:
    """Be a worker rank whose evaluation process takes no time, as it is not there."""
    from fractopt.parallel import rank
    from fractopt.parallel.message import Finished, FromWorker, Hello, Place, Setup, Task
    from fractopt.trial import Outcome

    nothing = Outcome.of(0.5)

    class Echo:
        closed = False

        def __init__(self, place: Place, setup: Setup, command: object) -> None:
            self.worker = place.worker
            hello = Hello(place.worker, platform.node(), os.getpid(), place.device, place.threads)
            self._said: list[FromWorker] = [hello]

        def start(self) -> None:
            pass

        def send(self, task: Task) -> None:
            self._said.append(Finished(self.worker, task.trial, task.attempt, nothing, 0.0))

        def poll(self) -> list[FromWorker]:
            said, self._said = self._said, []
            return said

        def filenos(self) -> list[int]:
            return []

        def deadline(self) -> float:
            return 0.0 if self._said else float("inf")

        def stop(self, grace_s: float) -> None:
            self.closed = True

    with patch.object(rank, "Supervisor", Echo), patch.object(rank, "end", lambda *_: None):
        rank.serve(())


def _ready(transport: Any, workers: int) -> None:
    from fractopt.parallel.message import Hello, Limits, Setup

    transport.start(Setup({}, "", Limits()))
    hellos = 0
    while hellos < workers:
        hellos += sum(isinstance(message, Hello) for message in transport.receive(1.0))


def measure_dispatch(transport: Any, workers: int) -> dict[str, Any]:
    from fractopt.parallel.message import Finished, Task

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
    return {"busy": timed(keep_busy, TASKS), "single": timed(one_at_a_time, SINGLE_TASKS)}


def measure_idle(transport: Any, workers: int) -> dict[str, Any]:
    _ready(transport, workers)
    time.sleep(0.5)
    cpu, started = time.process_time(), time.perf_counter()
    while time.perf_counter() < started + IDLE_S:
        transport.receive(1.0)
    share = (time.process_time() - cpu) / (time.perf_counter() - started)
    return {"idle_percent": 100 * share}


def measure_run(transport: Any, workers: int) -> dict[str, Any]:
    """A whole run of the real master: what it takes from the WARMth evaluation to the last one."""
    from fractopt.archive.manifest import Manifest
    from fractopt.archive.store import Archive
    from fractopt.master import Master
    from fractopt.optimizer.study import Study
    from fractopt.parallel.crew import Crew
    from fractopt.parallel.message import Limits, Setup
    from fractopt.space import Float, Space

    space = Space(*(Float(name, 0.0, 1.0) for name in PARAMS))
    manifest = Manifest(space.as_dict(), "random", 1, {}, 0, "minimize", (), None, {}, "value")
    syncs: list[float] = []
    marks: list[tuple[float, float, int, int]] = []
    fdatasync = os.fdatasync

    def timed_sync(handle: int) -> None:
        began = time.perf_counter()
        fdatasync(handle)
        syncs.append(time.perf_counter() - began)

    def mark(study: Study, crew: Crew) -> None:
        if study.told >= WARM and (
            not marks or marks[-1][2] < WARM + RUN_TASKS
        ):  # not what follows the search
            marks.append((time.process_time(), time.perf_counter(), study.told, len(syncs)))
            del marks[1:-1]

    with tempfile.TemporaryDirectory() as place, patch("os.fdatasync", timed_sync):
        archive = Archive.create(Path(place) / "run", manifest, "", {})
        study = Study(space, "random", WARM + RUN_TASKS, seed=0, record=archive.record)
        Master(study, transport, archive, Setup({}, "", Limits()), on_turn=mark).run()
        archive.close(complete=True, reason="")
    (cpu, wall, told, synced), (cpu_end, wall_end, told_end, synced_end) = marks
    tasks = told_end - told
    return {
        "us": 1e6 * (wall_end - wall) / tasks,
        "cpu_us": 1e6 * (cpu_end - cpu) / tasks,
        "syncs": (synced_end - synced) / tasks,
        "sync_ms": 1e3 * statistics.median(syncs),
    }


def role(name: str, workers: int) -> None:
    """One process of a measurement; whoever hands out tasks prints the figures as JSON."""
    what, _, how = name.rpartition("-")
    if how in MEASURES:
        figures = MEASURES[how](workers)
        if figures is not None:
            print(json.dumps(figures))
        return
    measure = {"": measure_dispatch, "idle": measure_idle, "run": measure_run}[what]
    if how == "processes":
        from fractopt.parallel.processes import ProcessesTransport

        processes = ProcessesTransport(workers, command=COMMAND)
        print(json.dumps(measure(processes, workers)))
        processes.close(5.0)
        return
    from fractopt.parallel import mpi, rank

    if not mpi.is_master():
        answer_at_once() if how == "alone" else rank.serve(COMMAND)
    transport = mpi.MpiTransport()
    print(json.dumps(measure(transport, workers)))
    transport.leave(0)


def run(name: str, workers: int, python: str = sys.executable) -> dict[str, Any]:
    command = [python, *(["-m", "mpi4py.futures"] if name == "futures" else [])]
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
    figures = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    assert isinstance(figures, dict)
    return figures


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(repeats: int, libensemble: str | None) -> None:
    collected: dict[tuple[str, int], list[dict[str, Any]]] = {}
    systems = [name for name in SYSTEMS if name != "libensemble" or libensemble is not None]
    references = [reference_us()]
    # The systems take turns, so that what else the machine does meets all of them.
    for turn in range(repeats):
        for workers in WORKERS:
            for name in systems:
                python = libensemble if name == "libensemble" and libensemble else sys.executable
                collected.setdefault((name, workers), []).append(run(name, workers, python))
        for name in ("idle-mpi", "idle-processes", "run-mpi", "run-processes"):
            collected.setdefault((name, RUN_WORKERS), []).append(run(name, RUN_WORKERS))
        references.append(reference_us())
        print(f"{turn + 1} of {repeats}", file=sys.stderr, flush=True)

    def least(name: str, workers: int, how: str, what: str = "us") -> float:
        return min(figures[how][what] for figures in collected[name, workers])

    def cell(name: str, workers: int, how: str, what: str) -> str:
        middle = statistics.median(figures[how][what] for figures in collected[name, workers])
        return f"{least(name, workers, how, what):.0f} ({middle:.0f})"

    def rows(how: str, what: str = "us") -> list[str]:
        measured = [name for name in systems if how in collected[name, WORKERS[0]][0]]
        return [_row([SYSTEMS[n], *(cell(n, w, how, what) for w in WORKERS)]) for n in measured]

    def ratio(how: str, peer: str) -> str:
        cells = [f"{least('alone', n, how) / least(peer, n, how):.2f}" for n in WORKERS]
        return _row([f"the transport alone : {SYSTEMS[peer]}", *cells])

    def of_run(name: str) -> str:
        found = collected[name, RUN_WORKERS]
        syncs, ms = (statistics.median(f[k] for f in found) for k in ("syncs", "sync_ms"))
        us, cpu = (
            f"{min(f[k] for f in found):.0f} ({statistics.median(f[k] for f in found):.0f})"
            for k in ("us", "cpu_us")
        )
        where = "MPI" if name == "run-mpi" else "pipes"
        return _row([f"over {where}", us, cpu, f"{syncs:.2f}", f"{ms:.1f}"])

    def idle(name: str) -> str:
        found = [figures["idle_percent"] for figures in collected[name, IDLE_WORKERS]]
        return f"{statistics.median(found):.2f} % (highest {max(found):.2f} %)"

    option = "" if libensemble is None else " --libensemble PYTHON"
    head = [_row(["", *(f"{n} workers" for n in WORKERS)]), "|---" * (1 + len(WORKERS)) + "|"]
    lines = [
        "# Idle master and dispatch",
        "",
        f"`python bench/idle_and_dispatch.py --repeats {repeats}{option}`, {time.strftime('%Y-%m-%d')}, "
        f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[1]:.1f}, "
        f"Python {platform.python_version()}. The least of {repeats} runs, in brackets their median: other",
        f"guests of the host come and go. A small json.dumps took {min(references):.1f} to "
        f"{max(references):.1f} us meanwhile; 3.3 in the quietest moment seen here.",
        "",
        f"Idle master, {IDLE_WORKERS} workers, {IDLE_S:g} s, share of a core from CPU counters: "
        f"over MPI {idle('idle-mpi')}, over pipes {idle('idle-processes')}.",
        "",
        f"Microseconds per task that does nothing, every worker kept busy, {TASKS} tasks. The transport",
        "alone is answered by the worker rank itself, as the peers are; with evaluation processes each task",
        "crosses to a supervised process, which may die without taking the rank along, and back.",
        "",
        *head,
        *rows("busy"),
        *(ratio("busy", peer) for peer in systems if peer in MEASURES),
        "",
        "Of these, microseconds of CPU of the process that hands the tasks out:",
        "",
        *head,
        *rows("busy", "cpu_us"),
        "",
        f"Microseconds from sending one task to its result, nothing else going on, {SINGLE_TASKS} tasks.",
        "",
        *head,
        *rows("single"),
        "",
        f"A run of {RUN_TASKS} such evaluations by {RUN_WORKERS} workers, `random`, the journal on this",
        "machine's disk, microseconds an evaluation. Over pipes the master's process is also the one that",
        "supervises the evaluation processes.",
        "",
        _row(["", "wall", "CPU of the master", "calls of fdatasync", "ms each"]),
        "|---" * 5 + "|",
        of_run("run-mpi"),
        of_run("run-processes"),
        "",
        f"Wanted: {WANTED_US} us for the transport alone with 8 workers, {WANTED_CPU_US} us of the master's",
        "CPU for an evaluation with its journal, an idle master under 3 % of a core.",
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
        parser.add_argument("--libensemble", metavar="PYTHON")
        given = parser.parse_args()
        main(given.repeats, given.libensemble)
