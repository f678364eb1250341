"""The contract of an objective: one configuration in, one outcome out.

An objective lives in an evaluation process and is built once there from its settings, so that it
can keep what is dear (a model, tokenised data) between evaluations. It knows nothing of the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fractopt.space import Space, Value
from fractopt.trial import Kind, Outcome


@dataclass(frozen=True)
class Evaluation:
    """What an objective is asked for.

    `params` are native values, empty for the base model. `directory` is the evaluation's own, it
    exists and may be written to; None where a caller keeps no files. `test` asks for the test
    metrics too, which the optimizer never sees. `seed` is what a replicate differs in from the evaluation
    it repeats: it must be used where `kind.is_replicate`, whatever else a user has fixed.
    """

    id: int
    kind: Kind
    params: Mapping[str, Value]
    seed: int
    attempt: int = 0
    directory: Path | None = None
    test: bool = False


class Report(Protocol):
    """Called by an objective as it goes on: a sign of life for `stall_timeout` and for `status`."""

    def __call__(self, phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None: ...


class Objective(Protocol):
    """Evaluates configurations, one at a time.

    An exception becomes the outcome `failed`, MemoryError and torch's out-of-memory error become
    `oom`; a divergence is for the objective itself to report, as `diverged`.
    """

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome: ...


class ObjectiveSettings(Protocol):
    """What a user may say about an objective: a frozen dataclass, importable without heavy packages."""

    @property
    def repeats_exactly(self) -> bool:
        """Whether a configuration has the same value whatever the seed: replicates tell nothing then."""
        ...

    @property
    def foreign_code(self) -> str:
        """What of the user's own code an evaluation executes, in words; "" for none. It needs trust.code."""
        ...

    def mistakes(self, space: Space) -> list[str]:
        """What cannot work whatever the machine, beyond the ranges of single fields: one line each."""
        ...

    def absences(self) -> list[str]:
        """What this machine lacks to run it (a checkpoint, a data file): one line each."""
        ...


def silent(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
    """A `Report` for callers that want none."""


class UnusableError(Exception):
    """The objective cannot be set up at all (no such model, a missing package): ends the run.

    Its text is shown to the user as it stands: what was expected, what was found, what to do.
    """
