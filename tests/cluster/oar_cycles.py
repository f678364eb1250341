"""Whole lives of besteffort jobs on a real OAR: checkpointed or evicted, submitted again, resumed, finished.

Each cycle raises AssertionError where a promise is broken, and returns what was seen in one line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from cycles import RUN, cut_short, everything_once, lines, places_of, prepare
from oar import OVER, Oar

from fractopt.archive.store import load

WALLTIME, CHECKPOINT_S = "00:02:30", 60  # of the shortened script
# Stands for the device cgroup of a real site, which is all that tells a job of OAR its GPUs.
DEVICES = (
    "export CUDA_VISIBLE_DEVICES=$("
    r"""sed -En "s/.*gpudevice = '([0-9]+)'.*/\1/p" "$OAR_RESOURCE_PROPERTIES_FILE" | sort -nu"""
    " | paste -sd,)"
)
SHORTEST_S = 60  # OAR submits nothing again that was shorter


def interrupted_by_its_walltime(oar: Oar, budget: int = 200) -> str:
    """Told that the walltime is over, it exits with 99, is submitted again, resumes and finishes."""
    folder, script = _shortened(oar, "walltime", budget)
    began = time.monotonic()
    first = _submit(oar, folder, "-S", str(script))
    jobs = _to_the_end(oar, first, within_s=420)
    took_s = time.monotonic() - began
    history = _check(oar, folder, jobs, budget)
    assert output(folder).count("stopped by SIGUSR2") == len(jobs) - 1
    return (
        f"{budget} evaluations of 2 s by 4 workers, jobs {jobs} of one array, each but the last exited with "
        f"99 and was submitted again by OAR, {history}; {took_s:.0f} s in all"
    )


def evicted(oar: Oar, budget: int = 200) -> str:
    """A job of somebody else wants the node: told, ended, submitted again, resumed, finished."""
    folder, script = _shortened(oar, "evicted", budget, walltime="00:20:00")
    first = _submit(oar, folder, "-S", str(script))
    oar.wait(first, ("Running",), within_s=60)
    time.sleep(SHORTEST_S + 5.0)
    assert lines(folder), output(folder)
    other = _submit(oar, folder, "-l", f"host=1/gpu={oar.gpus},walltime=00:01:00", "sleep 5")
    asked = time.monotonic()
    oar.wait(other, ("Running", *OVER), within_s=180)
    waited_s = time.monotonic() - asked
    jobs = _to_the_end(oar, first, within_s=420)
    history = _check(oar, folder, jobs, budget)
    return (
        f"a job that was not besteffort ran {waited_s:.0f} s after its submission; the besteffort one, "
        f"in jobs {jobs} of one array, came back by itself and met its budget of {budget}, {history}"
    )


def deleted(oar: Oar) -> str:
    """oardel: nothing is submitted again, the run can be resumed, no process is left."""
    folder, script = _shortened(oar, "deleted", 10_000, walltime="00:20:00")
    number = _submit(oar, folder, "-S", str(script))
    oar.wait(number, ("Running",), within_s=60)
    time.sleep(SHORTEST_S + 5.0)
    asked = time.monotonic()
    oar.delete(number)
    assert _to_the_end(oar, number, within_s=120) == [number]
    gone_s = time.monotonic() - asked
    assert oar.processes() == []
    history = load(folder / RUN)
    assert not history.complete
    assert history.evaluations
    return (
        f"ended and gone within {gone_s:.0f} s of oardel, not submitted again, "
        f"{len(history.evaluations)} evaluations in the archive"
    )


CYCLES = (interrupted_by_its_walltime, evicted, deleted)


def _shortened(oar: Oar, name: str, budget: int, walltime: str = WALLTIME) -> tuple[Path, Path]:
    """The printed script, with times that a test can wait for."""
    folder = oar.folder / name
    shape = ["--gpus", str(oar.gpus), "--besteffort"]
    for line in (f'export PATH={oar.programs}:"$PATH"', DEVICES):
        shape += ["--setup", line]
    script = prepare(folder, "oar", shape, budget=budget, seconds=2.0)
    text = script.read_text()
    for pattern, new in (
        (r"walltime=[\d:]+", f"walltime={walltime}"),
        (r"--checkpoint \d+", f"--checkpoint {CHECKPOINT_S}"),
    ):
        text, changes = re.subn(pattern, new, text)
        assert changes == 1
    script.write_text(text)
    oar.give(folder)
    return folder, script


def _submit(oar: Oar, folder: Path, *arguments: str) -> int:
    done = oar.submit(folder, *arguments)
    found = re.search(r"OAR_JOB_ID=(\d+)", done.stdout)
    assert found, done.stdout + done.stderr
    return int(found[1])


def _to_the_end(oar: Oar, first: int, within_s: float) -> Sequence[int]:
    """Wait until a job of the array ends that is not followed by another one; all of them."""
    until = time.monotonic() + within_s
    while True:
        jobs = oar.jobs_of(first)
        oar.wait(jobs[-1], OVER, until - time.monotonic())
        time.sleep(3.0)  # for the next one to be submitted
        if oar.jobs_of(first) == jobs:
            return jobs


def _check(oar: Oar, folder: Path, jobs: Sequence[int], budget: int) -> str:
    assert len(jobs) >= 2, f"it was never interrupted\n{output(folder)}"
    history = load(folder / RUN)
    everything_once(history, folder, budget)
    assert output(folder).count("resuming runs/cycle: ") == len(jobs) - 1  # one log for all of them
    for job in jobs:
        devices = {device for _, device in places_of(folder, OAR_JOB_ID=str(job))}
        assert devices == {str(gpu) for gpu in range(oar.gpus)}, (job, devices)
    assert oar.processes() == []
    return f"{cut_short(history)} attempts cut short, none finished twice"


def output(folder: Path) -> str:
    path = folder / f"{RUN}.out"
    return path.read_text() if path.exists() else "(no output)"
