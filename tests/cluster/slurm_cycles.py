"""Whole lives of jobs on a real SLURM: submitted as a user would, interrupted, requeued, resumed, finished.

Each cycle raises AssertionError where a promise is broken, and returns what was seen in one line.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cycles import RUN, cut_short, everything_once, lines, places_of, prepare, print_script
from slurm import Slurm

from fractopt.archive.store import load

GONE_S = 15.0  # for all processes of a job to end after it
ARRAY = 3


def interrupted_by_its_walltime(slurm: Slurm, budget: int = 240) -> str:
    """Two nodes, 5 + 4 ranks: told that the walltime is over, requeued, resumed, finished."""
    folder = slurm.folder / "walltime"
    script = prepare(
        folder, "slurm", ["--nodes", "2", "--gpus", "4", "--cores", "3"], budget=budget, seconds=2.0
    )
    began = time.monotonic()
    number = slurm.submit(
        script,
        options=["--time=2", "--signal=B:USR1@60"],  # SLURM counts in minutes
        environment={"SHORTEST_S": "10"},
    )
    job = slurm.wait(number, ("COMPLETED",), within_s=420)
    took_s = time.monotonic() - began
    history = load(folder / RUN)
    requeues = int(job["Restarts"])
    output = (folder / f"cycle-{number}.out").read_text()
    assert requeues >= 1, "it was never interrupted"
    assert output.count("stopped by SIGUSR1") == requeues, output
    assert output.count("resuming runs/cycle: ") == requeues, output
    everything_once(history, folder, budget)
    for restart in ("", *map(str, range(1, requeues + 1))):
        places = places_of(folder, SLURM_RESTART_COUNT=restart)
        assert places == {(node, str(gpu)) for node in slurm.names for gpu in range(4)}, (restart, places)
    all_gone(slurm)
    return (
        f"{budget} evaluations of 2 s by 8 workers on 2 nodes x 4 GPUs; requeues, by the job itself: "
        f"{requeues}; {cut_short(history)} attempts cut short, no evaluation finished twice "
        f"or lost, every worker on its own device; {took_s:.0f} s in all"
    )


def node_dies(slurm: Slurm, budget: int = 60) -> str:
    """All of a node is killed at once and the node set down: the job is requeued on the other one."""
    number, folder, first, lost_s, _ = _lose_a_node(slurm, "power", signal.SIGKILL, budget)
    history = load(folder / RUN)
    everything_once(history, folder, budget)
    return (
        f"all processes of {first} killed, the node set down: job {number} resumed on the other node "
        f"{lost_s:.0f} s later by itself, {cut_short(history)} attempts lost and run again, "
        f"{budget} evaluations, none finished twice"
    )


def node_hangs(slurm: Slurm, budget: int = 60) -> str:
    """A node stops answering and comes back after its job went on elsewhere: the old master must yield."""
    number, folder, first, lost_s, asleep = _lose_a_node(slurm, "hang", signal.SIGSTOP, budget)
    before = (folder / RUN / "archive.h5").read_bytes()
    everything_once(load(folder / RUN), folder, budget)
    slurm.signal_node(first, signal.SIGCONT)
    until = time.monotonic() + 60
    while left := [pid for pid in slurm.of_jobs() if pid in asleep]:
        assert time.monotonic() < until, f"processes {left} of the lost node go on"
        time.sleep(0.5)
    assert (folder / RUN / "archive.h5").read_bytes() == before, "the old master wrote to the archive"
    everything_once(load(folder / RUN), folder, budget, late=True)
    return (
        f"all processes of {first} stopped, the node set down: job {number} took the LOCK over on the other "
        f"node {lost_s:.0f} s later by its restart count, though the old master still lived; that one, "
        "continued when all was done, wrote nothing and ended"
    )


def _lose_a_node(
    slurm: Slurm, name: str, number: signal.Signals, budget: int
) -> tuple[int, Path, str, float, list[int]]:
    """Lose the node of a running job, and wait until the job is complete on the other one."""
    folder = slurm.folder / name
    script = prepare(folder, "slurm", ["--gpus", "4", "--cores", "3"], budget=budget, seconds=2.0)
    job_number = slurm.submit(script)
    _until(lambda: len(lines(folder)) >= 12, 120, slurm)
    first = slurm.job(job_number)["BatchHost"]
    asleep = slurm.on_node(first)
    slurm.signal_node(first, number)
    lost = time.monotonic()
    said = slurm.run("scontrol", "update", f"nodename={first}", "state=down", "reason=lost")
    assert said.returncode == 0, said.stderr
    output = folder / f"cycle-{job_number}.out"
    _until(lambda: "resuming runs/cycle" in output.read_text(), 180, slurm)
    lost_s = time.monotonic() - lost
    job = slurm.wait(job_number, ("COMPLETED",), within_s=240)
    assert (job["Restarts"], job["BatchHost"] != first) == ("1", True), job
    assert {node for node, _ in places_of(folder, SLURM_RESTART_COUNT="1")} == {job["BatchHost"]}
    return job_number, folder, first, lost_s, asleep


def preempted(slurm: Slurm, budget: int = 80) -> str:
    """A job of a higher priority takes the nodes: SLURM requeues ours, which goes on when they are free."""
    folder = slurm.folder / "preempted"
    script = prepare(
        folder,
        "slurm",
        ["--nodes", "2", "--cores", "3", "--site", "--partition=low"],
        budget=budget,
        seconds=2.0,
    )
    number = slurm.submit(script)
    _until(lambda: len(lines(folder)) >= 12, 120, slurm)
    other = slurm.folder / "other.sh"
    other.write_text("#!/bin/bash\nsleep 5\n")
    asked = time.monotonic()
    taking = slurm.submit(other, options=["--nodes=2", "--gres=gpu:4"])
    slurm.wait(taking, ("RUNNING", "COMPLETING", "COMPLETED"), within_s=60)
    waited_s = time.monotonic() - asked
    job = slurm.wait(number, ("COMPLETED",), within_s=240)
    assert job["Restarts"] == "1", job
    output = (folder / f"cycle-{number}.out").read_text()
    assert output.count("resuming runs/cycle: ") == 1, output
    history = load(folder / RUN)
    everything_once(history, folder, budget)
    return (
        f"the other job had the nodes after {waited_s:.0f} s; ours was requeued by SLURM, resumed "
        f"and met its budget of {budget}, {cut_short(history)} attempts cut short, none twice"
    )


def cancelled(slurm: Slurm) -> str:
    """scancel: nothing is requeued, no process is left, a job of another shape goes on with the run."""
    folder = slurm.folder / "cancelled"
    script = prepare(folder, "slurm", ["--nodes", "2", "--cores", "3"], budget=10_000, seconds=1.0)
    number = slurm.submit(script, environment={"SHORTEST_S": "1"})
    _until(lambda: len(lines(folder)) >= 16, 120, slurm)
    asked = time.monotonic()
    slurm.run("scancel", str(number))
    job = slurm.wait(number, ("CANCELLED",), within_s=60)
    all_gone(slurm)
    gone_s = time.monotonic() - asked
    assert job["Restarts"] == "0", job
    history = load(folder / RUN)
    assert len(history.evaluations) >= 16
    check = [sys.executable, "-m", "fractopt", "status", str(folder / RUN), "--check"]
    code = subprocess.run(check, capture_output=True, check=False).returncode
    assert code == 75, code
    time.sleep(8.0)  # a requeued job would start after the 5 s of its credential
    assert slurm.job(number)["JobState"] == "CANCELLED"
    told = len(history.evaluations)
    budget = told + 16
    smaller = print_script(folder, "slurm", ["--gpus", "2", "--cores", "3"])
    slurm.wait(slurm.submit(smaller, str(RUN), "--budget", str(budget)), ("COMPLETED",), within_s=120)
    everything_once(load(folder / RUN), folder, budget)
    return (
        f"all processes of 9 ranks on 2 nodes gone {gone_s:.1f} s after scancel, not requeued, {told} "
        "evaluations in the archive, status --check says 75; a job of 3 ranks on 1 node went on with it"
    )


def array_of_seeds(slurm: Slurm, budget: int = 24) -> str:
    """One script, a job array: every task is a run of its own."""
    folder = slurm.folder / "array"
    script = prepare(folder, "slurm", ["--gpus", "2", "--cores", "3"], budget=budget, seconds=0.5)
    began = time.monotonic()
    number = slurm.submit(script, options=[f"--array=0-{ARRAY - 1}"])
    runs = [folder / f"{RUN}-seed{seed}" for seed in range(ARRAY)]

    def over() -> bool:
        said = slurm.run("squeue", "--noheader", f"--jobs={number}", "--states=PENDING,RUNNING,COMPLETING")
        return said.returncode == 0 and not said.stdout.strip()

    _until(over, 240, slurm)
    histories = [load(run) for run in runs]
    assert [history.complete for history in histories] == [True] * ARRAY
    assert [len(history.evaluations) for history in histories] == [budget] * ARRAY
    points = [tuple(row.params.values()) for history in histories for row in history.evaluations]
    assert len(set(points)) == ARRAY * budget, "two seeds gave the same point"
    took_s = time.monotonic() - began
    return f"{ARRAY} runs of {budget} evaluations each, side by side, in {took_s:.0f} s; no point twice"


CYCLES = (interrupted_by_its_walltime, node_dies, node_hangs, preempted, cancelled, array_of_seeds)


def all_gone(slurm: Slurm) -> None:
    """Wait until no process of a job is left."""
    until = time.monotonic() + GONE_S
    while left := slurm.of_jobs():
        assert time.monotonic() < until, f"processes {left} outlived their job\n{slurm.logs()}"
        time.sleep(0.1)


def _until(there: Callable[[], bool], within_s: float, slurm: Slurm) -> None:
    until = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < until, f"waited {within_s:.0f} s in vain\n{slurm.logs()}"
        time.sleep(0.2)
