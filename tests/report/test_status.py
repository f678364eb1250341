"""`fractopt status`: what the files of a run say about it, while it goes on and afterwards."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from histories import Step, failure, manifest, records, value

from fractopt.archive.store import Archive
from fractopt.parallel.crew import Crew
from fractopt.parallel.message import Hello, Progress, Task
from fractopt.report.status import STALE_S, duration, status, status_lines
from fractopt.trial import Kind, Outcome, Status, event_from_json


def archive(directory: Path, outcomes: Sequence[Step], **more: Any) -> Archive:
    """A run that goes on, with these evaluations."""
    run = Archive.create(directory, manifest(**more), "", {})
    for record in records(outcomes)[1:]:
        if "event" in record:
            run.record(event_from_json(record))
        else:
            run.note(record)
    run.commit()
    return run


def search(*numbers: float) -> list[tuple[Kind, Outcome | None]]:
    return [(Kind.SEARCH, value(number)) for number in numbers]


def test_what_every_worker_does_just_now(tmp_path: Path) -> None:
    run = archive(tmp_path / "r", [(Kind.BASE, value(0.25)), *search(0.5, 0.75), (Kind.SEARCH, None)])
    crew = Crew()
    for number in (1, 2):
        crew.greet(Hello(number, "node7", 4242, str(number - 1), 4))
    crew.begin(1, Task(3, 0, "search", {}, 0))
    crew.states[1].since -= 0.5
    crew.hear(Progress(1, 3, 0, "train", 30, 96, 1.25, 4243))
    run.show({"time": time.time(), "workers": crew.board(), "expected": 3})
    report = status(tmp_path / "r")
    assert (report["state"], report["evaluations"], report["budget"]) == ("running", 3, 20)
    assert json.loads(json.dumps(report)) == report
    lines = list(status_lines(report))
    assert lines[0].startswith(f"{tmp_path / 'r'}: running (host ")
    # 17 evaluations of 2 s on two workers, half a second of one of them is done
    assert lines[1] == "3 of 20 evaluations (3 ok), about 17 s left"
    assert lines[2] == "best observed task/acc 0.75 (trial 2), base 0.25"
    assert lines[3] == "2 of 3 workers are ready, the others are being set up"
    assert lines[4].startswith("worker 1 node7 0: trial 3, train 30/96, loss 1.25, ")
    assert lines[4].endswith("s so far, about 1 s left") or lines[4].endswith("about 2 s left")
    assert lines[5] == "worker 2 node7 1: idle"
    assert len(lines) == 6
    run.show({"time": time.time() - STALE_S - 1, "workers": crew.board(), "expected": 3})
    assert status(tmp_path / "r")["workers"] == []
    run.close(complete=True, reason="")
    report = status(tmp_path / "r")
    assert (report["state"], report["owner"], report["workers"]) == ("complete", None, [])
    assert len(list(status_lines(report))) == 3


@pytest.mark.parametrize(("failed", "state"), [(True, "failed"), (False, "resumable")])
def test_why_a_run_ended_that_is_not_complete(tmp_path: Path, failed: bool, state: str) -> None:
    run = archive(tmp_path / "r", search(0.5))
    run.close(complete=False, reason="no worker can be used: the driver is gone\nTraceback", failed=failed)
    lines = list(status_lines(status(tmp_path / "r")))
    assert lines[:2] == [
        f"{tmp_path / 'r'}: {state}",
        "it ended: no worker can be used: the driver is gone",
    ]
    again = archive(tmp_path / "s", search(0.5))
    again.close(complete=True, reason="the budget is met")
    assert not any(line.startswith("it ended") for line in status_lines(status(tmp_path / "s")))


def test_a_run_whose_workers_are_being_set_up(tmp_path: Path) -> None:
    run = Archive.create(tmp_path / "r", manifest(), "", {})
    run.show({"time": time.time(), "workers": [], "expected": 8})
    assert list(status_lines(status(tmp_path / "r")))[1:] == [
        "0 evaluations (none yet)",
        "0 of 8 workers are ready, the others are being set up",
    ]
    run.abandon()
    assert status(tmp_path / "r")["state"] == "resumable"


def test_the_last_failures_and_a_warning_above_30_percent(tmp_path: Path) -> None:
    outcomes = [(Kind.SEARCH, failure(message=f"E{i}\nTraceback")) for i in range(4)]
    outcomes[3] = (Kind.SEARCH, failure(Status.OOM, "E3"))
    archive(tmp_path / "r", [*outcomes, *search(*[0.5] * 6)]).abandon()
    lines = list(status_lines(status(tmp_path / "r")))
    assert lines[3:] == [
        "trial 1 failed: E1",
        "trial 2 failed: E2",
        "trial 3 oom: E3",
        "warning: 4 of 10 evaluations failed; the last reasons are above",
    ]
    archive(tmp_path / "few", [*outcomes[:3], *search(*[0.5] * 7)]).abandon()
    assert status(tmp_path / "few")["warnings"] == []
    diverged = [(Kind.SEARCH, Outcome(Status.DIVERGED))] * 9  # a bad configuration is no failure
    archive(tmp_path / "diverged", [*diverged, *search(0.5)]).abandon()
    assert status(tmp_path / "diverged")["warnings"] == []


@pytest.mark.parametrize(
    ("direction", "best", "count", "warned"),
    [
        ("maximize", 0.3, 20, True),
        ("maximize", 0.3, 19, False),
        ("maximize", 0.31, 20, False),
        ("minimize", 0.3, 20, True),
        ("minimize", 0.29, 20, False),
    ],
)
def test_a_warning_where_20_evaluations_do_not_beat_the_untuned_model(
    tmp_path: Path, direction: str, best: float, count: int, warned: bool
) -> None:
    worse = 0.2 if direction == "maximize" else 0.4
    outcomes = [(Kind.BASE, value(0.3)), *search(best, *[worse] * (count - 2))]
    archive(tmp_path / "r", outcomes, direction=direction).abandon()
    (warning,) = status(tmp_path / "r")["warnings"] or [""]
    assert warning.startswith("after 20 evaluations nothing beats the untuned model") == warned


def test_the_phase_is_that_of_the_last_trial(tmp_path: Path) -> None:
    steps: list[Any] = [(Kind.BASE, value(0.3)), *search(0.5, 0.6), (Kind.REPLICATE, None, 2)]
    for count, phase in ((0, "none"), (1, "anchors"), (2, "search"), (4, "replicates")):
        archive(tmp_path / str(count), steps[:count]).abandon()
        assert status(tmp_path / str(count))["phase"] == phase
    run = archive(tmp_path / "r", steps)
    run.note({"record": "tested", "trial": 2, "outcome": {"status": "failed"}})
    run.commit()
    run.abandon()
    assert status(tmp_path / "r")["phase"] == "tests"


@pytest.mark.parametrize(
    ("replicates", "sd", "line"),
    [
        ([], 0.1, "recommended trial 1: task/acc 0.625 (posterior mean)"),
        ([], 0.0, "recommended trial 1: task/acc 0.625 (without noise)"),
        (
            [(Kind.CONFIRM, value(0.5), 1), (Kind.CONFIRM, value(0.25), 1)],
            0.1,
            "recommended trial 1: task/acc 0.375 (mean of replicates kept out of the choice)",
        ),
    ],
)
def test_what_is_recommended_and_what_its_value_is(
    tmp_path: Path, replicates: list[Any], sd: float, line: str
) -> None:
    run = archive(tmp_path / "r", [*search(0.5, 0.75), *replicates])
    assert status(tmp_path / "r")["recommended"] is None
    run.note({"record": "recommended", "trial": 1, "mean": 0.625, "sd": sd, "time": 0.0})
    run.close(complete=True, reason="")
    report = status(tmp_path / "r")
    among = ", 2 of them replicates" if replicates else ""
    assert list(status_lines(report))[1:4] == [
        f"{2 + len(replicates)} of 20 evaluations ({2 + len(replicates)} ok){among}",
        line,
        "best observed task/acc 0.75 (trial 1)",
    ]
    assert report["recommended"]["trial"] == report["best"]["trial"] == 1


def test_durations_for_people() -> None:
    assert [duration(s) for s in (0.4, 89, 90, 5000, 12600)] == ["0 s", "89 s", "2 min", "83 min", "3.5 h"]
