"""A disk that is full, or fails, at every call of a run.

Full: from one call on nothing is created or written any more. Failing: one call ends with an I/O error. Each
time the run ends with its exit code and one message that says what to do, or goes on where nothing that
counts was concerned; nothing acknowledged is lost, and once there is room the run is resumed to the end. Then
the same with real processes on a small tmpfs, where this one may mount it.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from disk import breach
from figure import Figure
from tape import CONFIG, Call, Tape, play

from fractopt.archive.store import is_run, load
from fractopt.cli.console import Exit
from fractopt.trial import Outcome

NEED_ROOM = ("create", "write", "mkdir", "link", "rename")
CAN_FAIL = (*NEED_ROOM, "sync", "sync_directory", "unlink")


def prove(full: bool) -> Iterator[Figure]:
    budget, step = (8, 1) if full else (6, 29)
    yield at_every_call("full from any call on", budget, step, errno.ENOSPC, NEED_ROOM, lasting=True)
    yield at_every_call("one call fails", budget, step, errno.EIO, CAN_FAIL, lasting=False)
    for what in "status.json", "archive.h5":
        yield only_for(what, budget)
    yield on_a_small_disk(range(96, 288, 32) if full else range(0))


def at_every_call(
    claim: str, budget: int, step: int, number: int, kinds: tuple[str, ...], *, lasting: bool
) -> Figure:
    with tempfile.TemporaryDirectory() as name:
        tape = Tape(Path(name))
        play(Path(name) / "r", budget, tape=tape)
        calls = [i for i, call in enumerate(tape.calls) if call.what in kinds]
    tried, on, broken = 0, 0, []
    for first in calls[::step]:
        tried += 1

        def fails(at: int, call: Call, first: int = first) -> None:
            if call.what in kinds and (at >= first if lasting else at == first):
                raise OSError(number, os.strerror(number), call.path)

        code, text = one_failure(budget, fails)
        on += code == Exit.DONE
        broken += [f"call {first}: {text}"] if text else []
    seen = f"{tried - on} runs ended with a message and were resumed, {on} went on to the end"
    return Figure(
        f"disk, {claim}: nothing acknowledged lost, resumed to the end",
        tried,
        len(broken),
        "; ".join([seen, *broken[:1]]),
    )


def one_failure(budget: int, fails: Callable[[int, Call], None]) -> tuple[int, str]:
    """The exit code of a run whose calls `fails` sees first, and what is wrong with what it left."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "r"
        tape = FailingTape(Path(name), fails)
        code, said = play(directory, budget, tape=tape)
        if text := breach(directory, tape.told):
            return code, text
        # An evaluation says on its own stderr, which the local transport shares, what it could not keep.
        lines = [s for s in said.splitlines() if "cannot go on in" in s or s.startswith("fractopt: ")]
        if code == Exit.DONE:
            ends = len(load(directory).evaluations) == budget
            return code, "" if ends else "it ended with 0 before its budget was met"
        if code != Exit.FAILED or len(lines) != 1 or os.strerror(tape.number) not in lines[0]:
            return code, f"exit code {code}, said: {said[-300:]}"
        code_again, said = play(directory, budget)
        if code_again or len(load(directory).evaluations) != budget or breach(directory, tape.told):
            return code, f"resumed, it ended with {code_again}: {said[-300:]}"
        return code, ""


class FailingTape(Tape):
    """Remembers what was acknowledged, and the error that came instead of a call."""

    def __init__(self, root: Path, fails: Callable[[int, Call], None]) -> None:
        super().__init__(root)
        self._fails = fails
        self._seen = 0
        self.told: dict[int, Outcome] = {}
        self.number = errno.EIO

    def add(self, call: Call) -> None:
        self._seen += 1
        try:
            self._fails(self._seen - 1, call)
        except OSError as error:
            self.number = error.errno or 0
            raise
        self.calls.append(call)
        if call.what == "commit":
            self.told = call.told


def only_for(what: str, budget: int) -> Figure:
    """No room for `what` alone, from its second writing to the last but one."""
    asides = 0

    def fails(_: int, call: Call) -> None:
        nonlocal asides
        if call.what == "create" and f".{what}." in call.path:
            asides += 1
            if asides > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.path)

    code, text = one_failure(budget, fails)
    # A run is over when archive.h5 says so: without that last one it ends with a message.
    expected = Exit.DONE if what == "status.json" else Exit.FAILED
    wrong = text or ("" if code == expected else f"exit code {code}")
    return Figure(
        f"no room for {what} alone: every evaluation is made all the same", asides, int(bool(wrong)), wrong
    )


def on_a_small_disk(kibibytes: range) -> Figure:
    """`fractopt run` on a tmpfs of each size, made larger for the resume."""
    claim = "a real disk that is too small: one message, and resumed once there is room"
    tried, broken, kept = 0, [], []
    for size in kibibytes:
        with tempfile.TemporaryDirectory() as name:
            disk, config = Path(name) / "disk", Path(name) / "r.toml"
            disk.mkdir()
            config.write_text(CONFIG.format(budget=60))
            if not mounted(disk, f"size={size}k"):
                return Figure(claim, 0, 0, "this process may not mount a tmpfs")
            try:
                command = [
                    sys.executable,
                    "-m",
                    "fractopt",
                    "run",
                    str(config),
                    "--out",
                    str(disk / "r"),
                    "--resume",
                ]
                first = subprocess.run(command, capture_output=True, text=True, check=False)
                told = {row.id: o for row, o in load(disk / "r").told} if is_run(disk / "r") else {}
                tried += 1
                kept.append(len(told))
                mounted(disk, "remount,size=64m")
                again = subprocess.run(command, capture_output=True, text=True, check=False)
                done = load(disk / "r")
                if first.returncode != Exit.FAILED or "No space left" not in first.stderr:
                    broken.append(f"{size} KiB: exit code {first.returncode}, said {first.stderr[-300:]}")
                elif again.returncode or breach(disk / "r", told) or len(done.evaluations) != 60:
                    broken.append(f"{size} KiB: resumed, {again.returncode}: {again.stderr[-300:]}")
            finally:
                subprocess.run(["umount", str(disk)], check=True)
    return Figure(claim, tried, len(broken), "; ".join([f"{kept} evaluations of 60 fitted", *broken[:1]]))


def mounted(disk: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
