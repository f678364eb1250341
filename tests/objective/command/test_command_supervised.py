"""A program under supervision: limits end it and all it started, a warning lets it finish its sentence."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "parallel"))

from ranks import MARK, survivors

from fractopt.parallel.message import Finished, Limits, Place, Progress, Setup, Task
from fractopt.parallel.worker import Supervisor, end
from fractopt.trial import Status

PATIENCE_S = 60.0
Start = Callable[..., Supervisor]


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Callable[..., dict[str, Any]]
) -> Iterator[Start]:
    """Starts a supervisor of the obedient program; in the end no process may be left of it."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    started: list[Supervisor] = []

    def start(**limits: Any) -> Supervisor:
        supervisor = Supervisor(Place(1, "", 1), Setup(spec(), str(tmp_path), Limits(**limits)))
        supervisor.start()
        started.append(supervisor)
        return supervisor

    yield start
    end(started, 0.0)
    assert survivors(mark) == {}


def run(supervisor: Supervisor, **params: Any) -> Finished:
    supervisor.send(Task(3, 0, "search", params, 7))
    finished = until(supervisor, Finished)
    assert isinstance(finished, Finished)
    return finished


def until(supervisor: Supervisor, cls: type[Any]) -> Any:
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        for message in supervisor.poll():
            if isinstance(message, cls):
                return message
        time.sleep(0.005)
    raise AssertionError(f"no {cls} within {PATIENCE_S} s")


def log(tmp_path: Path, name: str) -> str:
    return (tmp_path / "evals" / "000003" / name).read_text()


def test_limits_of_time_end_a_program_with_all_it_started(start: Start, tmp_path: Path) -> None:
    supervisor = start(stall_timeout_s=1.0, timeout_s=2.5)
    silent = run(supervisor, do="wait").outcome
    assert (silent.status, silent.reason) == (
        Status.TIMEOUT,
        "it ran without a sign of progress for 1 s (stall_timeout)",
    )
    talking = run(supervisor, do="wait", talk=True).outcome
    assert (talking.status, talking.reason) == (Status.TIMEOUT, "it ran longer than the timeout of 2.5 s")
    assert "still here\nstill here\n" in log(tmp_path, "stdout.log")


def test_a_limit_of_memory_counts_the_program(start: Start) -> None:
    supervisor = start(memory_bytes=200_000_000)
    assert run(supervisor, do="tell", x=4.0).outcome.value == 4.0
    swollen = run(supervisor, do="swell").outcome
    assert swollen.status is Status.OOM
    assert swollen.message.endswith("GB of memory, more than the 0.2 GB allowed")


def test_a_line_in_its_progress_file_keeps_a_stall_away(start: Start) -> None:
    supervisor = start(stall_timeout_s=0.8)  # it takes 1.4 s, and prints nothing
    supervisor.send(Task(3, 0, "search", {"do": "train", "x": 2.0}, 7))
    said = [until(supervisor, Progress) for _ in range(3)]
    assert {message.phase for message in said} <= {"run", "train", "setup"}
    assert until(supervisor, Finished).outcome.value == 2.0


def test_it_may_end_its_sentence_when_it_is_told_to_end(start: Start, tmp_path: Path) -> None:
    supervisor = start()
    supervisor.send(Task(3, 0, "search", {"do": "last_words"}, 7))
    limit = time.monotonic() + PATIENCE_S
    while not (tmp_path / "evals").exists() or "ready" not in log(tmp_path, "stdout.log"):
        assert time.monotonic() < limit
        supervisor.poll()
        time.sleep(0.01)
    end([supervisor], PATIENCE_S)
    assert log(tmp_path, "stdout.log") == "ready\ncheckpoint written\n"
