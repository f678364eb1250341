"""A Python objective that goes wrong in one evaluation of ten, in every way that it can.

The parameter `draw` decides: 0 to len(FAULTS) - 1 is that fault, anything above a sound evaluation of a
random length.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

# What becomes of an evaluation: its status, and what its reason must say.
FAULTS: dict[str, tuple[str, str]] = {
    "exception": ("failed", "ValueError: no luck"),
    "system_exit": ("failed", "SystemExit: 3"),
    "exit_code": ("failed", "exited with code 7"),
    "segfault": ("failed", "SIGSEGV"),
    "killed": ("failed", "SIGKILL"),
    "busy_hang": ("timeout", "longer than the timeout"),
    "silence": ("timeout", "without a sign of progress"),
    "deaf": ("timeout", "without a sign of progress"),
    "memory": ("oom", "GB of memory, more than the"),
    "nan": ("diverged", ""),
    "inf": ("diverged", ""),
    "no_number": ("failed", "TypeError"),
    "garbage": ("failed", "something else than messages on its result channel"),
    "flood": ("failed", "something else than messages on its result channel"),
    "forks": ("ok", ""),
}
LIMITS = """
[failure]
timeout = "6s"
stall_timeout = "3s"
memory = "400MB"
failed = { retry = 0 }
killed = { retry = 1 }
abort_above = { rate = 1.0 }
"""


def evaluate(x: float, draw: int) -> object:
    if draw < len(FAULTS):
        return go_wrong([*FAULTS][draw], x)
    time.sleep(random.Random(x).expovariate(20.0))
    return x


def go_wrong(how: str, x: float) -> object:
    if how == "exception":
        raise ValueError("no luck")
    if how in ("nan", "inf"):
        return float(how)
    if how == "no_number":
        return "0.5"
    if how == "forks":
        # A child that leaves a grandchild behind; both in our process group.
        subprocess.Popen(["/bin/sh", "-c", "sleep 1000 & sleep 0.01"])
        return x
    harm: dict[str, Callable[[], object]] = {
        "system_exit": lambda: sys.exit(3),
        "exit_code": lambda: os._exit(7),
        "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "busy_hang": spin,
        "silence": lambda: time.sleep(1000),
        "deaf": lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), time.sleep(1000)),
        "memory": lambda: (b"x" * 500_000_000, time.sleep(1000)),
        "garbage": lambda: os.write(int(sys.argv[2]), b'{"type": "finished"}\n'),
        "flood": lambda: [os.write(int(sys.argv[2]), b"x" * 65536) for _ in range(100)],
    }
    harm[how]()
    time.sleep(1000)
    raise AssertionError(f"{how} did no harm")


def spin() -> None:
    """Go on for ever, with signs of life."""
    from fractopt.parallel.message import NO_TRIAL, Progress, encode

    while True:
        time.sleep(0.2)
        os.write(int(sys.argv[2]), encode(Progress(0, NO_TRIAL, 0, "train", 1, 0, None, os.getpid())))
