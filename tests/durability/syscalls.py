"""A run killed between any two of its system calls, and within every large write.

A run of 200 evaluations, itself killed twice and resumed, is recorded by `tape`. Its calls are made again
one by one, and after each the directory is read as a reader and a next master would; every now and then a
copy of it is resumed to the end.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from disk import breach, perform, told_by
from figure import Figure
from tape import Call, Killed, Tape, play

from fractopt.archive.store import is_run, load
from fractopt.report.status import status

LARGE = 512  # bytes: such a write is cut in its middle too


def prove(full: bool) -> Iterator[Figure]:
    budget, resumed_every = (200, 100) if full else (12, 60)
    with tempfile.TemporaryDirectory() as name:
        calls = killed_and_resumed(Path(name), budget)
        yield from every_prefix(calls, Path(name) / "replayed", budget, resumed_every)
    if full:
        yield the_layer_sees_what_strace_sees(budget)


def killed_and_resumed(folder: Path, budget: int) -> list[Call]:
    """The calls of a run of three masters.

    The first one dies before it proposed anything, the second between a write of the journal and its
    fdatasync.
    """
    root = folder / "recorded"
    root.mkdir()
    tape = Tape(root)
    tape = killed(tape, root, budget, lambda _, call: call.what == "rename" and ".archive.h5." in call.path)
    tape = killed(
        tape,
        root,
        budget,
        lambda n, call: n > 5 * budget and call.what == "sync" and call.path.endswith(".wal"),
    )
    tape = Tape.after(tape, root)
    code, said = play(root / "runs" / "r", budget, tape=tape)
    if code:
        raise AssertionError(f"the recorded run ended with {code}: {said}")
    return tape.calls


def killed(tape: Tape, root: Path, budget: int, instant: Callable[[int, Call], bool]) -> Tape:
    """The tape of a master that goes on after `tape` and dies at the call that `instant` names."""
    dead = False

    def before(number: int, call: Call) -> None:
        nonlocal dead
        dead = dead or instant(number, call)
        if dead:
            raise Killed

    tape = Tape.after(tape, root, before)
    with suppress(Killed):
        play(root / "runs" / "r", budget, tape=tape)
    if not dead:
        raise AssertionError("the recorded master was not killed")
    return tape


def every_prefix(calls: list[Call], root: Path, budget: int, resumed_every: int) -> Iterator[Figure]:
    root.mkdir()
    directory = root / "runs" / "r"
    instants, resumed = 0, 0
    broken: list[str] = []
    unresumed: list[str] = []
    for number, call in enumerate(calls):
        told = told_by(calls, number + 1)
        if call.what == "write" and len(call.data) >= LARGE:
            perform(call, root, part=len(call.data) // 2)
            broken += [f"in call {number}: {text}" for text in [breach(directory, told)] if text]
            instants += 1
        perform(call, root)
        broken += [f"after call {number}: {text}" for text in [breach(directory, told)] if text]
        instants += 1
        if number % resumed_every == 0:
            resumed += 1
            text = resumes(root, budget)
            unresumed += [f"after call {number}: {text}"] if text else []
    kinds = Counter(call.what for call in calls)
    seen = f"{budget} evaluations, three masters, {kinds['write']} writes, {kinds['sync']} syncs"
    yield Figure(
        "killed after any call, or within any write: readable, nothing acknowledged lost",
        instants,
        len(broken),
        "; ".join([seen, *broken[:1]]),
    )
    yield Figure("and resumed there: to the end", resumed, len(unresumed), "; ".join(unresumed[:1]))


def resumes(root: Path, budget: int) -> str:
    """What is wrong with a copy of the run below `root` once it was resumed; "" where nothing is."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "runs"
        if (root / "runs").exists():
            shutil.copytree(root / "runs", copy)
        copy.mkdir(exist_ok=True)
        directory = copy / "r"
        if text := breach(directory, {}):
            return text
        before = load(directory).told if is_run(directory) else []
        code, said = play(directory, budget)
        if code:
            return f"the resumed run ended with {code}: {said[-500:]}"
        after = {row.id: outcome for row, outcome in load(directory).told}
        if len(after) != budget or any(after[row.id] != outcome for row, outcome in before):
            return f"the resumed run has {len(after)} evaluations, or others than before"
        return "" if status(directory)["state"] == "complete" else "the resumed run is not complete"


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from tape import Tape, play
tape = Tape(Path(sys.argv[2]))
play(Path(sys.argv[2]) / "r", int(sys.argv[3]), tape=tape)
print(sum(c.what == "write" for c in tape.calls), sum(len(c.data) for c in tape.calls))
print(sum(c.what in ("rename", "link", "unlink", "mkdir") for c in tape.calls))
"""


def the_layer_sees_what_strace_sees(budget: int) -> Figure:
    """Nothing changes the directory past the layer: what the kernel counts is what `tape` counts."""
    claim = "the recording has every call that the kernel sees"
    with tempfile.TemporaryDirectory() as name:
        root, log = Path(name) / "root", Path(name) / "strace"
        root.mkdir()
        calls = (
            "write,pwrite64,writev,pwritev,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
        )
        command = ["strace", "-f", "-y", "-s", "0", "-o", str(log), "-e", f"trace={calls},mkdir,mkdirat"]
        command += [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(root), str(budget)]
        if shutil.which("strace") is None:
            return Figure(claim, 0, 0, "strace is not installed")
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return Figure(claim, 0, 0, f"strace does not work here: {done.stderr.strip()[-200:]}")
        writes = written = names = 0
        for line in log.read_text().splitlines():
            done_well = re.search(r"= (\d+)$", line)
            if str(root) not in line or done_well is None:
                continue
            if "write" in line.partition("(")[0]:
                writes, written = writes + 1, written + int(done_well[1])
            else:
                names += 1
    recorded, traced = list(map(int, done.stdout.split())), [writes, written, names]
    seen = f"{traced[0]} writes of {traced[1]} bytes and {traced[2]} changes of names"
    return Figure(claim, writes + names, int(recorded != traced), f"{seen}; recorded {recorded}")
