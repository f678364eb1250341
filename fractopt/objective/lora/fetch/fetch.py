"""`fractopt fetch` for a LoRA fine-tune: model, data and questions, brought to this machine before a run.

Everything is asked for before anything is downloaded, so that all mistakes are said at once and the room on
the disk is known. What is there already is looked at and left alone; what broke off goes on. torch is
imported only to convert a model.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fractopt.objective.base import UnusableError
from fractopt.objective.lora.fetch.data import plan_data
from fractopt.objective.lora.fetch.hub import Hub
from fractopt.objective.lora.fetch.job import Job
from fractopt.objective.lora.fetch.model import plan_model
from fractopt.objective.lora.fetch.questions import plan_questions
from fractopt.objective.lora.files import home
from fractopt.objective.lora.tables import Data, Model
from fractopt.units import amount

Say = Callable[[str], None]


def fetch(model: Model, data: Data, tasks: list[str], say: Say, update: bool = False) -> None:
    """Bring to this machine what it lacks of these; `tasks` are those of lm-eval.

    To be called `alone`.

    With `update`, a branch means what it means on the hub now, also where an older commit of it is here.
    Raises UnusableError with one line for each thing that cannot be had.
    """
    hub = Hub()
    jobs: list[Job] = []
    wrong: list[str] = []
    plans: tuple[Callable[[], Job | str | None], ...] = (
        lambda: plan_model(model, hub, update),
        lambda: plan_data(data, hub, update),
        lambda: plan_questions(tasks, hub),
    )
    for plan in plans:
        try:
            planned = plan()
        except UnusableError as error:
            wrong.append(str(error))
            continue
        if isinstance(planned, Job):
            jobs.append(planned)
            size = sum(size for _, size in planned.writes)
            say(f"to fetch   {planned.what}{f', {amount(size)} to be written' if size else ''}")
        elif planned is not None:
            say(f"is here    {planned}")
    if wrong:
        raise UnusableError("\n".join(wrong))
    _refuse_without_room(jobs, say)
    for job in jobs:
        say(f"fetched    {job.do()}")


@contextmanager
def alone(say: Say) -> Iterator[None]:
    """One fetch at a time below one HF_HOME: what is half made belongs to nobody else."""
    home().mkdir(parents=True, exist_ok=True)
    path = home() / "fetch.lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # somebody else's, in a directory that is shared
    with os.fdopen(handle) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another fractopt fetch into {home()}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            say(f"warning    {home()} knows no locks ({error.strerror}): let no two fetches run at once")
        yield


def _refuse_without_room(jobs: Sequence[Job], say: Say) -> None:
    needed: dict[int, int] = {}
    places: dict[int, Path] = {}
    for place, size in (write for job in jobs for write in job.writes):
        there = next(parent for parent in (place, *place.absolute().parents) if parent.is_dir())
        device = there.stat().st_dev
        needed[device] = needed.get(device, 0) + size
        places.setdefault(device, there)
    for device, size in needed.items():
        free = shutil.disk_usage(places[device]).free
        if free < size:
            raise UnusableError(
                f"there is no room: {amount(size)} are to be written below {places[device]}, and "
                f"{amount(free)} are free there. Nothing was downloaded; let HF_HOME be a directory with "
                "room"
            )
        if size:
            say(f"room       {amount(size)} of the {amount(free)} that are free at {places[device]}")
