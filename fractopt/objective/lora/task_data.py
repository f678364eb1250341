"""lm-eval's questions: whether they are on this machine, and bringing them here; in a process of its own.

    python -m fractopt.objective.lora.task_data look TASK...

says on stdout what is missing, in JSON: {TASK: null or {"what": ..., "fetch": ..., "sources": [...]}}, and

    python -m fractopt.objective.lora.task_data load TASK...

loads them and says {TASK: why not} of those that could not be. lm-eval and datasets take seconds to import,
and decide at import whether they may use the network.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
from lm_eval.tasks import TaskManager

from fractopt.objective.lora.fetch.hub import in_words
from fractopt.objective.lora.metrics import YAML
from fractopt.objective.lora.tasks import manager_of
from fractopt.text import masked


def main(argv: list[str]) -> int:
    what, *tasks = argv
    # What libraries print is not the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    found: dict[str, Any]
    if what == "look":
        found = {task: look(task) for task in tasks}
    else:
        found = {task: said for task in tasks if (said := load(task))}
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        json.dump(found, stream)
    return 0


def look(task: str) -> dict[str, Any] | None:
    """What of the questions of `task` is missing, None for nothing. Runs no code that its file names."""
    if task.endswith(YAML) and not os.path.isfile(task):
        return {
            "what": f"the file {task} of a task's definition, expected below {os.getcwd()}",
            "fetch": False,
        }
    absent: Counter[str] = Counter()
    try:
        for definition in definitions(task):
            path = definition.get("dataset_path")
            if isinstance(path, str) and not _is_here(path, definition):
                absent[path] += 1
    except KeyError:
        near = difflib.get_close_matches(task, TaskManager().all_tasks, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "lm-eval ls tasks lists them"
        return {"what": f"lm-eval knows no task {task!r}; {hint}", "fetch": False, "sources": []}
    if not absent:
        return None
    lists = ", ".join(path if n == 1 else f"{path} (in {n} parts)" for path, n in absent.items())
    what = f"the questions of {task} are not on this machine: {lists}"
    return {"what": what, "fetch": True, "sources": list(absent)}


def load(task: str) -> str:
    """Have lm-eval load the questions of `task`, from the hub where need be; why it could not, or ""."""
    try:
        manager_of(task).load([task])
    except Exception as error:  # datasets raises whatever its network layer raises
        name = next((str(d["dataset_path"]) for d in definitions(task) if "dataset_path" in d), task)
        said = in_words(error, "dataset", name)
        return masked(said or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return ""


def definitions(task: str) -> Iterator[dict[str, Any]]:
    """lm-eval's definition of `task`, or of all the tasks that it stands for; functions are not imported.

    Raises KeyError for a task that lm-eval does not know.
    """
    if task.endswith(YAML):
        place = Path(task).resolve()
        manager = TaskManager(include_defaults=False, include_path=str(place.parent))
        names = [name for name, entry in manager.task_index.items() if entry.yaml_path == place]
        if not names:
            raise KeyError(task)
    else:
        manager, names = manager_of(task), [task]
        if task not in manager.task_index:
            raise KeyError(task)
    for name in names:
        yield from _members(name, {}, manager.task_index)


def _members(member: str | dict[str, Any], changes: dict[str, Any], index: Any) -> Iterator[dict[str, Any]]:
    """The tasks of one entry of a group, which may be a name, or a table that changes or defines it."""
    table = {"task": member} if isinstance(member, str) else member
    name = table.get("group", table.get("task"))
    changes = {**changes, **{key: value for key, value in table.items() if key not in ("task", "group")}}
    entry = index.get(name) if isinstance(name, str) else None
    if entry is None:
        members = table.get("task")
        for inner in members if isinstance(members, list) else ():
            yield from _members(inner, changes, index)
        if not isinstance(members, list):
            yield changes
    elif entry.kind.name == "TAG":
        for inner in sorted(entry.tags):
            yield from _members(inner, changes, index)
    elif entry.kind.name == "GROUP":
        for inner in entry.cfg["task"]:
            yield from _members(inner, changes, index)
    else:
        yield {**(entry.cfg or {}), **changes}


def _is_here(path: str, definition: dict[str, Any]) -> bool:
    """Whether `datasets` finds the questions of one task without a network."""
    more = {k: v for k, v in (definition.get("dataset_kwargs") or {}).items() if k != "trust_remote_code"}
    try:
        datasets.load_dataset_builder(path, definition.get("dataset_name"), **more)
    except Exception:  # it raises whatever its network layer raises
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
