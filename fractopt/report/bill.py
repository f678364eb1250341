"""What a run will cost, before it begins: waves, jobs, hours, by what one evaluation takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Seconds of one evaluation, from `source`; `startup` comes before a worker's first one in every job, and
    `last` is what the end of a run takes of each of its finalists, where that is known."""

    evaluation: float
    source: str
    startup: float = 0.0
    last: float | None = None


@dataclass(frozen=True)
class Bill:
    """The cost of `evaluations` on `workers`, each with a GPU or more, by `times`, None where nobody knows.

    The search is asynchronous: with equal durations it takes as long as its waves. At its end `finalists` are
    looked at once more. A job leaves `usable_s` seconds, None for no end, and begins no evaluation that would
    be cut off.
    """

    evaluations: int
    finalists: int
    workers: int
    times: Times | None
    usable_s: float | None = None
    gpus_per_worker: int = 1

    @property
    def waves(self) -> int:
        return math.ceil(self.evaluations / self.workers)

    def cost(self) -> Cost | None:
        """None where the times are not known, or no evaluation fits into a job."""
        times = self.times
        if times is None:
            return None
        per_job = self.waves
        if self.usable_s is not None:
            per_job = min(per_job, int((self.usable_s - times.startup) / times.evaluation))
        if per_job < 1:
            return None
        jobs = math.ceil(self.waves / per_job)
        last = times.last or 0.0
        makespan = jobs * times.startup + self.waves * times.evaluation
        makespan += math.ceil(self.finalists / self.workers) * last
        busy = self.evaluations * times.evaluation + self.finalists * last
        held = self.workers * makespan
        return Cost(jobs, per_job, makespan, self.gpus_per_worker * held, min(1.0, busy / held))

    def warnings(self) -> Iterator[str]:
        rest = self.evaluations % self.workers
        if self.workers > self.evaluations:
            idle = self.workers - self.evaluations
            evaluations = counted(self.evaluations, "evaluation")
            gpus = counted(self.gpus_per_worker * idle, "GPU")
            yield f"{self.workers} workers for {evaluations}: {gpus} would do nothing"
        elif rest and self.waves <= 10:
            last = counted(rest, "evaluation")
            yield (
                f"the last of {self.waves} waves has {last} for {self.workers} workers: a budget of "
                f"{self.evaluations + self.workers - rest} takes no longer"
            )
        if self.times is not None and self.usable_s is not None and self.cost() is None:
            takes = duration(self.times.startup + self.times.evaluation)
            yield (
                f"no evaluation fits into a job: one takes {takes} with its start-up, a job leaves "
                f"{duration(self.usable_s)}; give a longer walltime"
            )


@dataclass(frozen=True)
class Cost:
    """`jobs` that finish at most `per_job` waves each. `makespan` is the time in jobs from the first start to
    the end, `held` that of all GPUs together, in seconds, `busy` the share of it that evaluations take."""

    jobs: int
    per_job: int
    makespan: float
    held: float
    busy: float


def bill_lines(bill: Bill) -> Iterator[str]:
    """The bill for people."""
    times, cost = bill.times, bill.cost()
    if times is not None:
        startup = f", after {duration(times.startup)} of start-up in each job" if times.startup >= 1 else ""
        yield f"evaluation {duration(times.evaluation)} ({times.source}){startup}"
    last = f", then {bill.finalists} configurations once more" if bill.finalists else ""
    waves = f"{counted(bill.waves, 'wave')} of {bill.workers}"
    yield f"run        {counted(bill.evaluations, 'evaluation')} in {waves}{last}"
    if times is not None and cost is not None:
        jobs = f" in {cost.jobs} jobs of at most {cost.per_job} waves" if cost.jobs > 1 else ""
        unknown = " and that of the last configurations" if bill.finalists and times.last is None else ""
        yield f"makespan   {duration(cost.makespan)}{jobs}, without the time in queues{unknown}"
        yield f"GPU hours  {cost.held / 3600:.3g}, of which evaluations take {cost.busy:.0%}"


def duration(seconds: float) -> str:
    """A time in the unit in which it is said."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
