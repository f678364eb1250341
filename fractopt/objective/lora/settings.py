"""What a user may say about a LoRA fine-tune: the [objective] table of a configuration.

Nothing here imports torch: the master reads these settings and never trains. Mistakes are said as in
`tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, Literal

from fractopt.objective.base import Absence, Measured, ObjectiveSettings, UnusableError
from fractopt.objective.lora import sizes
from fractopt.objective.lora.absences import (
    missing_data,
    missing_model,
    missing_packages,
    missing_questions,
    missing_room,
    wrong_data,
)
from fractopt.objective.lora.files import PACKAGED_DATA, PACKAGED_MODELS, PACKAGED_TASKS
from fractopt.objective.lora.hyperparameters import check_space
from fractopt.objective.lora.measure import measure
from fractopt.objective.lora.metrics import YAML, less_is_better, split_metric
from fractopt.objective.lora.model_files import find_checkpoint, model_version
from fractopt.objective.lora.records import data_version, find_data
from fractopt.objective.lora.tables import Data, Model, Score, Train
from fractopt.space import Space, Value

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class LoraSettings(ObjectiveSettings):
    """Everything the lora objective is told.

    `metric` is what the optimizer is told, `metrics` are recorded beside it, `test_metrics` it is never told.
    Each is "task/score": a task of lm-eval, the path of a task's YAML file, or one of the package's own
    ("tiny", "tiny-test", "catalogue", "catalogue-test"); and a score that the task gives each question, such
    as acc or acc_norm. `direction` is the search's.
    """

    metric: str
    model: Model
    data: Data
    train: Train = field(default_factory=Train)
    score: Score = field(default_factory=Score)
    metrics: tuple[str, ...] = ()
    test_metrics: tuple[str, ...] = ()
    direction: Direction = "maximize"
    objective: ClassVar[str] = "fractopt.objective.lora.objective:LoraObjective"

    def __post_init__(self) -> None:
        for name, metrics in self.named_metrics.items():
            for metric in metrics:
                try:
                    split_metric(metric)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        seen = [self.metric]
        for name in ("metrics", "test_metrics"):
            for metric in self.named_metrics[name]:
                if metric in seen:
                    raise ValueError(f"{name}: {metric!r} is named twice; expected each metric in one place")
                seen.append(metric)
        better = "minimize" if less_is_better(self.metric) else "maximize"
        if self.direction != better:
            raise ValueError(f"direction: expected {better!r} of {self.metric!r}, got {self.direction!r}")

    @property
    def named_metrics(self) -> dict[str, tuple[str, ...]]:
        """The metrics by the setting that names them."""
        return {"metric": (self.metric,), "metrics": self.metrics, "test_metrics": self.test_metrics}

    @property
    def no_base(self) -> str:
        return ""

    @property
    def foreign_code(self) -> str:
        # lm-eval imports the functions that a task's file names, from the files beside it.
        paths = [task for task in self.tasks if task.endswith(YAML)]
        return f"the task {' and '.join(paths)}" if paths else ""

    def mistakes(self, space: Space) -> list[str]:
        """What in `space` this objective cannot evaluate, one sentence each."""
        found = check_space(space, self.train.fixed)
        if wrong := wrong_data(self.data.name, self.data.path, self.data.revision, self.data.subset):
            found.append(f"objective.data: {wrong}")
        return found

    @property
    def tasks(self) -> list[str]:
        """The tasks of all metrics, each once."""
        named = (metric for metrics in self.named_metrics.values() for metric in metrics)
        return list(dict.fromkeys(split_metric(metric)[0] for metric in named))

    def pinned(self) -> LoraSettings:
        """The same settings with the versions of model and data that this machine has, where it has them."""
        model, data = self.model, self.data
        with suppress(UnusableError, OSError):
            if model.name not in PACKAGED_MODELS:
                found = find_checkpoint(model.name, model.path, model.revision)
                model = replace(model, revision=model_version(found) or model.revision)
        with suppress(UnusableError, OSError):
            if data.name not in PACKAGED_DATA:
                where = find_data(data.name, data.path, data.revision, data.subset)
                data = replace(data, revision=data_version(where))
        return replace(self, model=model, data=data)

    def fetch(self, say: Callable[[str], None], update: bool = False) -> None:
        from fractopt.objective.lora.fetch.fetch import alone, fetch  # not for the master

        tasks = [task for task in self.tasks if task not in PACKAGED_TASKS]
        with alone(say):
            fetch(self.model, self.data, tasks, say, update)
            if left := self.absences(thorough=True):
                raise UnusableError("\n".join(f"still missing: {absence.what}" for absence in left))
        say("all is here: runs of this configuration need no network")

    def needs(self, space: Space) -> dict[str, str]:
        model = self.model
        shape = sizes.shape(model.name, model.path, model.revision, model.architecture)
        return {} if shape is None else sizes.needs(shape, model.precision, space, self.train.fixed)

    def measure(self, params: Mapping[str, Value]) -> Measured:
        return measure({"kind": "lora", **asdict(self)}, params)

    def absences(self, thorough: bool = False) -> list[Absence]:
        """What this machine lacks to evaluate anything; `thorough` looks for all tasks' questions too."""
        found = missing_packages()
        found += missing_model(self.model.name, self.model.path, self.model.revision, self.model.architecture)
        found += missing_data(self.data.name, self.data.path, self.data.revision, self.data.subset)
        if thorough:
            found += missing_questions([task for task in self.tasks if task not in PACKAGED_TASKS])
        room = missing_room(sum(absence.size for absence in found))
        return [*found, *room]
