"""The shape of an allocation: nodes, GPUs and time, as a scheduler is asked for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from fractopt.report.bill import counted, duration

if TYPE_CHECKING:
    from fractopt.config.read import Config

SCHEDULERS = ("oar", "slurm")
NOTICE_S = 120  # before the end of the walltime: a stop takes seconds, SLURM is a minute early
NODES, GPUS, WALLTIME = 1, 4, "12h"  # where nothing is said


@dataclass(frozen=True)
class Allocation:
    """`nodes` with `gpus` each, `each` of them a worker's, for `walltime_s` seconds, of a `scheduler`."""

    scheduler: str
    nodes: int
    gpus: int
    walltime_s: int
    each: int = 1

    @classmethod
    def of(cls, scheduler: str, nodes: int, gpus: int, walltime: str, each: int = 1) -> Allocation:
        """Raises UsageError for a walltime that is none, or too short, and for GPUs that are left over."""
        from fractopt.units import seconds

        try:
            total_s = int(seconds(walltime))
        except ValueError as error:
            raise click.UsageError(f"--walltime: {error}") from None
        if total_s <= 2 * NOTICE_S:
            raise click.UsageError(
                f"--walltime: expected more than {2 * NOTICE_S // 60} minutes, got {walltime}"
            )
        if gpus % each:
            raise click.UsageError(
                f"--gpus: {gpus} GPUs of a node cannot be shared out {each} to a worker "
                "(workers.gpus_per_worker)"
            )
        return cls(scheduler, nodes, gpus, total_s, each)

    def __str__(self) -> str:
        shape = f"{counted(self.nodes, 'node')} of {counted(self.gpus, 'GPU')}"
        return f"{self.scheduler}: {shape}, jobs of {duration(self.walltime_s)}: {self.workers} workers"

    @property
    def workers(self) -> int:
        return self.nodes * (self.gpus // self.each)

    def cuts_off(self, checked: Config) -> str:
        """Why an evaluation that is allowed to last could never be finished, in words; "" if it could."""
        longest_s = checked.limits.timeout_s
        if longest_s is None or longest_s <= self.walltime_s - NOTICE_S:
            return ""
        return (
            f"--walltime: an evaluation may last {duration(longest_s)} (failure.timeout), and one that "
            f"does would be cut off by every job of {duration(self.walltime_s)}; give a longer walltime "
            "or a shorter timeout"
        )
