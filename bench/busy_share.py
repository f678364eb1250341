"""How busy each optimizer keeps many workers whose evaluations differ in length, in virtual time.

    python bench/busy_share.py [--seeds 5] [--optimizers soo direct] [--limit-s 300]

prints tables and writes bench/results/busy_share.md. Every registered optimizer meets the same
durations, log-normal with sigma 0.5 and mean 1, drawn by trial number; `random`, which never has
anything to wait for, is what the others are measured by. No master and no archive: the loop below
does to the Study what the master does, and deciding takes no virtual time.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fractopt.objective.base import Evaluation, Report
from fractopt.objective.functions import Problem, find
from fractopt.optimizer import registry
from fractopt.optimizer.study import Study
from fractopt.parallel.message import Finished, Limits, Setup, Task
from fractopt.parallel.simulated import LogNormal, SimulatedTransport
from fractopt.trial import Outcome

RESULTS = Path(__file__).parent / "results" / "busy_share.md"
WORKERS = (8, 64, 512)
PER_WORKER = 20
SIGMA = 0.5
PEER = "random"
PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "Rastrigin 5-D, shifted": lambda seed: find("rastrigin").at(5, shift_seed=seed),
    "Hartmann 6": lambda seed: find("hartmann6").at(),
}


@dataclass(frozen=True)
class Run:
    """One run's figures; `cpu_us` is what ask and tell took for each evaluation."""

    evaluations: int
    share: float
    makespan: float
    cpu_us: float


def play(name: str, problem: Problem, workers: int, seed: int, limit_s: float) -> Run | None:
    """A run of `PER_WORKER` evaluations for each worker; None where deciding took over `limit_s` of CPU."""

    def evaluate(evaluation: Evaluation, report: Report) -> Outcome:
        return Outcome.of(problem(np.array([float(x) for x in evaluation.params.values()])))

    transport = SimulatedTransport(workers, LogNormal(1.0, SIGMA, seed), lambda spec: evaluate)
    study = Study(problem.space, name, workers * PER_WORKER, seed=seed)
    transport.start(Setup({}, "", Limits()))
    cpu = 0.0
    while not study.finished and (messages := transport.receive(1.0)):
        idle = transport.idle()
        began = time.process_time()
        for message in messages:
            if isinstance(message, Finished):
                study.tell(message.trial, message.outcome)
        trials = () if study.finished else study.ask(len(idle))
        cpu += time.process_time() - began
        if cpu > limit_s:
            return None
        for worker, trial in zip(idle, trials, strict=False):
            transport.send(worker, Task(trial.id, 0, trial.kind.value, trial.params, trial.seed))
    figures = transport.figures()
    share = figures.share_until_last_dispatch
    return Run(study.told, share, figures.last_end_s, 1e6 * cpu / max(study.told, 1))


def mean_and_error(numbers: list[float]) -> tuple[float, float]:
    error = statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan
    return statistics.fmean(numbers), error


