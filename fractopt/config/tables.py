"""The shape of a configuration file: its tables, their keys and ranges.

Space, default and objective are only found here to be tables; `read` looks into them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from fractopt.optimizer.replicates import CANDIDATES, check_replicates
from fractopt.optimizer.study import UNBOUNDED
from fractopt.parallel.lease import LEASE_S, SHORTEST_S
from fractopt.space import Value
from fractopt.units import seconds, size

SCHEMA = 1


Duration = Annotated[float, BeforeValidator(seconds)]
Size = Annotated[int, BeforeValidator(size)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Table(BaseModel):
    """A table of the file: strict about types, and without any key it does not know."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class RunTable(Table):
    """[run]. `budget` counts evaluations, the anchors and the replicates among them.

    `replicates` is how many of them, as a count or as a share of the budget, repeat the best
    configurations in the end; `candidates` how many of these are compared at a time.
    """

    budget: Annotated[int, Field(ge=1, le=UNBOUNDED)]
    seed: Count = 0
    anchors: tuple[Literal["base", "default"], ...] = ()
    replicates: int | float = 0
    candidates: Annotated[int, Field(ge=1)] = CANDIDATES
    walltime: Duration | Literal["auto"] | None = None

    @field_validator("anchors")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("expected each anchor once")
        return value

    @field_validator("replicates", mode="before")
    @classmethod
    def _count_or_share(cls, value: object) -> object:
        check_replicates(value)
        return value


class OptimizerTable(Table):
    name: str
    settings: dict[str, Any] = {}


class TestTable(Table):
    """[test]: metrics the optimizer never sees."""

    __test__ = False

    metrics: tuple[str, ...] = ()
    when: Literal["never", "finalists", "all"] = "finalists"
    finalists: Annotated[int, Field(ge=1)] = 3


class FailedTable(Table):
    retry: Count = 1
    then: Literal["drop", "penalise", "abort"] = "drop"


class KilledTable(Table):
    retry: Count = 2


class AbortTable(Table):
    rate: Share = 0.5
    after: Annotated[int, Field(ge=1)] = 10


class StopTable(Table):
    """[stop]: when the search ends before its budget; replicates and tests still follow.

    At the first value as good as `target`, or after `patience` evaluations that bring no better one.
    """

    target: Number | None = None
    patience: Annotated[int, Field(ge=1)] | None = None


class FailureTable(Table):
    """[failure]. `memory` is what the processes of one evaluation may hold together."""

    timeout: Duration | None = None
    stall_timeout: Duration | None = None
    memory: Size | None = None
    oom: Literal["halve-micro-batch"] = "halve-micro-batch"
    failed: FailedTable = FailedTable()
    killed: KilledTable = KilledTable()
    abort_above: AbortTable = AbortTable()


class WorkersTable(Table):
    """[workers]. After `lease` without a word of a rank, what it does is done elsewhere.

    Where a node has fewer GPUs than its workers need, some share one; unless `share_gpus` is false, then
    the workers that are too many get nothing to do.
    """

    gpus_per_worker: Annotated[int, Field(ge=1, le=64)] = 1
    share_gpus: bool = True
    cpus: Literal["share"] = "share"
    reuse_process: bool = True
    lease: Duration = LEASE_S

    @field_validator("lease")
    @classmethod
    def _can_be_renewed(cls, value: float) -> float:
        if value < SHORTEST_S:
            raise ValueError(f"a rank says something each second: expected {SHORTEST_S:g} s or more")
        return value


KEEP_ADAPTERS = 3  # as many as there are finalists


class OutputTable(Table):
    """[output]: of how many of the best evaluations the adapter stays on the disk, 0 for none."""

    keep_adapters: Count | None = None


class TrustTable(Table):
    """[trust]: `code = true` allows the objective to import and run Python code of your own."""

    code: bool = False


class File(Table):
    """The whole file, as far as its shape goes; space, default and objective are looked at by hand."""

    schema_: Annotated[int, Field(alias="schema")] = SCHEMA
    run: RunTable
    optimizer: OptimizerTable
    space: dict[str, Any]
    objective: dict[str, Any]
    default: dict[str, Value] | None = None
    test: TestTable = TestTable()
    stop: StopTable = StopTable()
    failure: FailureTable = FailureTable()
    workers: WorkersTable = WorkersTable()
    output: OutputTable = OutputTable()
    trust: TrustTable = TrustTable()

    @field_validator("schema_")
    @classmethod
    def _known_schema(cls, value: int) -> int:
        if value != SCHEMA:
            raise ValueError(f"this version reads schema {SCHEMA}")
        return value
