"""What the cycles of both schedulers share: the run they submit, and what must hold of it in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fractopt.archive.history import History

CONFIG = """
[run]
budget = {budget}
[optimizer]
name = "random"
[space]
x = {{ type = "float", low = -5, high = 5 }}
y = {{ type = "float", low = -5, high = 5 }}
[objective]
kind = "python"
function = "scored:himmelblau"
direction = "minimize"
[trust]
code = true
"""

# What an evaluation sees of where it runs, a line an evaluation that came to its end.
SCORED = """
import json, os, time

def himmelblau(x, y):
    begin = time.time()
    time.sleep({seconds})
    names = "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "OAR_JOB_ID"
    names += "SLURM_RESTART_COUNT", "SLURM_JOB_END_TIME"
    seen = {{name: os.environ.get(name, "") for name in names}}
    with open("scored.jsonl", "a") as file:
        file.write(json.dumps({{**seen, "x": x, "y": y, "begin": begin, "end": time.time()}}) + chr(10))
    return (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2
"""
RUN = Path("runs") / "cycle"


def prepare(folder: Path, scheduler: str, shape: Sequence[str], *, budget: int, seconds: float) -> Path:
    """A folder with a configuration, its objective, and the script that `fractopt job` prints for them."""
    folder.mkdir(parents=True)
    (folder / "cycle.toml").write_text(CONFIG.format(budget=budget))
    (folder / "scored.py").write_text(SCORED.format(seconds=seconds))
    return print_script(folder, scheduler, shape)


def print_script(folder: Path, scheduler: str, shape: Sequence[str]) -> Path:
    """The script that `fractopt job` prints for the configuration in `folder`."""
    command = [sys.executable, "-m", "fractopt", "job", scheduler, "cycle.toml", *shape]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    script = folder / "job.sh"
    script.write_text(done.stdout)
    script.chmod(0o755)
    return script


def everything_once(history: History, folder: Path, budget: int, *, late: bool = False) -> None:
    """The budget is met, nothing that was finished was sent again, and no device served two at once.

    An evaluation that was cut short may have ended all the same, and left its result to the next master:
    then no attempt of it is said to be finished. `late` evaluations are those of a node that comes back
    when the run is complete.
    """
    assert history.complete
    assert len(history.evaluations) == budget
    scored = Counter((line["x"], line["y"]) for line in lines(folder))
    for row in history.evaluations:
        assert row.outcome is not None
        assert row.outcome.has_value
        hows = [attempt.how for attempt in row.attempts]
        assert "finished" not in hows[:-1], f"evaluation {row.id} was finished and sent again: {row.attempts}"
        times = scored[row.params["x"], row.params["y"]]
        assert 1 <= times <= len(row.attempts), f"evaluation {row.id} ran to its end {times} times"
    if not late:
        served: dict[tuple[str, ...], float] = {}
        for line in sorted(lines(folder), key=lambda line: float(line["begin"])):
            place = line["SLURMD_NODENAME"], line["CUDA_VISIBLE_DEVICES"]
            assert served.get(place, 0.0) <= line["begin"], f"two evaluations at once on {place}"
            served[place] = line["end"]


def lines(folder: Path) -> list[dict[str, Any]]:
    """Every evaluation that came to its end."""
    path = folder / "scored.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def places_of(folder: Path, **wanted: str) -> set[tuple[str, str]]:
    """Node and device of every evaluation whose environment had the values `wanted`."""
    return {
        (line["SLURMD_NODENAME"], line["CUDA_VISIBLE_DEVICES"])
        for line in lines(folder)
        if all(line[name] == value for name, value in wanted.items())
    }


def cut_short(history: History) -> int:
    """How many attempts ended with their job."""
    return sum(a.how in ("preempted", "lost") for row in history.rows.values() for a in row.attempts)
