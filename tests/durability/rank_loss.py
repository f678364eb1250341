"""Runs of 8 worker ranks under mpirun --with-ft ulfm that lose 3 of them at random instants.

Most are killed by SIGKILL, which MPI reports. In every other run one of the three is lost without its
knowledge: it exits with an error, or is stopped by SIGSTOP for ever. Every other four runs talk by TCP, as
ranks on different nodes may; there the end of a connection tells of the exit too. After each run its archive
is read: whether it is complete, what was told how often, when which attempt was given up, when it was closed.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from figure import Figure
from processes import ranks as ranks_of
from processes import wait_until_gone
from ranks import Job

from fractopt.archive.history import History
from fractopt.archive.store import load
from fractopt.trial import Told

SCRIPT = Path(__file__).with_name("failing_fractopt.py")
WORKERS, LOST, BUDGET = 8, 3, 120
RUNS, FULL_RUNS = 2, 82
KILL, EXIT, STOP = signal.SIGKILL, signal.SIGALRM, signal.SIGSTOP
HARM_WITHIN_S = 5.0  # of the first record: most of such a run
TOLD_S = 5.0
RETURN_S = 20.0
HANGS_S = 90.0
LEASE_S = 4.0
CONFIG = f"""
[run]
budget = 1
[optimizer]
name = "soo"
[space]
x = {{ type = "float", low = -5, high = 5 }}
y = {{ type = "float", low = -5, high = 5 }}
[objective]
kind = "synthetic"
function = "himmelblau"
sleep = 0.2
[workers]
lease = {LEASE_S}
"""


@dataclass
class Run:
    """What came of one run."""

    breaches: list[str] = field(default_factory=list)
    harmed: dict[int, tuple[signal.Signals, float]] = field(default_factory=dict)  # by rank: what, when (UTC)
    told: list[int] = field(default_factory=list)  # each evaluation as often as it was told
    noticed_s: dict[int, float] = field(default_factory=dict)  # by rank, where it had an attempt to lose
    returned_s: float = 0.0  # from the closed archive to mpirun's return


def prove(full: bool) -> Iterator[Figure]:
    rng = random.Random(6)
    runs = []
    for number in range(FULL_RUNS if full else RUNS):
        signals = [KILL] * LOST
        if number % 2:
            signals[-1] = (EXIT, STOP)[number // 2 % 2]
        with tempfile.TemporaryDirectory() as folder:
            runs.append(lose_ranks(Path(folder), signals, rng, tcp=bool(number // 4 % 2)))
        print(f"  {number}: {'; '.join(runs[-1].breaches) or 'holds'}", flush=True)
    yield from figures(runs)


def figures(runs: Sequence[Run]) -> Iterator[Figure]:
    harms = [number for run in runs for number, _ in run.harmed.values()]
    kinds = {KILL: "killed", EXIT: "exited with an error", STOP: "stopped for ever"}
    seen = [f"{harms.count(number)} {kind}" for number, kind in kinds.items()]
    seen += [breach for run in runs for breach in run.breaches][:1]
    yield Figure(
        f"a run that loses {LOST} of {WORKERS} ranks meets its budget; mpirun returns; no process is left",
        len(runs),
        sum(bool(run.breaches) for run in runs),
        ", ".join(seen),
    )
    told = [(run, number) for run in runs for number in set(run.told)]
    twice = sum(run.told.count(number) != 1 for run, number in told)
    yield Figure("every evaluation is told once", len(told), twice)
    limits_s = {
        f"a rank that MPI reports as lost is noticed within {TOLD_S:g} s": (TOLD_S, (KILL,)),
        f"any other within its lease, here {LEASE_S:g} s, and 1 s": (LEASE_S + 1.0, (EXIT, STOP)),
    }
    for claim, (limit_s, numbers) in limits_s.items():
        found = [s for run in runs for rank, s in run.noticed_s.items() if run.harmed[rank][0] in numbers]
        yield Figure(claim, len(found), sum(s > limit_s for s in found), _spread(found))
    returned = [run.returned_s for run in runs if run.returned_s]
    claim = f"mpirun returns within {RETURN_S:g} s of the closed archive"
    yield Figure(claim, len(returned), sum(s > RETURN_S for s in returned), _spread(returned))


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none was seen"
    return f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"


def lose_ranks(
    folder: Path,
    signals: Sequence[signal.Signals],
    rng: random.Random,
    workers: int = WORKERS,
    budget: int = BUDGET,
    within_s: float = HARM_WITHIN_S,
    tcp: bool = False,
) -> Run:
    """One run in `folder`, in which ranks drawn by `rng` get `signals` at instants drawn too.

    The instants lie within `within_s` seconds of the first record.
    """
    run = Run()
    config, directory = folder / "run.toml", folder / "run"
    config.write_text(CONFIG)
    victims = rng.sample(range(1, workers + 1), len(signals))
    instants = [rng.uniform(0.0, within_s) for _ in signals]
    arguments = (str(config), "--out", str(directory), "--budget", str(budget))
    options = ("--with-ft", "ulfm", *(("--mca", "btl", "tcp,self") if tcp else ()))
    job = Job(1 + workers, SCRIPT, *arguments, options=options)
    try:
        began = _first_record(job, directory)
        for instant, victim, number in sorted(zip(instants, victims, signals, strict=True)):
            time.sleep(max(0.0, began + instant - time.monotonic()))
            if (pid := ranks_of(job.mark).get(victim)) is not None:
                with suppress(ProcessLookupError):  # the run ended meanwhile
                    os.kill(pid, number)
                    run.harmed[victim] = number, time.time()
        _, log = job.process.communicate(timeout=HANGS_S)
        returned = time.time()
        wait_until_gone(job.mark)
        history = load(directory)
        _read(history, run)
        run.returned_s = returned - history.records[-1]["time"]
        assert history.complete, f"the run is not complete: {log[-500:]}"
        assert len(set(run.told)) == budget, f"{len(set(run.told))} evaluations, the budget is {budget}"
        status = [sys.executable, "-m", "fractopt", "status", str(directory), "--check"]
        code = subprocess.run(status, capture_output=True, check=False).returncode
        assert code == 0, f"status --check exits with {code}"
    except (AssertionError, subprocess.TimeoutExpired) as breach:
        run.breaches.append(str(breach))
    finally:
        if job.process.poll() is None:
            job.kill()
            job.process.communicate()
    return run


def _first_record(job: Job, directory: Path) -> float:
    """When the journal was there, on the monotonic clock: all ranks have then met in MPI_Init."""
    until = time.monotonic() + HANGS_S
    while not list(directory.glob("journal/*.wal")):
        if job.process.poll() is not None:
            raise AssertionError(f"the run ended before it began: {job.process.communicate()[1][-500:]}")
        assert time.monotonic() < until, "the run did not begin"
        time.sleep(0.02)
    return time.monotonic()


def _read(history: History, run: Run) -> None:
    """What the archive knows of the run: what was told, and when which rank was given up."""
    for event in history.events:
        if isinstance(event, Told):
            run.told += event.ids.tolist()
    at: dict[tuple[int, int], int] = {}
    for record in history.records:
        kind = record.get("record")
        if kind == "started":
            at[record["trial"], record["attempt"]] = record["worker"]
        elif kind == "ended" and record["how"] == "lost":
            rank = at[record["trial"], record["attempt"]]
            assert rank in run.harmed, f"rank {rank} was given up and nothing had happened to it"
            run.noticed_s[rank] = record["time"] - run.harmed[rank][1]
