"""What a machine lacks for a LoRA fine-tune, in words, each with the one command that gets it. No torch."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from typing import Any

from fractopt.objective.base import FETCH, Absence, AbsentError, UnusableError
from fractopt.objective.lora import architecture
from fractopt.objective.lora.files import home
from fractopt.objective.lora.model_files import find_checkpoint, gguf_of
from fractopt.objective.lora.records import find_data, strange_columns
from fractopt.objective.lora.runtime import OFFLINE
from fractopt.units import amount

PACKAGES = ("torch", "litgpt", "lm_eval")
INSTALL = "pip install 'fractopt[llm]'"
_PATIENCE_S = 300.0  # for lm-eval to be imported on a file system that is slow


def missing_packages() -> list[Absence]:
    absent = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    return [Absence(f"not installed: {', '.join(absent)}", INSTALL)] if absent else []


def missing_model(name: str | None, path: str | None, revision: str, built_like: str | None) -> list[Absence]:
    """The model, unless it is there; where it cannot be fetched either, why."""
    try:
        find_checkpoint(name, path, revision)
    except UnusableError as error:
        absence = error.absence if isinstance(error, AbsentError) else Absence(str(error))
        # A GGUF file says itself how its model is built.
        by_name = absence.command == FETCH and gguf_of(name, path) is None
        unknown = by_name and architecture.unknown(name, path, built_like)
        return [Absence(f"{absence.what}; {unknown}") if unknown else absence]
    return []


def missing_data(name: str | None, path: str | None, revision: str, subset: str | None) -> list[Absence]:
    try:
        find_data(name, path, revision, subset)
    except UnusableError as error:
        return [error.absence if isinstance(error, AbsentError) else Absence(str(error))]
    return []


def wrong_data(name: str | None, path: str | None, revision: str, subset: str | None) -> str:
    """What is wrong with the columns of data that are there; "" for nothing, or where they are not."""
    try:
        return strange_columns(find_data(name, path, revision, subset))
    except UnusableError:
        return ""


def missing_questions(tasks: list[str]) -> list[Absence]:
    """The tasks whose questions lm-eval would have to download."""
    if not tasks:
        return []
    if importlib.util.find_spec("lm_eval") is None:
        return [Absence(f"whether the questions of {', '.join(tasks)} are here is known to lm_eval", INSTALL)]
    try:
        found = look_for_questions(tasks)
    except UnusableError as error:
        return [Absence(str(error))]
    return [Absence(said["what"], FETCH if said["fetch"] else "") for said in found.values() if said]


def look_for_questions(tasks: list[str]) -> dict[str, dict[str, Any] | None]:
    """What of each task's questions is missing, as `task_data.look` says it, asked in a process of its own.

    Raises UnusableError where lm-eval cannot be asked.
    """
    command = [sys.executable, "-m", "fractopt.objective.lora.task_data", "look", *tasks]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": _PATIENCE_S, "check": True}
    try:
        done = subprocess.run(command, env=os.environ | OFFLINE, **options)
        found: dict[str, dict[str, Any] | None] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().rpartition("\n")[2]
        raise UnusableError(
            f"whether the questions of {', '.join(tasks)} are here cannot be told: {reason}"
        ) from None
    return found


def missing_room(size: int) -> list[Absence]:
    """Room for `size` more bytes where they would be written, unless it is there."""
    place = home()
    there = next(parent for parent in (place, *place.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free >= size:
        return []
    return [
        Absence(
            f"room: what is missing takes about {amount(size)}, and {there} has {amount(free)} free",
            "export HF_HOME=/a/directory/with/room",
        )
    ]
