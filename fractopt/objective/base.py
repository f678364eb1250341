"""The contract of an objective: one configuration in, one outcome out.

An objective lives in an evaluation process and is built once there from its settings, so that it
can keep what is dear (a model, tokenised data) between evaluations. It knows nothing of the search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from fractopt.space import Space, Value
from fractopt.trial import Kind, Outcome, Part

# In an evaluation's directory: what a later attempt at it goes on from. Removed when its outcome stands.
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Incumbent:
    """The best configuration when an evaluation was sent out: trial `id`, whose files are in `directory`."""

    id: int
    directory: Path


@dataclass(frozen=True)
class Evaluation:
    """What an objective is asked for.

    `params` are native values, empty for the base model. `directory` is the evaluation's own, and `shared`
    that of all evaluations of its run: they exist and may be written to; None where a caller keeps no files.
    `parts` is what is asked for: without `Part.SEARCH` the outcome's value is told to nobody. `seed` is what
    a replicate differs in from the evaluation it repeats: it must be used where `kind.is_replicate`, whatever
    else a user has fixed.

    `keep`, where there is one, takes the weights that an evaluation which ends ok has made, and returns when
    they are durable; it raises OSError. `kept` is what an earlier evaluation of this trial gave to it, for
    one without `Part.SEARCH` that need not make them again.

    Against `incumbent`, where there is one, the evaluation may be given up as a clear loser: as `pruned`,
    with a value worse than the incumbent's.
    """

    id: int
    kind: Kind
    params: Mapping[str, Value]
    seed: int
    attempt: int = 0
    directory: Path | None = None
    parts: tuple[Part, ...] = (Part.SEARCH,)
    keep: Callable[[bytes], None] | None = None
    kept: bytes | None = None
    incumbent: Incumbent | None = None
    shared: Path | None = None

    @property
    def test(self) -> bool:
        """Whether the test metrics are asked for, which the optimizer never sees."""
        return Part.TEST in self.parts


class Report(Protocol):
    """Called by an objective as it goes on: a sign of life for `stall_timeout` and for `status`."""

    def __call__(self, phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None: ...


class Objective(Protocol):
    """Evaluates configurations, one at a time.

    An exception becomes the outcome `failed`, MemoryError and torch's out-of-memory error become
    `oom`; a divergence is for the objective itself to report, as `diverged`. UnusableError says that no
    other evaluation would do better: the worker gets no more.
    """

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome: ...


class ObjectiveSettings(Protocol):
    """What a user may say about an objective: a frozen dataclass, importable without heavy packages.

    A field `metric` takes the name of what is optimised, a field `test_metrics` the names that [test] gives.
    `objective` is "module:Class" of what is called with these settings, in the evaluation process only;
    `runs_foreign_code` says that whatever they are, an evaluation executes code of the user's, as it does for
    every objective of another package. The class may be derived from this one, for what is not said below.
    """

    objective: ClassVar[str]
    runs_foreign_code: ClassVar[bool] = False

    @property
    def no_base(self) -> str:
        """Why there is no untuned model to evaluate, in words; "" where there is one."""
        return "it has none"

    @property
    def repeats_exactly(self) -> bool:
        """Whether a configuration has the same value whatever the seed: replicates tell nothing then."""
        return False

    @property
    def foreign_code(self) -> str:
        """What of the user's own code an evaluation executes, in words; "" for none. It needs trust.code."""
        return ""

    def mistakes(self, space: Space) -> list[str]:
        """What cannot work, beyond the ranges of single fields: one line each, such as "name: why".

        `name` is that of a parameter or of a field, or a dotted key that begins with "objective.".
        """
        return []

    def absences(self, thorough: bool = False) -> list[Absence]:
        """What this machine lacks to run it (a checkpoint, a data file).

        `thorough` also looks for what takes seconds to find out, and an evaluation process would find soon.
        """
        return []

    def fetch(self, say: Callable[[str], None], update: bool = False) -> None:
        """Bring to this machine what it lacks and a network has, and `say` what is done.

        With `update`, also newer versions of what is here. Raises UnusableError for what cannot be had.
        """
        say("this objective has nothing to fetch")

    def needs(self, space: Space) -> dict[str, str]:
        """What evaluations take of a device's "memory" and of the "disk", in words; what is not known is left
        out.
        """
        return {}

    def measure(self, params: Mapping[str, Value]) -> Measured:
        """What an evaluation of `params` takes on this machine, from a small part of one.

        Raises UnusableError where this objective has no parts, or cannot be set up.
        """
        raise UnusableError("this objective cannot be measured by a part of an evaluation: say --minutes")

    def pinned(self) -> ObjectiveSettings:
        """The same settings with what names stand for on this machine now: a branch becomes its commit.

        That is what a run is archived with and its evaluation processes are told, on every node.
        """
        return self


@dataclass(frozen=True)
class Absence:
    """Something that this machine lacks: `what`, in words, and the `command` that gets it.

    The command is "" where there is none; it names the configuration's file as CONFIG. `size` is what
    getting it writes to the disk, in bytes, 0 where nobody knows.
    """

    what: str
    command: str = ""
    size: int = 0

    def __str__(self) -> str:
        return f"{self.what}; run: {self.command}" if self.command else self.what


FETCH = "fractopt fetch CONFIG"


@dataclass(frozen=True)
class Measured:
    """What an evaluation takes on `device`, in seconds, extrapolated from `what` was measured, in words.

    `startup` comes once in an evaluation process, `training`, `scoring` and `other` in each evaluation; the
    scoring on what the search leaves out, `unseen`, and on the `test` metrics is for those it is asked of.
    `peak` is the largest memory in bytes, the device's where it has its own.
    """

    device: str
    what: str
    startup: float
    training: float
    scoring: float
    other: float
    unseen: float = 0.0
    test: float = 0.0
    peak: int = 0


def silent(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
    """A `Report` for callers that want none."""


class UnusableError(Exception):
    """The objective cannot be set up at all (no such model, a missing package): ends the run.

    Its text is shown to the user as it stands: what was expected, what was found, what to do.
    """


class AbsentError(UnusableError):
    """The objective cannot be set up because of what this machine lacks."""

    def __init__(self, absence: Absence) -> None:
        super().__init__(str(absence))
        self.absence = absence
