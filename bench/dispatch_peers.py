"""What handing out tasks that do nothing costs the peers of bench/idle_and_dispatch.py: one rank of a job.

Each `measure` is called by every rank and returns figures on rank 0 alone.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

PARAMS = {"learning_rate": 1e-4, "rank": 16, "alpha": 32, "dropout": 0.1, "weight_decay": 1e-3}
TASKS = 2000
SINGLE_TASKS = 200

Figures = dict[str, dict[str, float]]


def timed(run: Callable[[int], None], tasks: int) -> dict[str, float]:
    """Microseconds for each task: by the wall, and of this process's CPU."""
    cpu, started = time.process_time(), time.perf_counter()
    run(tasks)
    seconds = time.perf_counter() - started
    return {"us": 1e6 * seconds / tasks, "cpu_us": 1e6 * (time.process_time() - cpu) / tasks}


def measure_raw(workers: int) -> Figures | None:
    """mpi4py itself: pickled dictionaries, blocking sends and receives that spin."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.Get_rank() != 0:
        while (task := comm.recv(source=0)) is not None:
            comm.send({"id": task["id"], "value": 0.5}, 0)
        return None

    def keep_busy(tasks: int) -> None:
        todo = deque({**PARAMS, "id": i} for i in range(tasks))
        status = MPI.Status()
        for worker in range(1, workers + 1):
            comm.send(todo.popleft(), worker)
        for _ in range(tasks):
            comm.recv(source=MPI.ANY_SOURCE, status=status)
            if todo:
                comm.send(todo.popleft(), status.Get_source())

    def one_at_a_time(tasks: int) -> None:
        for i in range(tasks):
            comm.send({**PARAMS, "id": i}, 1)
            comm.recv(source=1)

    keep_busy(100)
    figures = {"busy": timed(keep_busy, TASKS), "single": timed(one_at_a_time, SINGLE_TASKS)}
    for worker in range(1, workers + 1):
        comm.send(None, worker)
    return figures


def nothing(task: dict[str, Any]) -> float:
    return 0.5


def measure_futures(workers: int) -> Figures | None:
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
            "busy": timed(keep_busy, TASKS),
            "map": timed(all_at_once, TASKS),
            "single": timed(one_at_a_time, SINGLE_TASKS),
        }


def measure_libensemble(workers: int) -> Figures | None:
    """One batch of points that are there before: nothing is generated, only handed out."""
    import numpy as np
    from libensemble.alloc_funcs.give_pregenerated_work import give_pregenerated_sim_work
    from libensemble.libE import libE
    from mpi4py import MPI

    def simulate(given: Any, _: Any, specs: Any) -> Any:
        found = np.zeros(len(given), dtype=specs["out"])
        found["f"] = 0.5
        return found

    points = np.zeros(TASKS, dtype=[("x", float, 5), ("sim_id", int), ("sim_started", bool)])
    points["sim_id"] = np.arange(TASKS)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)  # it writes there
        cpu = time.process_time()
        history, *_ = libE(
            sim_specs={"sim_f": simulate, "in": ["x"], "out": [("f", float)]},
            gen_specs={},
            exit_criteria={"sim_max": TASKS},
            alloc_specs={"alloc_f": give_pregenerated_sim_work},
            H0=points,
            libE_specs={
                "comms": "mpi",
                "disable_log_files": True,
                "disable_resource_manager": True,
                "save_H_and_persis_on_abort": False,
            },
        )
        cpu = time.process_time() - cpu
        os.chdir("/")
    if MPI.COMM_WORLD.Get_rank() != 0:
        return None
    seconds = float(history["sim_ended_time"].max() - history["sim_started_time"].min())
    return {"busy": {"us": 1e6 * seconds / TASKS, "cpu_us": 1e6 * cpu / TASKS}}


MEASURES: dict[str, Callable[[int], Figures | None]] = {
    "raw": measure_raw,
    "futures": measure_futures,
    "libensemble": measure_libensemble,
}
