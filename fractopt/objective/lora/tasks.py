"""lm-eval's tasks by name, by the path of a YAML file, or from the package; loaded once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager

from fractopt.objective.base import UnusableError
from fractopt.objective.lora.files import TINY_DIRECTORY
from fractopt.objective.lora.settings import YAML
from fractopt.objective.lora.tiny.questions import FILES as TINY_TASKS
from fractopt.objective.lora.tiny.questions import TinyTask

FEWSHOT_SEED = 1234  # lm-eval's own default


def load_tasks(name: str, shots: int) -> list[Any]:
    """The tasks that `name` stands for: one, or a group's members.

    Raises UnusableError for an unknown task, for questions that are not on this machine, and for a
    task that is no multiple choice.
    """
    if name in TINY_TASKS:
        tasks: list[Any] = [TinyTask(name, TINY_DIRECTORY)]
    else:
        try:
            tasks = list(manager_of(name).load([name])["tasks"].values())
        except KeyError as error:
            raise UnusableError(
                f"objective.metric: lm-eval knows no task {name!r}; `lm-eval ls tasks` lists them, the path "
                "of a task's YAML file does as well, and 'tiny' comes with this package"
            ) from error
        except Exception as error:  # the datasets package raises whatever its network layer raises
            raise UnusableError(
                f"objective.metric: the questions of {name!r} cannot be loaded "
                f"({type(error).__name__}: {error}). A run downloads nothing; load them once where there is "
                "a network, into the same HF_HOME, or set HF_HUB_OFFLINE=0 and HF_DATASETS_OFFLINE=0"
            ) from error
    for task in tasks:
        if task.OUTPUT_TYPE != "multiple_choice":
            raise UnusableError(
                f"objective.metric: {task.task_name!r} is a {task.OUTPUT_TYPE} task, this objective scores "
                "multiple-choice tasks"
            )
        # A task that fixes no shots in its own file is not overridden by lm-eval either.
        if shots and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(FEWSHOT_SEED)
    return tasks


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