class Table:
    """All runs: by (optimizer, problem, workers), one for each seed."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.runs: dict[tuple[str, str, int], list[Run | None]] = {}

    def rows(self, title: str, figure: Callable[[Run, Run], float], digits: int) -> list[str]:
        """A table of `figure`(run, the peer's run of the same problem and seed)."""
        lines = [f"| {title} | problem | " + " | ".join(f"{n} workers" for n in WORKERS) + " |"]
        lines.append("|---" * (2 + len(WORKERS)) + "|")
        for name, problem in dict.fromkeys((name, problem) for name, problem, _ in self.runs):
            cells = [self._cell(name, problem, n, figure, digits) for n in WORKERS]
            lines.append(f"| {name} | {problem} | " + " | ".join(cells) + " |")
        return [*lines, ""]

    def _cell(
        self, name: str, problem: str, workers: int, figure: Callable[[Run, Run], float], digits: int
    ) -> str:
        found: list[float] = []
        for run, peer in zip(
            self.runs[name, problem, workers], self.runs[PEER, problem, workers], strict=True
        ):
            if run is None or peer is None:
                return f"over {self.limit_s:g} s"
            found.append(figure(run, peer))
        mean, error = mean_and_error(found)
        return f"{mean:.{digits}f}" if math.isnan(error) else f"{mean:.{digits}f} ± {error:.{digits}f}"

    def of_the_peer(self) -> list[Run | None]:
        return [run for (name, *_), runs in self.runs.items() if name == PEER for run in runs]

    def short(self) -> list[str]:
        """The runs that ended before their budget."""
        lines = []
        for (name, problem, workers), runs in self.runs.items():
            told = [run.evaluations for run in runs if run is not None]
            if told and min(told) < workers * PER_WORKER:
                share = f"{min(told)} of {workers * PER_WORKER}"
                lines.append(f"- {name}, {problem}, {workers} workers: {share} evaluations.")
        return lines


def main(names: list[str], seeds: int, limit_s: float) -> None:
    command = f"python bench/busy_share.py --seeds {seeds}"
    if set(names) != set(registry.names()):
        command += f" --optimizers {' '.join(names[1:])}"
    began = time.process_time()
    table = Table(limit_s)
    for name in names:
        for problem, at in PROBLEMS.items():
            for workers in WORKERS:
                runs: list[Run | None] = []
                for seed in range(seeds):
                    late = bool(runs) and runs[-1] is None  # the other seeds would take as long
                    runs.append(None if late else play(name, at(seed), workers, seed, limit_s))
                table.runs[name, problem, workers] = runs
                print(name, problem, workers, runs, flush=True)
    short = table.short()
    if all(run is not None and run.share == 1.0 for run in table.of_the_peer()):
        ratios = [
            f"`{PEER}` never idles, so the ratios to it, on the same durations, are the same numbers.",
            "",
        ]
    else:
        ratios = [f"The same as a ratio to `{PEER}` on the same durations:", ""]
        ratios += table.rows(f"busy share : {PEER}", lambda run, peer: run.share / peer.share, 3)
    lines = [
        "# Busy share, in virtual time",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {platform.machine()}, "
        f"Python {platform.python_version()}, numpy {np.__version__}, load {os.getloadavg()[1]:.1f}; "
        f"{time.process_time() - began:.0f} s of CPU. Optimizers and their versions: "
        + ", ".join(f"{name} {registry.find(name).version}" for name in names)
        + ".",
        "",
        f"{PER_WORKER} evaluations for each worker, durations log-normal with sigma {SIGMA} and mean 1, the "
        f"same for every optimizer; mean and standard error over {seeds} seeds, each with durations, and for "
        "Rastrigin a shift, of its own. An error of 0 means that no seed differs.",
        "",
        "Share of the workers' time spent evaluating, until the last task was sent:",
        "",
        *table.rows("busy share", lambda run, peer: run.share, 3),
        *ratios,
        f"When the last evaluation ended, as a ratio to `{PEER}` (1.05 is 5 % later):",
        "",
        *table.rows(f"makespan : {PEER}", lambda run, peer: run.makespan / peer.makespan, 3),
        "CPU of deciding, `Study.ask` and `Study.tell` together, microseconds for each evaluation:",
        "",
        *table.rows("CPU, us", lambda run, peer: run.cpu_us, 0),
    ]
    if short:
        lines += [
            "Ended early, with nothing left to propose; their makespans are those of fewer evaluations:"
        ]
        lines += ["", *short, ""]
    text = "\n".join(lines)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--optimizers", nargs="*", default=[], help="these only, beside random")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit-s", type=float, default=300.0, help="CPU for the decisions of one run")
    given = parser.parse_args()
    wanted = given.optimizers or registry.names()
    main([PEER, *(name for name in wanted if name != PEER)], given.seeds, given.limit_s)
