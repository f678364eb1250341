"""Three processes that reopen archive.h5 with plain h5py, and one that reads as `fractopt status` does.

All the while a master commits 1,000 times and replaces archive.h5 as often as it can: no reader may meet an
error, and none may see the run step backwards.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from figure import Figure
from tape import Tape, play

READ = """
import sys, time
import h5py
from pathlib import Path
from fractopt.report.status import status
how, directory = sys.argv[1], Path(sys.argv[2])
seen = reads = 0
while not (directory / "archive.h5").exists():
    time.sleep(0.01)
print("ready", flush=True)
while not (directory.parent / "over").exists():
    if how == "h5py":
        with h5py.File(directory / "archive.h5") as file:
            told, said, lines = len(file["evals"][:]), file.attrs["evaluations"], len(file["journal"][:])
        assert told == said and lines, (told, said, lines)
    else:
        told = status(directory)["evaluations"]
    assert told >= seen, (told, seen)
    seen, reads = told, reads + 1
print(reads, seen)
"""


def prove(full: bool) -> Iterator[Figure]:
    budget = 1000 if full else 20
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "r"
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READ, how, str(directory)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for how in ("h5py", "h5py", "h5py", "status")
        ]
        try:
            tape = Tape(Path(name))  # counts the commits
            code, said = play(directory, 2, tape=tape)  # something to read, then wait for the readers
            for reader in readers:
                assert reader.stdout is not None
                reader.stdout.readline()
            code, said = play(directory, budget, tape=tape)
            (Path(name) / "over").touch()
            ended = [reader.communicate() for reader in readers]
        finally:
            for reader in readers:
                reader.kill()
                reader.wait()
    errors = [
        error.strip()[-300:] for reader, (_, error) in zip(readers, ended, strict=True) if reader.returncode
    ]
    reads = [int(out.split()[0]) for out, _ in ended if out.split()]
    last = {int(out.split()[1]) for out, _ in ended if out.split()}
    commits = sum(call.what == "commit" for call in tape.calls)
    replaced = sum(call.what == "rename" and call.target.endswith("archive.h5") for call in tape.calls)
    wrong = errors + ([f"the run ended with {code}: {said[-300:]}"] if code else [])
    seen = f"{commits} commits, {replaced} times replaced, last seen {sorted(last)} evaluations"
    yield Figure(
        "read while it is written: no error, no step backwards",
        sum(reads),
        len(wrong),
        "; ".join([seen, *wrong[:1]]),
    )
