"""Many hostile inputs for one reader, in a process of its own.

    python tests/fuzz/attack.py TARGET [--count 300] [--first 0] [--show NUMBER]

Input NUMBER of a target is always the same one, but for the host's name and the time in what it is made of:
`--show` prints it and tries it alone, with the traceback.
A breach is an exception that the reader does not promise, an input that takes longer than SLOWEST_S of
CPU time, a process that dies or grows beyond MOST_BYTES, and anything written outside the folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SLOWEST_S = 3.0
MOST_BYTES = 300 << 20  # that a process may hold more than at its start
HANGS_S = 10


@dataclass
class Found:
    """What came of inputs `first` .. `first` + `tried` - 1; `breaches` has one line for each kind of them."""

    tried: int = 0
    accepted: int = 0
    broken: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    grown: int = 0
    breaches: dict[str, str] = field(default_factory=dict)

    def seen(self) -> str:
        speed = self.tried / max(self.seconds, 1e-9)
        cost = f"the slowest {self.slowest_s:.2f} s of CPU, {self.grown >> 20} MiB more memory"
        return f"{self.accepted} accepted, {speed:.0f} inputs/s, {cost}"


def attack(name: str, count: int, first: int = 0) -> Found:
    """Try inputs `first` .. `first` + `count` - 1; a process that dies is a breach, and is started again."""
    found = Found()
    end = first + count
    memory = "/dev/shm"  # the inputs are files, one after the other
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        number = Path(folder) / "number"
        outside = Path(folder) / "outside"
        outside.mkdir()
        again = -1
        while first < end:
            number.write_bytes(first.to_bytes(8, "little"))
            inside = Path(folder) / "inside"
            inside.mkdir()
            command = [sys.executable, __file__, name, "--first", str(first), "--count", str(end - first)]
            environment = {**os.environ, "HOME": str(outside), "OMP_NUM_THREADS": "1", "TMPDIR": folder}
            done = subprocess.run(
                [*command, "--worker", str(number)],
                cwd=inside,
                env=environment,
                capture_output=True,
                check=False,
            )
            last = done.stdout.decode(errors="replace").strip().rpartition("\n")[2]
            if done.returncode == 0:
                _add(found, Found(**json.loads(last)))
                first = end
            elif (
                done.returncode == -signal.SIGXCPU and int.from_bytes(number.read_bytes(), "little") != again
            ):
                # A machine that was itself suspended charges that to whoever ran: an input that hangs
                # does so again, alone.
                again = int.from_bytes(number.read_bytes(), "little")
                found.tried += again - first
                first = again
            else:
                reached = int.from_bytes(number.read_bytes(), "little")
                _breach(
                    found, f"the process ended with {done.returncode}", reached, done.stderr.decode()[-500:]
                )
                found.tried += reached + 1 - first
                first = reached + 1
            subprocess.run(["rm", "-rf", str(inside)], check=True)
        left = sorted(p.name for p in [*outside.iterdir(), *Path(folder).iterdir()])
        if left != ["number", "outside"]:
            _breach(found, f"written outside: {left}", -1, "")
    return found


def _add(total: Found, more: Found) -> None:
    total.tried += more.tried
    total.accepted += more.accepted
    total.broken += more.broken
    total.seconds += more.seconds
    total.slowest_s = max(total.slowest_s, more.slowest_s)
    total.grown = max(total.grown, more.grown)
    total.breaches |= more.breaches


def _breach(found: Found, kind: str, number: int, text: str) -> None:
    found.broken += 1
    found.breaches.setdefault(kind, f"input {number}: {text}")


def work(name: str, first: int, count: int, number: Path) -> Found:
    """The same in this process, whose current directory is the target's to use."""
    sys.path.append(str(Path(__file__).parent))
    from targets import TARGETS

    logging.getLogger("fractopt").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")  # what an optimizer warns of is no matter here
    target = TARGETS[name]()
    folder = Path.cwd() / "folder"
    folder.mkdir()
    os.chdir(folder)
    target.prepare(folder)
    found = Found()
    with number.open("r+b") as file, mmap.mmap(file.fileno(), 8) as reached:
        started = time.monotonic()
        before = _most_resident()
        for i in range(first, first + count):
            reached[:] = i.to_bytes(8, "little")
            given = target.make(random.Random(f"{name} {i}"))
            resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + HANGS_S, -1))
            began = time.process_time()
            try:
                found.accepted += target.read(given)
            except Exception as error:
                _breach(found, _kind(error), i, f"{given!r:.300}\n{traceback.format_exc()[-1500:]}")
            took = time.process_time() - began
            found.slowest_s = max(found.slowest_s, took)
            if took > SLOWEST_S:
                _breach(found, "too slow", i, f"{took:.1f} s for {given!r:.300}")
            found.tried += 1
        found.seconds = time.monotonic() - started
    found.grown = _most_resident() - before
    if found.grown > MOST_BYTES:
        _breach(found, "too much memory", -1, f"{found.grown >> 20} MiB more than at the start")
    return found


def _most_resident() -> int:
    """Bytes; not ru_maxrss, which begins with what the process had before it became Python."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _kind(error: Exception) -> str:
    """Exceptions of one type from one line are one kind."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f for f in frames if "fractopt/fractopt" in f.filename or "/main/fractopt/" in f.filename
    ] or frames
    return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--show", type=int)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        found: Any = work(options.target, options.first, options.count, options.worker)
        print(json.dumps(found.__dict__))
        return 0
    if options.show is not None:
        return show(options.target, options.show)
    found = attack(options.target, options.count, options.first)
    print(f"{found.tried} inputs, {found.seen()}, {found.broken} breaches")
    for kind, text in found.breaches.items():
        print(f"--- {kind}\n{text}")
    return 1 if found.broken else 0


def show(name: str, number: int) -> int:
    from targets import TARGETS

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        target = TARGETS[name]()
        target.prepare(Path(folder))
        given = target.make(random.Random(f"{name} {number}"))
        print(repr(given))
        print("accepted" if target.read(given) else "refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
