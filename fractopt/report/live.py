"""The live picture of a run on a terminal."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from fractopt.optimizer.study import Study
from fractopt.parallel.crew import Crew

REFRESH_S = 0.5


class LiveDisplay:
    """A bar for the budget and a line for each worker, redrawn as the master turns."""

    def __init__(self, console: Console, title: str) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[best]}"),
            console=console,
        )
        self._task = self._bar.add_task(title, total=None, best="")
        self._live = Live(self._bar, console=console, auto_refresh=False, transient=True)
        self._next = 0.0

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def update(self, study: Study, crew: Crew) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REFRESH_S
        try:
            best = f"best {study.best.value:.6g}"
        except ValueError:
            best = ""
        self._bar.update(self._task, completed=study.told, total=study.budget, best=best)
        lines = []
        for state in crew.states.values():
            where = f"worker {state.worker} {state.host} {state.device or 'cpu'}"
            steps = f"{state.step}/{state.total}" if state.total else ""
            loss = "" if state.loss is None else f"loss {state.loss:.4g}"
            what = f"trial {state.trial} {state.phase} {steps} {loss}" if state.busy else "idle"
            lines.append(Text(f"{where}: {what} {state.seconds:.0f} s", no_wrap=True, overflow="ellipsis"))
        self._live.update(Group(self._bar, *lines), refresh=True)
