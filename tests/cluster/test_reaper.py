"""What a test starts ends with it, whatever becomes of either."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from reaper import MARK, Reaper, living

LOST = """
import os, subprocess, sys, time
from pathlib import Path
from reaper import MARK, Reaper
Reaper(sys.argv[1], Path(sys.argv[2]), 60.0)
environment = {**os.environ, MARK: sys.argv[1]}
subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)
time.sleep(60)
"""


def sleepers(mark: str, count: int) -> list[subprocess.Popen[bytes]]:
    environment = {**os.environ, MARK: mark}
    return [subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True) for _ in range(count)]


def wait_until(there: Callable[[], bool], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_what_is_marked_or_holds_a_file_of_the_folder_ends(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    reaper = Reaper(mark, tmp_path, 60.0)
    marked = sleepers(mark, 2)
    with (tmp_path / "log").open("w") as log:
        holder = subprocess.Popen(["sleep", "60"], stdout=log, start_new_session=True)
    with (tmp_path.parent / "elsewhere").open("w") as log:
        stranger = subprocess.Popen(["sleep", "60"], stdout=log, start_new_session=True)
    assert reaper.close() == 0
    assert [process.wait(5) for process in (*marked, holder)] == [-signal.SIGKILL] * 3
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_too_many_are_ended_before_the_test_asks(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    reaper = Reaper(mark, tmp_path, 60.0, most=3)
    processes = sleepers(mark, 4)
    assert [process.wait(20) for process in processes] == [-signal.SIGKILL] * 4
    assert reaper.close() == 1


def test_too_long_is_ended_too(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    reaper = Reaper(mark, tmp_path, 0.5)
    (process,) = sleepers(mark, 1)
    assert process.wait(20) == -signal.SIGKILL
    assert reaper.close() == 1


def test_a_test_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    test = subprocess.Popen([sys.executable, "-c", LOST, mark, str(tmp_path)], env=environment)
    wait_until(lambda: len(living(mark, tmp_path)) > 0)
    test.kill()
    test.wait()
    wait_until(lambda: living(mark, tmp_path) == [])
