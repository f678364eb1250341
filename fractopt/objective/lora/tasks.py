"""lm-eval's tasks by name, by the path of a YAML file, or from the package; loaded once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import lm_eval.tasks
from lm_eval.api.metrics import brier_score, mean
from lm_eval.tasks import TaskManager

from fractopt.objective.base import FETCH, UnusableError
from fractopt.objective.lora.catalogue.questions import FILES as CATALOGUE_TASKS
from fractopt.objective.lora.catalogue.questions import catalogue_task
from fractopt.objective.lora.files import PACKAGED_TASKS, TINY_DIRECTORY
from fractopt.objective.lora.metrics import YAML
from fractopt.objective.lora.tiny.questions import TinyTask

FEWSHOT_SEED = 1234  # lm-eval's own default
OUTPUT_TYPES = ("multiple_choice", "loglikelihood")

# What a task says of one question by a score's name -> the number whose mean over questions is the score.
OfOne: TypeAlias = Callable[[Any], float]


def load_tasks(name: str, shots: int, setting: str = "objective.metric") -> list[Any]:
    """The tasks that `name` stands for: one, or a group's members.

    Raises UnusableError, which blames `setting`, for an unknown task, for questions that are not on this
    machine, and for what this objective cannot score.
    """
    if name in PACKAGED_TASKS:
        tasks: list[Any] = [
            catalogue_task(name) if name in CATALOGUE_TASKS else TinyTask(name, TINY_DIRECTORY)
        ]
    else:
        try:
            loaded = manager_of(name).load([name])
        except KeyError as error:
            raise UnusableError(
                f"{setting}: lm-eval knows no task {name!r}; `lm-eval ls tasks` lists them, the path "
                f"of a task's YAML file does as well, and {', '.join(PACKAGED_TASKS)} come with this package"
            ) from error
        except Exception as error:  # the datasets package raises whatever its network layer raises
            raise UnusableError(
                f"{setting}: the questions of {name!r} cannot be loaded "
                f"({type(error).__name__}: {error}). A run downloads nothing; where there is a network, with "
                f"the same HF_HOME, run: {FETCH}"
            ) from error
        tasks = list(loaded["tasks"].values())
        group = loaded["groups"].get(name)
        if group is not None and not all(by.weight_by_size for by in group.aggregate_metric_list or ()):
            raise UnusableError(
                f"{setting}: the group {name!r} is the mean of its tasks, whatever their sizes; this "
                "objective takes means over questions: name one of its tasks"
            )
    for task in tasks:
        if task.OUTPUT_TYPE not in OUTPUT_TYPES or getattr(task, "MULTIMODAL", False):
            kind = "multimodal" if task.OUTPUT_TYPE in OUTPUT_TYPES else task.OUTPUT_TYPE
            raise UnusableError(
                f"{setting}: {task.task_name!r} is a {kind} task; this objective scores tasks of the kinds "
                f"{' and '.join(OUTPUT_TYPES)}, in which a model generates nothing"
            )
        # A task that fixes no shots in its own file is not overridden by lm-eval either.
        if shots and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=shots)
    return tasks


def scores_of_one(task: Any) -> dict[str, OfOne]:
    """The scores of `task` that are means over its questions."""
    found: dict[str, OfOne] = {}
    for score, aggregation in task.aggregation().items():
        if aggregation is mean:
            found[score] = float
        elif aggregation is brier_score:  # of many questions the mean of what it is of each
            found[score] = _brier_score_of_one
    return found


def _brier_score_of_one(item: Any) -> float:
    return float(brier_score([item]))


def manager_of(name: str) -> TaskManager:
    """A manager that knows `name`, with as few files indexed as will do: all of them take 8 CPU s."""
    if name.endswith(YAML):
        return TaskManager(include_defaults=False)
    root = Path(lm_eval.tasks.__file__).parent
    for folder in (name, name.split("_")[0]):
        if os.path.isdir(root / folder):
            manager = TaskManager(include_defaults=False, include_path=str(root / folder))
            if name in manager.all_tasks:
                return manager
    return TaskManager()
