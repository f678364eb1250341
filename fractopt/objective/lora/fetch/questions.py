"""Fetching the questions of lm-eval's tasks, by lm-eval itself, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fractopt.objective.base import UnusableError
from fractopt.objective.lora.absences import look_for_questions
from fractopt.objective.lora.fetch.hub import Hub
from fractopt.objective.lora.fetch.job import Job
from fractopt.objective.lora.files import MAIN, hub_home


def plan_questions(tasks: list[str], hub: Hub) -> Job | str | None:
    """How to get the questions of `tasks`; in words where they are, or None for no tasks."""
    if not tasks:
        return None
    found = look_for_questions(tasks)
    if cannot := [said["what"] for said in found.values() if said and not said["fetch"]]:
        raise UnusableError("\n".join(cannot))
    missing = {task: said["sources"] for task, said in found.items() if said}
    if not missing:
        return f"the questions of {', '.join(tasks)}"
    place = Path(os.environ.get("HF_DATASETS_CACHE") or hub_home() / "datasets")
    size = 0
    for source in dict.fromkeys(source for sources in missing.values() for source in sources):
        if "/" in source:  # a data set of the hub, of which not all may be needed
            size += sum(file.size for file in hub.find("dataset", source, MAIN).files.values())
    return Job(
        f"the questions of {', '.join(missing)}, into {place} (at most as large as their data sets)",
        ((place, 2 * size),),
        lambda: _load_questions(list(missing)),
    )


def _load_questions(tasks: list[str]) -> str:
    # Without the token that the hub's client may have saved: ours come from the environment alone.
    environment = os.environ | {"HF_TOKEN_PATH": os.devnull, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "fractopt.objective.lora.task_data", "load", *tasks]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    try:
        failed = json.loads(done.stdout)
    except ValueError:
        raise UnusableError("lm-eval broke off; what it said stands above") from None
    if failed:
        raise UnusableError("\n".join(f"the questions of {task}: {said}" for task, said in failed.items()))
    return f"the questions of {', '.join(tasks)}"
